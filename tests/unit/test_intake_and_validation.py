"""The two checks: of the bytes before any work is paid for, of the text before it is cut."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline.adapters.intake import Intake
from statemachine_pipeline.adapters.media_types import RTF, SUPPORTED
from statemachine_pipeline.adapters.validation import Validation
from statemachine_pipeline.hooks import Claim, Done, Reject
from statemachine_pipeline.records import (
    Accepted,
    Chunk,
    Document,
    ParsedText,
    Source,
    Span,
    Validated,
    sha256_hex,
)

if TYPE_CHECKING:
    from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Held:
    """A reader that holds what it gives."""

    source: Source
    text: ParsedText

    async def read_source(self, claim: Claim) -> Source:
        return self.source

    async def read_text(self, claim: Claim) -> ParsedText:
        return self.text

    async def read_chunks(self, claim: Claim) -> list[Chunk]:
        return []

    async def forget(self, claim: Claim) -> None:
        return None


def claim(source: Source, text: ParsedText, *, content_sha256: str, input_sha256: str) -> Claim:
    """Return a claim on a document with these hashes; nothing else on it is read."""
    unread: dict[str, Any] = {field.name: None for field in dataclasses.fields(Document)}
    hashes = {"content_sha256": content_sha256, "input_sha256": input_sha256}
    document = Document(**unread | hashes)
    unread = {field.name: None for field in dataclasses.fields(Claim)}
    return Claim(**unread | {"document": document, "reader": Held(source, text)})


async def intake(content: bytes, name: str = "a.txt", *, size_limit_bytes: int = 1000) -> Done:
    """Run intake on these bytes."""
    source = Source(name=name, media_type=None, size_bytes=len(content), data=content)
    digest = sha256_hex(content)
    held = claim(source, ParsedText(""), content_sha256=digest, input_sha256=digest)
    return await Intake(size_limit_bytes=size_limit_bytes)(held)


async def validate(text: ParsedText, input_sha256: str | None = None) -> Done:
    """Run validation on this text."""
    source = Source(name="a", media_type=None, size_bytes=1, data=b"a")
    digest = text.sha256 if input_sha256 is None else input_sha256
    return await Validation()(claim(source, text, content_sha256="", input_sha256=digest))


async def test_intake_says_what_the_bytes_are(tmp_path: Path) -> None:
    """Accept the claim's bytes and say what type they are."""
    done = await intake(b"words")
    assert done.product == Accepted(media_type="text/plain", sha256=sha256_hex(b"words"))
    path = tmp_path / "a.md"
    path.write_bytes(b"words")
    source = Source(name="a.md", media_type=None, size_bytes=5, path=path)
    digest = sha256_hex(b"words")
    done = await Intake()(claim(source, ParsedText(""), content_sha256=digest, input_sha256=digest))
    assert done.product == Accepted(media_type="text/markdown", sha256=digest)


# An old Office file whose directory, in its first sector, names the encrypted document.
LOCKED = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(30, b"\0")
    + (9).to_bytes(2, "little").ljust(482, b"\0")
    + "EncryptedPackage".encode("utf-16-le")
)
UNPACK = "{} archive: unpack it and submit the files that are in it"
REFUSALS = [
    (b"", "empty", "the file is empty"),
    (
        b"a" * 1001,
        "too_large",
        "1,001 bytes are more than the limit of 1,000: raise `Intake(size_limit_bytes=...)`",
    ),
    (LOCKED, "encrypted", "password-protected"),
    (b"a\x00b", "unknown_type", "unknown binary content: neither text nor a known type"),
    (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(50),
        "unsupported_type",
        f"PNG image is not supported yet: image/png; supported: {', '.join(SUPPORTED.values())}",
    ),
    (gzip.compress(b"words" * 100, mtime=0), "archive", UNPACK.format("gzip")),
    (bz2.compress(b"words" * 100), "archive", UNPACK.format("bzip2")),
    (lzma.compress(b"words" * 100), "archive", UNPACK.format("xz")),
    (b"\x28\xb5\x2f\xfd" + bytes(300), "archive", UNPACK.format("zstd")),
    (b"7z\xbc\xaf\x27\x1c" + bytes(300), "archive", UNPACK.format("7z")),
    (b"Rar!\x1a\x07\x01\x00" + bytes(300), "archive", UNPACK.format("rar")),
    (b"a.txt".ljust(257, b"\0") + b"ustar\x0000" + bytes(248), "archive", UNPACK.format("tar")),
    (b"PK\x03\x04" + bytes(300), "archive", UNPACK.format("zip")),
]


@pytest.mark.parametrize(("content", "code", "reason"), REFUSALS)
async def test_intake_refuses_in_a_sentence(content: bytes, code: str, reason: str) -> None:
    """A true, plain sentence and a code."""
    with pytest.raises(Reject) as caught:
        await intake(content)
    assert (caught.value.code, caught.value.reason) == (code, reason)


async def test_intake_accepts_what_the_parser_is_said_to_read() -> None:
    """accepts: Media types that the parser reads; what the shipped one does by default."""
    content = rb"{\rtf1 words}"
    digest = sha256_hex(content)
    source = Source(name="a", media_type=None, size_bytes=len(content), data=content)
    held = claim(source, ParsedText(""), content_sha256=digest, input_sha256=digest)
    assert (await Intake(accepts=[RTF])(held)).product == Accepted(media_type=RTF, sha256=digest)
    with pytest.raises(Reject, match=r"plain text is not supported yet: .*; supported: rtf"):
        await Intake(accepts=[RTF])(
            claim(
                Source(name="a.txt", media_type=None, size_bytes=1, data=b"a"),
                ParsedText(""),
                content_sha256=sha256_hex(b"a"),
                input_sha256="",
            )
        )


async def test_intake_refuses_bytes_that_were_not_submitted() -> None:
    """Not the bytes that were submitted."""
    source = Source(name="a", media_type=None, size_bytes=1, data=b"other")
    with pytest.raises(Reject, match="the bytes are not those that were submitted") as caught:
        await Intake()(claim(source, ParsedText(""), content_sha256="0" * 64, input_sha256=""))
    assert caught.value.code == "changed"


@pytest.mark.parametrize("size", [1, 5_000])
async def test_validation_hashes_what_the_text_says(size: int) -> None:
    """Two texts have the same hash when ``normalise`` makes them equal."""
    one = await validate(ParsedText("* see [here](https://a.org)\r\n" * size))
    other = await validate(ParsedText("-  see here\n" * size))
    assert isinstance(one.product, Validated)
    assert one.product == other.product
    assert one.product.key == ("text", one.product.text_sha256)


async def test_validation_refuses_a_text_that_was_changed() -> None:
    """It is not what the parser left."""
    with pytest.raises(Reject, match="the stored text is not the one that was parsed") as caught:
        await validate(ParsedText("words"), "0" * 64)
    assert caught.value.code == "text_changed"


@pytest.mark.parametrize(
    ("pages", "reason"),
    [(0, "no text"), (1, "no text on 1 page: a scan?"), (12, "no text on 12 pages: a scan?")],
)
async def test_validation_refuses_what_has_no_text(pages: int, reason: str) -> None:
    """The sentence says how many pages there are."""
    spans = tuple(Span(page=page, start=0, end=0) for page in range(1, pages + 1))
    with pytest.raises(Reject) as caught:
        await validate(ParsedText(" \u200b\n" if not pages else "", spans))
    assert (caught.value.code, caught.value.reason) == ("no_text", reason)
