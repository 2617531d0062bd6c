"""Zip-based documents that lie, swell or hide: each is refused before a reader opens it."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from typing import Any

import pytest
from fix_archives import zipped

from statemachine_pipeline.adapters.reading import MEBIBYTE, Reading
from statemachine_pipeline.adapters.zipped import check
from statemachine_pipeline.hooks import Reject

# Noise that is the same in every run: by chance it might hold the mark of an archive.
drawn = random.Random(7).randbytes
PLAIN = {"a.xml": "<a>words and words and words</a>", "b/c.bin": "more"}


def refusal(content: bytes, **limits: Any) -> tuple[str, str]:
    """Return the code and the sentence of a refusal."""
    with pytest.raises(Reject) as caught:
        check(content, Reading(**limits))
    return caught.value.code, caught.value.reason


def patched(content: bytes, place: int, fields: dict[int, tuple[str, int]]) -> bytes:
    """Overwrite fields of a header that begins at ``place``."""
    changed = bytearray(content)
    for offset, (form, value) in fields.items():
        struct.pack_into(form, changed, place + offset, value)
    return bytes(changed)


def nested(depth: int) -> bytes:
    """Return an archive in an archive, ``depth`` of them in all."""
    content = zipped({"a.txt": "words"})
    for level in range(depth - 1):
        content = zipped({f"{level}.zip": content})
    return content


class TestLimits:
    def test_an_everyday_document_passes(self) -> None:
        """What passes can be read whole with ``zipfile``."""
        check(zipped(PLAIN), Reading())
        check(zipped(PLAIN, zipfile.ZIP_STORED), Reading())
        check(b"before" + zipped(PLAIN), Reading())
        check(zipped({}), Reading())

    def test_inflated_bytes_are_limited(self) -> None:
        """inflated_bytes: Most bytes that the entries inflate to."""
        noise = drawn(200_000)
        content = zipped({"a": noise, "b": noise})
        check(content, Reading(inflated_bytes=400_000))
        assert refusal(content, inflated_bytes=399_999) == (
            "too_large",
            "its entries inflate to more than the limit of 399,999 bytes",
        )

    def test_the_ratio_is_limited(self) -> None:
        """inflation_ratio: Most bytes that one byte inflates to, over all entries."""
        content = zipped({"a.xml": bytes(10 * MEBIBYTE)})
        assert refusal(content) == (
            "too_large",
            f"its {len(content):,} bytes inflate to more than the limit of 200 times as many",
        )
        check(content, Reading(inflation_ratio=1_100))

    def test_entries_are_counted_before_they_are_read(self) -> None:
        """entries: Most entries of such a document."""
        content = zipped({str(number): "" for number in range(11)})
        check(content, Reading(entries=11))
        assert refusal(content, entries=10) == (
            "too_large",
            "11 entries are more than the limit of 10",
        )

    def test_depth_is_limited(self) -> None:
        """depth: How deep archives may lie in one another; 1 is the document itself."""
        check(nested(3), Reading())
        assert refusal(nested(4)) == (
            "too_large",
            "2.zip/1.zip/0.zip is an archive at depth 4, more than the limit of 3",
        )
        assert refusal(nested(2), depth=1)[1] == (
            "0.zip is an archive at depth 2, more than the limit of 1"
        )

    def test_archives_inside_count_together(self) -> None:
        """Archives inside it count for the limits."""
        inner = zipped({"a": drawn(100_000)}, zipfile.ZIP_STORED)
        content = zipped({str(number): inner for number in range(3)}, zipfile.ZIP_STORED)
        check(content, Reading(inflated_bytes=700_000, entries=6))
        assert refusal(content, inflated_bytes=500_000)[0] == "too_large"
        assert refusal(content, entries=5)[0] == "too_large"

    def test_a_broken_archive_inside_harms_nobody(self) -> None:
        """No reader opens them, so they may be broken or locked."""
        check(zipped({"a.zip": zipped(PLAIN)[:-30], "b.zip": b"PK\x03\x04"}), Reading())


class TestLies:
    def test_a_declared_size_is_not_believed(self) -> None:
        """Sizes that an archive declares are never believed.

        zipfile inflates all of this entry before it cuts it to ten bytes, whose checksum is right.
        """
        content = zipped({"a.xml": bytes(50 * MEBIBYTE)})
        sizes = {14: ("<I", zlib.crc32(bytes(10))), 22: ("<I", 10)}
        content = patched(content, 0, sizes)
        directory = {offset + 2: field for offset, field in sizes.items()}
        content = patched(content, content.rindex(b"PK\x01\x02"), directory)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.read("a.xml") == bytes(10)
        assert refusal(content, inflation_ratio=10_000) == (
            "damaged",
            "damaged archive: a.xml: more than the 10 bytes that it declares",
        )

    def test_overlapping_entries_count_each_time(self) -> None:
        """Counted while they inflate: a thousand names for the same bytes are a thousand copies."""
        kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = kernel.compress(bytes(100_000)) + kernel.flush()
        facts = (zlib.crc32(bytes(100_000)), len(packed), 100_000, 1)
        local = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, *facts, 0) + b"a" + packed
        entry = (
            struct.pack(
                "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, *facts, 0, 0, 0, 0, 0, 0
            )
            + b"a"
        )
        count = 1_000
        end = struct.pack(
            "<IHHHHIIH", 0x06054B50, 0, 0, count, count, count * len(entry), len(local), 0
        )
        assert refusal(local + entry * count + end)[0] in {"too_large", "damaged"}

    def test_other_compressions_are_refused(self) -> None:
        """Compressed by a method that these formats do not have."""
        assert refusal(zipped(PLAIN, zipfile.ZIP_BZIP2)) == (
            "damaged",
            "damaged archive: a.xml: compression method 12 instead of 0 or 8",
        )

    def test_encryption_is_named(self) -> None:
        """Encrypted for a locked entry."""
        content = zipped(PLAIN)
        content = patched(content, content.index(b"PK\x01\x02"), {8: ("<H", 1)})
        assert refusal(content) == (
            "encrypted",
            "password-protected: 1 of 2 entries are encrypted",
        )

    @pytest.mark.parametrize("keep", [0, 4, 40, 100, -20])
    def test_damage_is_named(self, keep: int) -> None:
        """Damaged for an archive that cannot be read whole."""
        code, reason = refusal(zipped(PLAIN)[:keep])
        assert code == "damaged"
        assert reason.startswith("damaged archive: ")

    def test_a_name_cannot_spoil_the_sentence(self) -> None:
        """An archive may call an entry anything."""
        reason = refusal(zipped({f"{'long' * 1_000}\x1b[2J.xml": ENTITY}))[1]
        assert reason.startswith("...")
        assert "long?[2J.xml declares XML entities" in reason
        assert len(reason) < 200

    def test_what_passes_can_be_read_whole(self) -> None:
        """Broken anywhere, a document is refused or harmless; nothing else is ever raised."""
        chance = random.Random(7)
        base = zipped({**PLAIN, "i.zip": zipped(PLAIN), "d/": ""})
        passed = 0
        for _ in range(3_000):
            content = bytearray(base)
            for _ in range(chance.randint(1, 4)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            try:
                check(bytes(content), Reading())
            except Reject:
                continue
            passed += 1
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    archive.read(name)
        assert 0 < passed < 1_500


ENTITY = '<!DOCTYPE a [<!ENTITY b "ten times itself">]><a>&b;</a>'
UNSAFE = {
    "entity": ENTITY,
    "external": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    "parameter": '<!DOCTYPE a [<!ENTITY % b "c">]><a/>',
    "subset": "<!DOCTYPE a [<!ELEMENT a ANY>]><a/>",
    "another encoding": f'<?xml version="1.0" encoding="utf-16"?>{ENTITY}'.encode("utf-16"),
    "behind a comment": f"<!--{'-x' * 100_000}-->{ENTITY}",
    "a long value": f'<!DOCTYPE a [<!ENTITY b "{"x" * 300_000}">]><a/>',
    "never an element": '<!DOCTYPE a [<!ENTITY b "c">',
}
SAFE = {
    "doctype of XHTML": '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "x.dtd"><html/>',
    "doctype of HTML": "<!DOCTYPE html>\n<html><br></html>",
    "the word alone": "<a>&lt;!ENTITY is a word</a>",
    "no XML": "<!ENTITY",
    "a drawing": ENTITY.replace("<a>", '<s:svg xmlns:s="x">').replace("</a>", "</s:svg>"),
    "an unknown encoding": '<?xml version="1.0" encoding="no-such"?><a/>',
}


class TestXml:
    @pytest.mark.parametrize("part", UNSAFE.values(), ids=UNSAFE.keys())
    def test_declared_entities_are_refused(self, part: str | bytes) -> None:
        """unsafe_xml for XML that declares entities, whatever the part is called."""
        noise = drawn(10_000)
        assert refusal(zipped({"noise": noise, "word/document.bin": part})) == (
            "unsafe_xml",
            "word/document.bin declares XML entities, which documents do not need and attacks do",
        )

    @pytest.mark.parametrize("part", SAFE.values(), ids=SAFE.keys())
    def test_what_declares_none_passes(self, part: str) -> None:
        """EPUB's pages have doctypes, and pictures are read by nobody."""
        check(zipped({"a.xml": part}), Reading())

    def test_a_prolog_without_end_is_refused(self) -> None:
        """One that is only made to hide something."""
        parts = {"noise": drawn(100_000), "a.xml": f"<!--{'-x' * 1_000_000}"}
        code, reason = refusal(zipped(parts))
        assert code == "unsafe_xml"
        assert reason.startswith("a.xml is XML without an element in its first 1,")
