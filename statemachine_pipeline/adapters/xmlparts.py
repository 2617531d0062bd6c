"""XML parts of zip-based documents, parsed by a parser that refuses entities."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject

if TYPE_CHECKING:
    import zipfile
    from xml.etree.ElementTree import Element

_WORD: Final = re.compile(r"[^\W\d_]+")
_PAGE_NUMBER_WORDS: Final = 3


def parse(content: bytes, name: str) -> Element:
    """Parse a part.

    Args:
        content: The part.
        name: Its name, for the sentence of a refusal.

    Raises:
        Reject: With code ``unsafe_xml`` when it declares entities, ``damaged`` when it is no XML.
    """
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError as error:
        raise MissingExtra("defusedxml", "documents") from error
    try:
        root: Element = fromstring(content)
    except DefusedXmlException:
        raise Reject(f"{name} declares XML entities", "unsafe_xml") from None
    except (ParseError, LookupError, ValueError) as error:
        raise Reject(f"damaged: {name} is not XML ({error})", "damaged") from None
    return root


def parse_part(archive: zipfile.ZipFile, name: str) -> Element:
    """Parse a part of an archive.

    Raises:
        Reject: As ``parse``, or ``damaged`` when there is none of this name.
    """
    try:
        content = archive.read(name)
    except KeyError:
        raise Reject(f"damaged: it has no part {name}", "damaged") from None
    return parse(content, name)


def local_name(element: Element) -> str:
    """Return an element's name without its namespace; empty for comments and instructions.

    The strict and the transitional kind of Office documents differ in their namespaces only.
    """
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """Return an attribute by its local name; empty when there is none."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""


def words(element: Element) -> str:
    """Return all text in an element, blanks collapsed."""
    return " ".join("".join(element.itertext()).split())


def has_sentence(text: str) -> bool:
    """Tell whether a page header or footer says more than a page number, "Page 3 of 12"."""
    return len(_WORD.findall(text)) > _PAGE_NUMBER_WORDS
