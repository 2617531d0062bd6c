"""One form for texts that say the same, so that they hash the same; never for storage.

Link targets and page layout are lost here on purpose. Every step is linear in the text.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_FENCE: Final = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_HEADING: Final = re.compile(r" {0,3}(#{1,6})[ \t]*(?=[^#\s])")
_BULLET: Final = re.compile(r"([ \t]*)[-*+\u2022][ \t]+")
_IMAGE: Final = re.compile(r"!\[[^\[\]\n]{0,1000}\]\([^()\n]{0,2000}\)")
_LINK: Final = re.compile(r"\[([^\[\]\n]{0,1000})\]\([^()\n]{0,2000}\)")
_BLANKS: Final = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_LINE_ENDS: Final = re.compile("\r\n?|[\v\f\x85\u2028\u2029]")
IMAGE_MARK: Final = "(image)"


class _Invisible(dict[int, int | None]):
    """Drops characters that print nothing; looked up once for each distinct character."""

    def __missing__(self, code: int) -> int | None:
        # Not Cn: what is unassigned differs between versions of Python, and hashes must not.
        keep = code in {9, 10} or unicodedata.category(chr(code)) not in {"Cc", "Cf", "Cs"}
        self[code] = code if keep else None
        return self[code]


def normalise(text: str) -> str:
    r"""Bring a text into the form whose hash tells duplicates.

    Nine rules: line ends are LF; at most one blank line; no blanks at line ends; one space after
    the marks of a heading; an image becomes a fixed mark; a link keeps its text and loses its
    target; bullets are ``-`` and each level is two spaces; runs of blanks are one space outside
    code; characters that print nothing go; one line feed at the end.

    >>> normalise("#   Title\r\n\r\n\r\n*  see [here](https://example.org) ")
    '# Title\n\n- see here\n'
    """
    text = _LINE_ENDS.sub("\n", text).translate(_Invisible())
    lines: list[str] = []
    fence = ""
    for raw in text.split("\n"):
        line = raw.rstrip()
        mark = _FENCE.match(line) if line else None
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :]:
                fence = ""
            lines.append(line)
        elif mark:
            fence = mark[1]
            lines.append(line)
        else:
            line = _prose(line) if line else ""
            if line or (lines and lines[-1]):
                lines.append(line)
    return "\n".join(lines).strip("\n") + "\n"


def _prose(line: str) -> str:
    """Apply the rules for lines outside of code."""
    if heading := _HEADING.match(line):
        line = f"{heading[1]} {line[heading.end() :]}"
    indent = ""
    if bullet := _BULLET.match(line):
        level = len(bullet[1].expandtabs(4)) // 2
        indent, line = "  " * level + "- ", line[bullet.end() :]
    if "](" in line:
        line = _LINK.sub(r"\1", _IMAGE.sub(IMAGE_MARK, line))
    return indent + _BLANKS.sub(" ", line).strip()
