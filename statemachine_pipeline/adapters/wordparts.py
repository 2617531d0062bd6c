"""The parts of a Word document, mended for a converter that passes over much of their text.

Mammoth knows no formulas, takes the fallback of alternatives only, ignores elements it does not
know with all that is in them, and stops at a reference that leads nowhere. What it would lose is
put here where it finds it; what stays lost is counted, so that a warning can say so.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from statemachine_pipeline.adapters import xmlparts
from statemachine_pipeline.adapters.formulas import linear
from statemachine_pipeline.adapters.xmlparts import attribute, local_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from xml.etree.ElementTree import Element

_FOLDER: Final = "word/"
_PART: Final = re.compile(
    r"word/(?:comments\.|styles\.|(?:document|endnotes|footer|footnotes|header)[^/]*\.)xml"
)
_NOTES: Final = frozenset(("footnotes", "endnotes"))
_TEXTS: Final = _NOTES | {"document"}
_RUNNING: Final = {"hdr": "page header", "ftr": "page footer"}

# Elements that show what they hold and add nothing to it, and what hangs beside the words.
_TRANSPARENT: Final = frozenset(("bdo", "dir", "fldSimple", "oMathPara", "ruby", "rubyBase"))
_ASIDE: Final = frozenset(("oMathParaPr", "rt", "rubyPr"))
_DRAWN: Final = frozenset(("drawing", "object", "pict"))
_REPLACED: Final = _TRANSPARENT | _ASIDE | _DRAWN | {"AlternateContent", "oMath"}
_LOST: Final = {
    "altChunk": "imported document",
    "chart": "chart",
    "comment": "comment",
    "OLEObject": "embedded object",
    "relIds": "diagram",  # SmartArt
}
_DEEPEST_HEADING: Final = 6
_LEVELS: Final = tuple(str(level) for level in range(9))  # 9 is the level of plain text


def mend(content: bytes) -> tuple[io.BytesIO, Counter[str], list[Element]]:
    """Rewrite the parts that hold text.

    Args:
        content: A Word document that ``zipped.check`` has passed.

    Returns:
        The document without its pictures; how much is left out, by kind; the parts that hold text.

    Raises:
        Reject: A part is no XML.
        RecursionError: A formula is nested too deeply.
    """
    archive = zipfile.ZipFile(io.BytesIO(content))
    names = set(archive.namelist())
    parts = {
        name: xmlparts.parse_part(archive, name) for name in sorted(names) if _PART.fullmatch(name)
    }
    roots = list(parts.values())
    lost = _lost(roots)
    levels = _heading_levels(roots)
    notes = {
        (local_name(note), attribute(note, "id"))
        for root in roots
        if local_name(root) in _NOTES
        for note in root
    }
    texts = {name: root for name, root in parts.items() if local_name(root) in _TEXTS}
    for name, root in texts.items():
        rels = f"{_FOLDER}_rels/{name.removeprefix(_FOLDER)}.rels"
        relations = xmlparts.parse_part(archive, rels) if rels in names else ()
        _drop_dangling(root, {attribute(relation, "Id") for relation in relations}, notes)
        _mend(root, levels)
    for root in roots:
        if local_name(root) == "styles":
            _drop_looks(root)
    return _written(archive, parts), lost, list(texts.values())


def _lost(roots: Iterable[Element]) -> Counter[str]:
    """Count what no converter reads, by kind."""
    lost: Counter[str] = Counter()
    for root in roots:
        lost.update(what for part in root.iter() if (what := _LOST.get(local_name(part))))
        shown = " ".join(part.text or "" for part in root.iter() if local_name(part) == "t")
        kind = _RUNNING.get(local_name(root))
        if kind and xmlparts.has_sentence(shown):
            lost[kind] += 1
    return lost


def _drop_looks(styles: Element) -> None:
    """Keep of styles what the converter asks for; the rest took most of the time of a letter."""
    for style in styles:
        style[:] = [part for part in style if local_name(part) in {"name", "basedOn", "pPr"}]
        for part in style:
            part[:] = [one for one in part if local_name(one) == "numPr"]


def _written(archive: zipfile.ZipFile, parts: Mapping[str, Element]) -> io.BytesIO:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as written:
        for name in dict.fromkeys(archive.namelist()):
            if name in parts:
                written.writestr(name, ET.tostring(parts[name], encoding="utf-8"))
            elif name.endswith((".xml", ".rels")):
                written.writestr(name, archive.read(name))
    return package


def _heading_levels(roots: Iterable[Element]) -> dict[str, int]:
    """Return which paragraph styles are headings of which level, whatever their names.

    A style of one's own is a heading when it, or one that it is based on, has an outline level.
    """
    styles = [one for root in roots if local_name(root) == "styles" for one in root]
    told: dict[str, dict[str, str]] = {"outlineLvl": {}, "basedOn": {}}
    for style, part in ((one, part) for one in styles for part in one.iter()):
        if local_name(part) in told:
            told[local_name(part)][attribute(style, "styleId")] = attribute(part, "val")
    own, based = told["outlineLvl"], told["basedOn"]
    levels = {}
    for name in {*own, *based}:
        ancestor, seen = name, {name}
        while ancestor not in own and (ancestor := based.get(ancestor, "")) not in {"", *seen}:
            seen.add(ancestor)
        if own.get(ancestor) in _LEVELS:
            levels[name] = min(int(own[ancestor]) + 1, _DEEPEST_HEADING)
    return levels


def _drop_dangling(root: Element, relations: set[str], notes: set[tuple[str, str]]) -> None:
    """Remove references that lead nowhere; Word opens such documents, too."""
    for parent in root.iter():
        for key, value in list(parent.attrib.items()):
            if "relationships}" in key and value not in relations:
                del parent.attrib[key]
        for child in list(parent):
            kind = local_name(child).removesuffix("Reference")
            is_reference = kind in {"footnote", "endnote"} and kind != local_name(child)
            if is_reference and (kind, attribute(child, "id")) not in notes:
                parent.remove(child)


def _mend(root: Element, levels: Mapping[str, int]) -> None:
    namespace = root.tag.rpartition("}")[0] + "}"
    for parent in reversed(list(root.iter())):  # what lies deepest first
        if local_name(parent) == "pPr":
            _mark_heading(parent, namespace, levels)
        if any(local_name(child) in _REPLACED for child in parent):
            following = [*map(local_name, parent), ""][1:]
            parent[:] = [
                new
                for child, after in zip(parent, following, strict=True)
                for new in _replaced(child, namespace, is_before_formula=after == "oMath")
            ]


def _mark_heading(properties: Element, namespace: str, levels: Mapping[str, int]) -> None:
    """Give a paragraph of an outline level the style that converters know as a heading."""
    style = next((part for part in properties if local_name(part) == "pStyle"), None)
    level = levels.get(attribute(style, "val")) if style is not None else None
    for part in properties:
        if local_name(part) == "outlineLvl":
            own = attribute(part, "val")
            level = min(int(own) + 1, _DEEPEST_HEADING) if own in _LEVELS else None
    if level is not None:
        if style is None:
            style = ET.SubElement(properties, namespace + "pStyle")
        style.set(namespace + "val", f"Heading{level}")


def _replaced(element: Element, namespace: str, *, is_before_formula: bool) -> Iterator[Element]:
    """Yield what stands for an element; itself unless the converter would lose what is in it."""
    name = local_name(element)
    if name == "oMath":
        run = ET.Element(namespace + "r")
        ET.SubElement(run, namespace + "t").text = linear(element)
        if is_before_formula:
            ET.SubElement(run, namespace + "br")
        yield run
    elif name == "AlternateContent":
        # The fallback, which the converter reads; else what newer programs are to read.
        branches = sorted(element, key=lambda branch: local_name(branch) != "Fallback")
        yield from next((branch for branch in branches if len(branch)), ())
    elif name in _TRANSPARENT:
        yield from element
    elif name in _DRAWN:
        yield element
        after = ET.Element(namespace + "pict")
        after.extend(_text_boxes(element))
        yield after
    elif name not in _ASIDE:
        yield element


def _text_boxes(drawing: Element) -> Iterator[Element]:
    """Take the text boxes out of a drawing, in whatever shape they are."""
    for parent in list(drawing.iter()):
        for child in list(parent):
            if local_name(child) == "txbxContent":
                parent.remove(child)
                yield child
