"""What makes a zip-based document safe to read: its entries are inflated once, and counted.

Nothing is written to disk, so names that point out of the archive do no harm. Sizes that an
archive declares are never believed: a reader that asks ``zipfile`` for a whole entry inflates what
is there, whatever the directory says, and cuts it to the declared size only afterwards.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Final
from xml.parsers import expat

from statemachine_pipeline.hooks import Reject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.adapters.reading import Reading

_PIECE_BYTES: Final = 64 * 1024
_ENCRYPTED: Final = 0x1 | 0x40  # by any method, by a strong one
_PROLOG_LIMIT_BYTES: Final = 1024 * 1024
_DIRECTORY_ENTRY: Final = b"PK\x01\x02"
_LOCAL_HEADER: Final = b"PK\x03\x04"
_LOCAL_HEADER_BYTES: Final = 30
# All that zipfile raises over a directory that was made to confuse it.
_BROKEN: Final = (
    *(zipfile.BadZipFile, EOFError, NotImplementedError, OSError, OverflowError, RuntimeError),
    *(ValueError, struct.error),
)


def check(content: bytes, reading: Reading) -> None:
    """Refuse a zip-based document that is unsafe or impossible to read.

    Every entry is inflated piece by piece and compared with its size and checksum, so what passes
    can be read whole with ``zipfile`` and takes no more memory than it declares. Archives inside
    it count for the limits only: no reader opens them, so they may be broken or locked.

    Args:
        content: The document.
        reading: Limits: ``inflated_bytes``, ``inflation_ratio``, ``entries`` and ``depth``.

    Raises:
        Reject: ``too_large`` over a limit, ``encrypted`` for a locked entry, ``damaged`` for an
            archive that cannot be read whole, ``unsafe_xml`` for XML that declares entities.
    """
    _Walk(reading, len(content)).document(content)


@dataclasses.dataclass(slots=True)
class _Walk:
    """What one document has used up so far, archives inside it included."""

    reading: Reading
    size_bytes: int
    inflated_bytes: int = 0
    entries: int = 0

    def document(self, content: bytes) -> None:
        try:
            archive, entries = self._open(content)
        except _BROKEN as error:
            raise Reject(f"damaged archive: {_reason(error)}", "damaged") from None
        locked = sum(bool(entry.flag_bits & _ENCRYPTED) for entry in entries)
        if locked:
            raise Reject(
                f"password-protected: {locked:,} of {len(entries):,} entries are encrypted",
                "encrypted",
            )
        for entry in entries:
            prolog = _Prolog()
            try:
                with archive.open(entry):  # compares the entry's own header with the directory
                    pass
                data = self._inflate(content, entry, prolog)
            except (*_BROKEN, zlib.error) as error:
                reason = f"damaged archive: {entry.filename}: {_reason(error)}"
                raise Reject(reason, "damaged") from None
            if fault := prolog.fault():
                raise Reject(f"{entry.filename} {fault}", "unsafe_xml")
            if data:
                self._nested(data, entry.filename, 2)

    def _nested(self, content: bytes, name: str, depth: int) -> None:
        """Count an archive that lies in another."""
        if depth > self.reading.depth:
            raise Reject(
                f"{name} is an archive at depth {depth:,}, more than the limit of "
                f"{self.reading.depth:,}",
                "too_large",
            )
        try:
            _, entries = self._open(content)
        except _BROKEN:
            return
        for entry in entries:
            try:
                data = self._inflate(content, entry)
            except (*_BROKEN, zlib.error):
                continue
            if data:
                self._nested(data, f"{name}/{entry.filename}", depth + 1)

    def _open(self, content: bytes) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
        # Counted before zipfile makes an object of each.
        self.entries += content.count(_DIRECTORY_ENTRY)
        if self.entries > self.reading.entries:
            raise Reject(
                f"{self.entries:,} entries are more than the limit of {self.reading.entries:,}",
                "too_large",
            )
        archive = zipfile.ZipFile(io.BytesIO(content))
        return archive, archive.infolist()

    def _inflate(
        self, content: bytes, entry: zipfile.ZipInfo, prolog: _Prolog | None = None
    ) -> bytes:
        """Inflate an entry and return it if it is an archive; of others keep no more than a piece.

        Raises:
            ValueError: It is not what the directory says it is.
        """
        size_bytes = checksum = 0
        archive: list[bytes] = []
        for piece in _pieces(content, entry):
            if prolog is not None:
                prolog.feed(piece)
            if archive or (not size_bytes and piece.startswith(_LOCAL_HEADER)):
                archive.append(piece)
            size_bytes += len(piece)
            checksum = zlib.crc32(piece, checksum)
            self._count(len(piece))
            if size_bytes > entry.file_size:
                raise ValueError(f"more than the {entry.file_size:,} bytes that it declares")
        if size_bytes < entry.file_size:
            raise ValueError(f"{size_bytes:,} of {entry.file_size:,} bytes that it declares")
        if checksum != entry.CRC:
            raise ValueError("wrong checksum")
        return b"".join(archive)

    def _count(self, size_bytes: int) -> None:
        self.inflated_bytes += size_bytes
        if self.inflated_bytes > self.reading.inflated_bytes:
            raise Reject(
                f"its entries inflate to more than the limit of "
                f"{self.reading.inflated_bytes:,} bytes",
                "too_large",
            )
        if self.inflated_bytes > self.reading.inflation_ratio * self.size_bytes:
            raise Reject(
                f"its {self.size_bytes:,} bytes inflate to more than the limit of "
                f"{self.reading.inflation_ratio:,} times as many",
                "too_large",
            )


def _pieces(content: bytes, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield what an entry really inflates to.

    Raises:
        ValueError: Cut off, or compressed by a method that these formats do not have.
        zlib.error: Damaged.
    """
    lengths = entry.header_offset + 26
    name_bytes, extra_bytes = struct.unpack("<HH", content[lengths : lengths + 4])
    start = entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes
    packed = memoryview(content)[start : start + entry.compress_size]
    inputs = (packed[at : at + _PIECE_BYTES] for at in range(0, len(packed), _PIECE_BYTES))
    if entry.compress_type == zipfile.ZIP_STORED:
        yield from map(bytes, inputs)
        return
    # OPC, ODF and EPUB know no other; those of zipfile cannot be inflated in small pieces.
    if entry.compress_type != zipfile.ZIP_DEFLATED:
        raise ValueError(f"compression method {entry.compress_type} instead of 0 or 8")
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    for given in inputs:
        waiting: bytes | memoryview = given
        while waiting and not stream.eof:
            yield stream.decompress(waiting, _PIECE_BYTES)
            waiting = stream.unconsumed_tail
    while not stream.eof and (piece := stream.decompress(b"", _PIECE_BYTES)):
        yield piece
    if not stream.eof:
        raise ValueError("cut off")


