"""Intake: are the bytes whole, of a bearable size, and of a type that can be read?

Nothing here parses; a document that passes may still turn out to be damaged.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters.media_types import (
    LOCKED_OFFICE,
    SUPPORTED,
    is_archive,
    name_of,
    sniff,
)
from statemachine_pipeline.hooks import Done, Reject
from statemachine_pipeline.records import Accepted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.records import Source

MEBIBYTE: Final = 1024 * 1024


class Intake:
    """Checks a document's bytes before any work is paid for.

    Args:
        size_limit_bytes: Larger documents are rejected.
        accepts: Media types that the parser reads; what the shipped one does by default.
    """

    fingerprint = "intake/2"

    def __init__(
        self, *, size_limit_bytes: int = 100 * MEBIBYTE, accepts: Iterable[str] = SUPPORTED
    ) -> None:
        self.size_limit_bytes = size_limit_bytes
        self.accepts = tuple(accepts)

    async def __call__(self, claim: Claim) -> Done:
        """Accept the claim's bytes and say what type they are.

        Raises:
            Reject: The document is empty, too large, an archive, of another type than the supported
                ones, or not the bytes that were submitted; codes ``empty``, ``too_large``,
                ``encrypted``, ``archive``, ``unsupported_type``, ``unknown_type`` and ``changed``.
        """
        source = await claim.source()
        return Done(await asyncio.to_thread(self._inspect, source, claim.document.content_sha256))

    def _inspect(self, source: Source, expected_sha256: str) -> Accepted:
        with _open(source) as stream:
            size_bytes = stream.seek(0, io.SEEK_END)
            if size_bytes == 0:
                raise Reject("the file is empty", "empty")
            if size_bytes > self.size_limit_bytes:
                raise Reject(
                    f"{size_bytes:,} bytes are more than the limit of {self.size_limit_bytes:,}: "
                    "raise `Intake(size_limit_bytes=...)`",
                    "too_large",
                )
            stream.seek(0)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != expected_sha256:
                raise Reject(
                    "the bytes are not those that were submitted: their sha256 begins with "
                    f"{digest[:12]}, not with {expected_sha256[:12]}",
                    "changed",
                )
            media_type = sniff(source.name, stream)
        if media_type is None:
            raise Reject("unknown binary content: neither text nor a known type", "unknown_type")
        self._check_type(media_type)
        return Accepted(media_type=media_type, sha256=digest)

    def _check_type(self, media_type: str) -> None:
        if media_type in self.accepts:
            return
        if media_type == LOCKED_OFFICE:
            raise Reject("password-protected", "encrypted")
        if is_archive(media_type):
            raise Reject(
                f"{name_of(media_type)}: unpack it and submit the files that are in it", "archive"
            )
        raise Reject(
            f"{name_of(media_type)} is not supported yet: {media_type}; "
            f"supported: {', '.join(map(name_of, self.accepts))}",
            "unsupported_type",
        )


def _open(source: Source) -> io.BufferedReader | io.BytesIO:
    if source.data is None and source.path is not None:
        return source.path.open("rb")
    return io.BytesIO(source.read())
