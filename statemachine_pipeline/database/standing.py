"""What earlier lives of a document left: rows of ``product``, and which of their data is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.decide import Earned

if TYPE_CHECKING:
    from collections.abc import Mapping


def to_earned(row: Any) -> Earned:
    """Read one row of ``product``."""
    return Earned(
        stage=row.stage,
        input_sha256=row.input_sha256,
        fingerprint=row.fingerprint,
        output_sha256=row.output_sha256,
        kind=row.kind,
        key=(row.key_kind, row.key_sha256) if row.key_kind else None,
        reported=row.reported,
        facts=row.facts,
    )


def chain(content_sha256: str, earned: Mapping[str, Earned]) -> set[str]:
    """Every hash that follows from these bytes by what was earned."""
    reached = {content_sha256}
    grew = True
    while grew:
        outputs = {e.output_sha256 for e in earned.values() if e.input_sha256 in reached}
        grew = not outputs <= reached
        reached |= outputs
    return reached


def present(row: Any, earned: Mapping[str, Earned]) -> dict[Any, set[str]]:
    """Output hashes whose data is still stored."""
    published = row.published_sha256 if row.is_whole else None
    chunk_sets = {sha for sha in (row.buffered_sha256, published) if sha}
    vectors, shown = set(), set()
    for e in earned.values():
        if e.kind == "vectors":
            in_buffer = row.buffered_sha256 is not None and row.without_vector == 0
            if in_buffer and e.fingerprint in (row.buffered_embedders or ()):
                vectors.add(e.output_sha256)
            if published is not None and e.fingerprint in (row.published_embedders or ()):
                shown.add(e.output_sha256)
    # Products come in no order, so publications are looked at once all vectors are known.
    publications = {
        e.output_sha256
        for e in earned.values()
        if e.kind == "publication" and e.input_sha256 in shown
    }
    return {
        "text": {row.text_sha256} if row.text_sha256 else set(),
        "chunks": chunk_sets,
        "vectors": vectors | shown,
        "publication": publications,
    }