class _Prolog:
    """Reads what stands before the first element, the one place where entities are declared.

    The same parser reads it here and later, so no encoding hides a declaration. What is no XML
    fails at once and is left to its reader. Pictures may declare entities, as those of Illustrator
    do: nothing reads them as text.
    """

    def __init__(self) -> None:
        self._read_bytes = 0
        self._declares = False
        self._root = ""
        self._is_over = False
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.EntityDeclHandler = self._entity
        self._parser.StartElementHandler = self._element

    def feed(self, piece: bytes, *, is_last: bool = False) -> None:
        """Read on, unless the first element was seen."""
        if self._is_over:
            return
        self._read_bytes += len(piece)
        try:
            self._parser.Parse(piece, is_last)
        except (expat.ExpatError, LookupError, ValueError):
            self._is_over = True
        self._is_over |= self._read_bytes > _PROLOG_LIMIT_BYTES

    def fault(self) -> str:
        """Say what is unsafe, in words that follow the part's name; empty when nothing is."""
        self.feed(b"", is_last=True)
        if self._declares and self._root.rpartition(":")[2] != "svg":
            return "declares XML entities, which documents do not need and attacks do"
        if self._read_bytes > _PROLOG_LIMIT_BYTES and not self._root:
            return f"is XML without an element in its first {self._read_bytes:,} bytes"
        return ""

    def _doctype(
        self, _name: str, _system: str | None, _public: str | None, has_internal_subset: bool
    ) -> None:
        self._declares |= bool(has_internal_subset)

    def _entity(self, *_declaration: object) -> None:
        self._declares = True

    def _element(self, name: str, _attributes: object) -> None:
        self._root = self._root or name
        self._is_over = True


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
