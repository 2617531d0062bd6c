"""Word documents (DOCX) to Markdown: mended parts, Mammoth's HTML, then as any HTML.

Changes are read as accepted. Not read are comments, headers, footers, charts and diagrams, which
warnings count, tables of contents, and the numbers that Word draws before headings.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from xml.parsers.expat import ExpatError

from statemachine_pipeline.adapters.decoding import clean
from statemachine_pipeline.adapters.markup import below_title, read_html
from statemachine_pipeline.adapters.wordparts import mend
from statemachine_pipeline.adapters.xmlparts import local_name
from statemachine_pipeline.adapters.zipped import check
from statemachine_pipeline.errors import MissingExtra
from statemachine_pipeline.hooks import Reject
from statemachine_pipeline.records import ParsedText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from xml.etree.ElementTree import Element

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

# Word stores the names of its own styles in English, whatever its language.
_STYLES: Final = """
p[style-name='Title'] => h1.title:fresh
p[style-name='Quote'] => blockquote > p:fresh
p[style-name='Intense Quote'] => blockquote > p:fresh
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='TOC Heading'] => !
p[style-name^='toc '] => !
p[style-name='table of figures'] => !
"""
_NOTE_LINK: Final = re.compile(r'<a href="#(?:foot|end)note-[^"]*"(?: id="[^"]*")?>([^<]*)</a>')
_UP_ARROW: Final = "↑"
_IGNORED: Final = re.compile(r"An unrecognised element was ignored: (?:.*[:}])?(\w+)")
# What these messages are about is no text, or is kept.
_HARMLESS: Final = re.compile(
    "Unrecognised .* style|.* style with ID .* not defined|Image of type|Could not find image"
    "|A v:imagedata element|Unsupported break type|Ignoring complex field"
)
_MOST_KINDS: Final = 20  # of messages: a hostile document makes up as many as it likes
# What Mammoth raises over parts that contradict one another.
_BROKEN: Final = (AttributeError, ExpatError, LookupError, TypeError, ValueError)


def read_docx(source: Source, reading: Reading) -> ParsedText:
    """Turn a Word document into Markdown.

    Raises:
        Reject: Password-protected, damaged, unsafe, or over a limit.
    """
    try:
        import mammoth
    except ImportError as error:
        raise MissingExtra("mammoth", "documents") from error
    content = source.read()
    check(content, reading)
    try:
        package, lost, parts = mend(content)
        converted = mammoth.convert_to_html(
            package,
            style_map=_STYLES,
            include_embedded_style_map=False,  # a document does not choose what is read of it
            convert_image=mammoth.images.img_element(_no_attributes),
            transform_document=_with_marked_boxes,
        )
    except RecursionError:
        raise Reject("damaged: its parts are nested too deeply to be read", "damaged") from None
    except OSError:
        raise Reject("damaged: it has no main part", "damaged") from None
    except _BROKEN as error:  # whose own words may be words of the document
        reason = f"damaged: its parts are not what they should be ({type(error).__name__})"
        raise Reject(reason, "damaged") from None
    html = _NOTE_LINK.sub(lambda link: link[1] if link[1] != _UP_ARROW else "", converted.value)
    text, removed = clean(read_html(below_title(html), keep_links=reading.keep_links))
    reading.check_chars(len(text))
    notes = (f"left out {count:,} {what}{'s' * (count > 1)}" for what, count in lost.items())
    return ParsedText(text, (), (*notes, *_unread(converted.messages, parts), *removed))


def _no_attributes(_image: Any) -> dict[str, str]:
    """Keep of a picture what Mammoth adds by itself, its description; read nothing of it."""
    return {}


def _with_marked_boxes(document: Any) -> Any:
    """Write check boxes as the characters that they show."""
    from mammoth import documents, transforms

    def marked(box: Any) -> Any:
        return documents.Text("☒ " if box.checked else "☐ ")

    return transforms.element_of_type(documents.Checkbox, marked)(document)


def _unread(messages: Iterable[Any], parts: list[Element]) -> Iterator[str]:
    """Yield what Mammoth reports, each once, without what is about looks."""
    told = dict.fromkeys(message.message for message in messages)
    ignored = {found[1] for message in told if (found := _IGNORED.match(message))}
    elements = (part for root in parts for part in root.iter() if local_name(part) in ignored)
    counts = Counter(
        local_name(element)
        for element in elements
        if any(text.strip() for text in element.itertext())
    )
    for name, count in counts.most_common(_MOST_KINDS):
        yield f"left out {count:,} {name} element{'s' * (count > 1)} with text"
    others = (one for one in told if not (_IGNORED.match(one) or _HARMLESS.match(one)))
    yield from itertools.islice(others, _MOST_KINDS)
