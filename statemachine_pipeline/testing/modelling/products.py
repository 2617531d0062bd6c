"""What earlier attempts left, as ``resume`` reads it, made of what guards were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.decide import Earned, Standing
from statemachine_pipeline.testing.verdicts import TWIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from statemachine_pipeline.records import KeyKind
    from statemachine_pipeline.stages import Stages

INPUT = "input"
"""What every stage reads: within one set of bytes nothing that it depends on changes."""


class Products:
    """Numbers the facts of products, so that a situation holds no more of them than that.

    Args:
        stages: The lifecycle and its hooks.
    """

    def __init__(self, stages: Stages) -> None:
        self._fingerprints = {bound.trigger: bound.fingerprint for bound in stages}
        self._kept: list[tuple[Mapping[str, int], Mapping[str, object]]] = []

    def number(self, counts: Mapping[str, int], reported: Mapping[str, object]) -> int:
        """Return the number of what guards were told, which is kept with the product."""
        kept = counts, reported
        if kept not in self._kept:
            self._kept.append(kept)
        return self._kept.index(kept)

    def standings(self, earned: Sequence[tuple[str, int]]) -> Iterator[Standing]:
        """Yield what products may be worth: no twin, or one that owns what one of them made."""
        yield self._standing(earned, {})
        kinds: tuple[KeyKind, ...] = ("bytes", "text")
        for stage, _ in earned:
            for kind in kinds:
                yield self._standing(earned, {stage: kind})

    def _standing(
        self, earned: Sequence[tuple[str, int]], twins: Mapping[str, KeyKind]
    ) -> Standing:
        products = {}
        for stage, number in earned:
            counts, reported = self._kept[number]
            kind = twins.get(stage)
            products[stage] = Earned(
                stage=stage,
                input_sha256=INPUT,
                fingerprint=self._fingerprints[stage],
                output_sha256=INPUT,
                kind="none",
                key=(kind, stage) if kind else None,
                reported=reported,
                facts=counts,
            )
        owners = {(kind, stage): TWIN for stage, kind in twins.items()}
        return Standing(earned=products, present={}, owners=owners)
