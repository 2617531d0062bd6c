"""The rules by which workers share a document, and its mutants, each of which breaks one.

Checks that would not notice a broken rule prove nothing, so every mutant has to be found.
"""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What holds for claims, settles, rescue and people; as it stands, what the library does.

    Attributes:
        settle_compares: What must be as it was claimed for a settle to be written.
        checks_repeats: A settle that arrives a second time is compared too.
        asks_when_unsure: A worker that lost an answer asks for its claim before it settles again.
        has_products_in_settle: A product is written if and only if its settle is.
        has_new_fence_by_workers: Claims, settles and releases draw a new fence.
        has_new_fence_by_rescue: So does rescue.
        has_new_fence_by_people: So does what people and webhooks do.
        claims_only_ready: Nobody claims what somebody else holds.
        counts_attempts: A claim counts an attempt.
        counts_crashes: Rescue counts a crash.
        gives_back: A hook that has to wait, and a worker that leaves, give the attempt back.
        counts_anew: Whoever enters a stage begins at its first attempt.
        rescues: Claims of dead and late workers are taken from them.
        rescues_only_lost: Nobody else's are.
        promotes: What was deferred becomes ready in time.
        keeps_place: What waits keeps its row of work.
        drops_place: What rests does not.
        is_bounded: Attempts and crashes end by the stage's policy.
        compares_bytes: The same bytes again change nothing.
    """

    settle_compares: Literal["fence", "state", "nothing"] = "fence"
    checks_repeats: bool = True
    asks_when_unsure: bool = True
    has_products_in_settle: bool = True
    has_new_fence_by_workers: bool = True
    has_new_fence_by_rescue: bool = True
    has_new_fence_by_people: bool = True
    claims_only_ready: bool = True
    counts_attempts: bool = True
    counts_crashes: bool = True
    gives_back: bool = True
    counts_anew: bool = True
    rescues: bool = True
    rescues_only_lost: bool = True
    promotes: bool = True
    keeps_place: bool = True
    drops_place: bool = True
    is_bounded: bool = True
    compares_bytes: bool = True

    @property
    def is_fenced(self) -> bool:
        """Whether nothing that is told under a lost claim is ever written.

        Then lost claims are all alike, and nobody has to remember what they were made for.
        """
        compares = self.settle_compares == "fence" and self.checks_repeats
        return compares and self.asks_when_unsure and self.has_products_in_settle


AS_BUILT = Protocol()

MUTANTS: Mapping[str, Protocol] = MappingProxyType(
    {
        "settle_without_fence": Protocol(settle_compares="nothing"),
        "settle_by_state_alone": Protocol(settle_compares="state"),
        "repeated_settle_unchecked": Protocol(checks_repeats=False),
        "lost_answer_settled_blindly": Protocol(asks_when_unsure=False),
        "product_outside_settle": Protocol(has_products_in_settle=False),
        "workers_keep_fence": Protocol(has_new_fence_by_workers=False),
        "rescue_keeps_fence": Protocol(has_new_fence_by_rescue=False),
        "people_keep_fence": Protocol(has_new_fence_by_people=False),
        "claim_of_claimed": Protocol(claims_only_ready=False),
        "attempt_not_counted": Protocol(counts_attempts=False),
        "crash_not_counted": Protocol(counts_crashes=False),
        "wait_counted": Protocol(gives_back=False),
        "attempts_kept_on_entry": Protocol(counts_anew=False),
        "no_rescue": Protocol(rescues=False),
        "rescue_of_the_living": Protocol(rescues_only_lost=False),
        "deferred_never_due": Protocol(promotes=False),
        "deferred_without_place": Protocol(keeps_place=False),
        "rest_keeps_place": Protocol(drops_place=False),
        "retry_without_budget": Protocol(is_bounded=False),
        "same_bytes_restart": Protocol(compares_bytes=False),
    }
)
"""Each breaks one rule, named by what then happens."""
