"""Formulas of Word documents as one line of text, close to how Word itself types them.

What a search can find and a reader can read, ``E=mc^2`` or ``(-b±√(b^2-4ac))/(2a)``; no
typesetting language, whose commands would drown the names.

Source: ECMA-376, part 1, section 22.1 (Math); Unicode Technical Note 28 (linear format).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from statemachine_pipeline.adapters.xmlparts import local_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element


_OPERANDS: Final = frozenset(("e", "num", "sub", "sup"))  # properties stand before them
_TWO_SIGNS: Final = 2


def linear(formula: Element) -> str:
    """Write an ``m:oMath`` element as a line of text.

    Raises:
        RecursionError: It is nested some hundred levels deep.
    """
    return " ".join(_text(formula).split())


def _text(element: Element) -> str:
    """Write what an element shows; of unknown ones, what is in them."""
    name = local_name(element)
    if name == "t":
        return element.text or ""
    if name.endswith("Pr"):  # properties
        return ""
    write = _FORMS.get(name)
    return write(element) if write else "".join(map(_text, element))


def _part(element: Element, name: str) -> str:
    return "".join(_text(child) for child in element if local_name(child) == name)


def _grouped(text: str) -> str:
    """Put brackets around what is more than one sign or number and has none yet."""
    is_one = len(text) < _TWO_SIGNS or text.isdecimal() or _is_bracketed(text)
    return text if is_one else f"({text})"


def _is_bracketed(text: str) -> bool:
    """Tell whether the first bracket closes with the last sign: ``(a)``, not ``(a)(b)``."""
    depth = 0
    for index, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return text[0] == "(" and index == len(text) - 1
    return False


def _property(element: Element, name: str, default: str) -> str:
    """Return a character that the properties of an element choose; absent is not empty."""
    for part in element.iter():
        if local_name(part) in _OPERANDS:
            break
        if local_name(part) == name:
            return next(iter(part.attrib.values()), "")
    return default


def _fraction(element: Element) -> str:
    bar = "¦" if _property(element, "type", "bar") == "noBar" else "/"  # of a binomial
    return f"{_grouped(_part(element, 'num'))}{bar}{_grouped(_part(element, 'den'))}"


def _scripts(element: Element) -> str:
    base, below, above = (_part(element, name) for name in ("e", "sub", "sup"))
    return _grouped(base) + (below and f"_{_grouped(below)}") + (above and f"^{_grouped(above)}")


def _limits(element: Element) -> str:
    sign = "_" if local_name(element) == "limLow" else "^"
    return f"{_part(element, 'e')}{sign}{_grouped(_part(element, 'lim'))}"


def _root(element: Element) -> str:
    return f"{_part(element, 'deg')}√{_grouped(_part(element, 'e'))}"


def _operator(element: Element) -> str:
    below, above = _part(element, "sub"), _part(element, "sup")
    return (
        _property(element, "chr", "∫")
        + (below and f"_{_grouped(below)}")
        + (above and f"^{_grouped(above)}")
        + f" {_part(element, 'e')}"
    )


def _function(element: Element) -> str:
    argument = _part(element, "e")
    gap = "" if argument.startswith(("(", "[", "{", "|")) else " "
    return f"{_part(element, 'fName')}{gap}{argument}"


def _delimited(element: Element) -> str:
    parts = [_text(child) for child in element if local_name(child) == "e"]
    inside = _property(element, "sepChr", "|").join(parts)
    return f"{_property(element, 'begChr', '(')}{inside}{_property(element, 'endChr', ')')}"


def _rows(element: Element) -> str:
    return "; ".join(_text(child) for child in element if local_name(child) in {"e", "mr"})


def _row(element: Element) -> str:
    return ", ".join(_text(child) for child in element if local_name(child) == "e")


_FORMS: Final[dict[str, Callable[[Element], str]]] = {
    "f": _fraction,
    **dict.fromkeys(("sSub", "sSup", "sSubSup", "sPre"), _scripts),
    **dict.fromkeys(("limLow", "limUpp"), _limits),
    "rad": _root,
    "nary": _operator,
    "func": _function,
    "d": _delimited,
    **dict.fromkeys(("m", "eqArr"), _rows),
    "mr": _row,
}
