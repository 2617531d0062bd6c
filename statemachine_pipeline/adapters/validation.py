"""Validation: is the parsed text whole, is there any, and has anyone else the same?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters.normalise import normalise
from statemachine_pipeline.hooks import Done, Reject
from statemachine_pipeline.records import Validated, sha256_hex

if TYPE_CHECKING:
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import ParsedText

# Below this a thread costs more than the work: 20,000 characters take about 3 ms.
_SMALL_CHARS: Final = 20_000


class Validation:
    """Checks the parsed text and gives it the hash that tells duplicates.

    Two texts have the same hash when ``normalise`` makes them equal: line ends, blanks, bullets
    and link targets may differ.
    """

    fingerprint = "validation/1"

    async def __call__(self, claim: Claim) -> Done:
        """Return the normalised hash of the claim's text.

        Raises:
            Reject: There is no text, or it is not what the parser left; codes ``no_text`` and
                ``text_changed``.
        """
        parsed = await claim.text()
        if len(parsed.text) < _SMALL_CHARS:
            return Done(_validate(parsed, claim.document.input_sha256))
        return Done(await asyncio.to_thread(_validate, parsed, claim.document.input_sha256))


def _validate(parsed: ParsedText, expected_sha256: str) -> Validated:
    if parsed.sha256 != expected_sha256:
        raise Reject(
            "the stored text is not the one that was parsed: its sha256 begins with "
            f"{parsed.sha256[:12]}, not with {expected_sha256[:12]}; reprocess the document",
            "text_changed",
        )
    normal = normalise(parsed.text)
    if not normal.strip():
        raise Reject(_without_text(len(parsed.spans)), "no_text")
    return Validated(text_sha256=sha256_hex(normal))


def _without_text(page_count: int) -> str:
    if page_count == 0:
        return "no text"
    return f"no text on {page_count} page{'s' * (page_count > 1)}: a scan?"
