"""The outline of a Markdown text: which titles stand above a place."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLE_LIMIT_CHARS: Final = 200
"""Longer titles are cut: a passage carries every title above it."""

_BLANKS: Final = re.compile(r"\s*")
_FENCE: Final = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_ATX: Final = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_UNDERLINE: Final = re.compile(r" {0,3}(?:=+|-{2,})[ \t]*$")
_NO_PARAGRAPH: Final = re.compile(r"[ \t]{4,}|\t| {0,3}(?:[-*+>|#]|\d{1,9}[.)])")
_LINK: Final = re.compile(r"!?\[([^\[\]\n]{0,1000})\]\([^()\n]{0,2000}\)")


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """A title line: its level from 1, its text, and the offsets of its line or lines."""

    level: int
    title: str
    start: int
    end: int


class Outline:
    """Titles of a text with the path to each, found once and looked up by offset."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._body = _front_matter(text)
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._paths: list[tuple[str, ...]] = []
        open_headings: list[Heading] = []
        for heading in headings(text):
            while open_headings and open_headings[-1].level >= heading.level:
                open_headings.pop()
            open_headings.append(heading)
            self._starts.append(heading.start)
            self._ends.append(heading.end)
            self._paths.append(tuple(h.title for h in open_headings if h.title))

    def above(self, start: int, end: int) -> tuple[str, ...]:
        """Return the titles that stand above all of the passage from ``start`` to ``end``.

        A passage that begins with titles stands under the last of them; one that holds several
        sections stands under what is above each.
        """
        start = max(start, self._body)
        found = bisect.bisect_right(self._starts, start) - 1
        last = bisect.bisect_left(self._starts, end) - 1
        place = max(start, self._ends[found] if found >= 0 else 0)
        while found < last and self._skip_blanks(place) >= self._starts[found + 1]:
            found += 1
            place = self._ends[found]
        if found < 0:
            return ()
        path = self._paths[found]
        for other in self._paths[found + 1 : last + 1]:
            same = (ours == theirs for ours, theirs in zip(path, other, strict=False))
            path = path[: sum(itertools.takewhile(bool, same))]
        return path

    def sections(self, least_chars: int) -> Iterator[tuple[int, int]]:
        """Yield the bounds of the sections between headings, which together are the whole text.

        Titles without a body between them stay together, and so do sections that are shorter than
        ``least_chars`` with the one after.
        """
        begin = end = 0
        for start, heading_end in zip(self._starts, self._ends, strict=True):
            if start - begin >= least_chars and self._skip_blanks(end) < start:
                yield begin, start
                begin = start
            end = heading_end
        yield begin, len(self._text)

    def _skip_blanks(self, offset: int) -> int:
        blanks = _BLANKS.match(self._text, offset)
        return blanks.end() if blanks else offset


def headings(text: str) -> Iterator[Heading]:
    """Yield the headings of a Markdown text in order; lines within code are none."""
    fence = ""
    previous = before = ""
    start = previous_start = _front_matter(text)
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end]
        mark = _FENCE.match(line) if line else None
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
            line = ""
        elif mark:
            fence, line = mark[1], ""
        elif not line:
            pass
        elif atx := _ATX.match(line):
            yield Heading(len(atx[1]), _title(line[atx.end() :], closing=True), start, end)
            line = ""
        elif _is_title_line(previous, before) and _UNDERLINE.match(line):
            level = 1 if "=" in line else 2
            yield Heading(level, _title(previous, closing=False), previous_start, end)
            line = ""
        before, previous, previous_start = previous, line, start
        start = end + 1


def _front_matter(text: str) -> int:
    """Return where the text begins after YAML front matter, whose end looks like a heading."""
    if not text.startswith("---\n"):
        return 0
    end = text.find("\n---\n", 3)
    return 0 if end < 0 else end + 5


def _is_title_line(line: str, before: str) -> bool:
    """Whether an underline makes this line a heading: a paragraph of one line."""
    return bool(line.strip()) and not before.strip() and not _NO_PARAGRAPH.match(line)


def _title(raw: str, *, closing: bool) -> str:
    title = raw.strip()
    if closing:
        bare = title.rstrip("#")
        if bare != title and (not bare or bare[-1] in " \t"):
            title = bare.rstrip()
    title = _LINK.sub(r"\1", title)
    for mark in ("**", "__", "`"):
        title = title.replace(mark, "")
    return title.strip("*_ \t")[:TITLE_LIMIT_CHARS]
