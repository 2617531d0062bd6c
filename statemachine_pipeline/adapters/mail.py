"""E-mail to text: who wrote what to whom, and the documents that are attached.

Text is the headers that people read and one body, plain text before HTML. What is attached or
forwarded becomes a document of its own. Left out with a warning: pictures shown within the body,
which are logos and signatures more often than not, digital signatures, reports of mail servers,
and parts that are empty or too large to be stored. A picture that was attached as a file is a
document like any other. Source: RFC 5322 (messages), RFC 2045 to 2047 (MIME), RFC 2387 (related).
"""

from __future__ import annotations

import base64
import collections
import email
import io
import mimetypes
import re
from email.generator import BytesGenerator
from email.message import Message
from email.policy import EmailPolicy
from typing import TYPE_CHECKING, Final, TypeVar

from statemachine_pipeline.adapters.decoding import clean, decode
from statemachine_pipeline.adapters.markup import declared_encoding, read_html
from statemachine_pipeline.adapters.media_types import EMAIL, HTML, PLAIN
from statemachine_pipeline.hooks import Done, Reject
from statemachine_pipeline.records import Child, ParsedText
from statemachine_pipeline.sources import BLOB_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from statemachine_pipeline.adapters.reading import Reading
    from statemachine_pipeline.records import Source

T = TypeVar("T")

# The standard library takes 10 us for each character of a list of addresses.
_HEADER_LIMIT_CHARS: Final = 10_000
_SHOWN_LIMIT_CHARS: Final = 1_000
_NESTING: Final = 20
# Lines that may begin a part; as many parts take the standard library 3 seconds, and more by far
# more than in proportion.
_PARTS_LIMIT: Final = 20_000
_NAME_LIMIT_CHARS: Final = 200
_SHOWN_HEADERS: Final = ("From", "To", "Cc", "Date")
_ENCRYPTED: Final = frozenset(
    ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
)
_SIGNATURES: Final = frozenset(
    (
        *("application/pgp-signature", "application/pkcs7-signature"),
        "application/x-pkcs7-signature",
    )
)
_REPORTS: Final = frozenset(
    (
        *("message/delivery-status", "message/disposition-notification", "message/partial"),
        *("message/external-body", "text/rfc822-headers"),
    )
)
_FORWARDED: Final = frozenset((EMAIL, "message/global"))
# Encodings whose bytes are valid UTF-8 and mean something else.
_SEVEN_BIT: Final = ("iso-2022-", "hz", "utf-7")
# What mail programs call so is this, which has signs where the standard has none.
_WINDOWS: Final = dict.fromkeys(("iso-8859-1", "latin1", "us-ascii", "ascii"), "cp1252")
_BLANKS: Final = re.compile(r"\s+")
_UNFIT: Final = re.compile(r'[\\/:*?"<>|]+')


class _PatientHeaders(EmailPolicy):
    """Reads headers of bearable length, not encoded ones too, and broken ones as they stand."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        value = value[:_HEADER_LIMIT_CHARS].replace("\x00", "")
        if not value.isascii():
            value, _ = decode(value.encode("ascii", "surrogateescape"))
        return name, value

    def header_fetch_parse(self, name: str, value: str) -> str:
        return _safely(lambda: super(_PatientHeaders, self).header_fetch_parse(name, value), value)


# Forwarded messages are written again as they were, line by line.
_POLICY: Final = _PatientHeaders(utf8=True, refold_source="none")
_TYPES: Final = mimetypes.MimeTypes()
"""Without this machine's own lists, so that names are the same everywhere."""


def read_mail(source: Source, reading: Reading) -> Done:
    """Read a message, with what is attached to it as children.

    Raises:
        Reject: Encrypted, nested without end, or over a limit; codes ``encrypted``, ``damaged`` and
            ``too_large``.
    """
    content = source.read().lstrip(b"\xef\xbb\xbf \t\r\n")
    parts = content.count(b"\n--")
    if parts > _PARTS_LIMIT:
        raise Reject(
            f"{parts:,} lines that may begin a part are more than the limit of {_PARTS_LIMIT:,}",
            "too_large",
        )
    try:
        message = email.message_from_bytes(content, policy=_POLICY)
    except RecursionError as error:
        raise Reject("its parts lie in one another without end", "damaged") from error
    except Exception as error:  # the standard library's; see _safely
        raise Reject("the order of its parts cannot be told", "damaged") from error
    mail = _Mail(reading)
    bodies = list(mail.bodies(message))
    texts = (mail.headers(message), *mail.texts(bodies))
    text, warnings = clean("\n\n".join(filter(None, texts)))
    reading.check_chars(len(text))
    parsed = ParsedText(text, (), (*mail.warnings, *warnings))
    return Done(parsed, children=mail.children)


class _Mail:
    """What is gathered from one message."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._left_out: collections.Counter[str] = collections.Counter()
        self._damage: dict[str, None] = {}
        self._told: list[str] = []
        self._unnamed = 0
        self.children: list[Child] = []

    @property
    def warnings(self) -> list[str]:
        """Sentences about what is missing."""
        left_out = [f"left out: {what} ({count})" for what, count in self._left_out.items()]
        damage = [f"the message is damaged: {', '.join(self._damage)}"] if self._damage else []
        return [*damage, *self._told, *left_out]

    def bodies(
        self, part: Message, *, depth: int = 0, is_related: bool = False
    ) -> Iterator[Message]:
        """Yield the parts to be read as text, and keep the attachments on the way."""
        self._note_damage(part)
        kind = part.get_content_type()
        if kind in _ENCRYPTED:
            if depth == 0:
                raise Reject("it is encrypted or wrapped by S/MIME", "encrypted")
            self._left_out["encrypted parts"] += 1
        elif depth > _NESTING:
            self._left_out[f"parts that lie more than {_NESTING} deep in others"] += 1
        elif kind in _SIGNATURES or kind in _REPORTS:
            self._left_out[kind] += 1
        elif kind in _FORWARDED:
            self._forward(part)
        elif kind.startswith("multipart/") and part.is_multipart():
            yield from self._several(kind, part, depth + 1)
        elif _is_shown(part, kind, is_related=is_related):
            self._left_out["pictures within the text"] += 1
        elif _is_body(part, kind):
            yield part
        else:
            content = _content(part)
            self._note_damage(part)  # decoding finds more
            self._attach(_name(part), part, content)

    def _note_damage(self, part: Message) -> None:
        for defect in part.defects:
            self._damage[type(defect).__name__.removesuffix("Defect")] = None

    def _several(self, kind: str, part: Message, depth: int) -> Iterator[Message]:
        parts = [one for one in part.get_payload() if isinstance(one, Message)]
        related = kind == "multipart/related"
        found = [
            list(self.bodies(one, depth=depth, is_related=related and place > 0))
            for place, one in enumerate(parts)
        ]
        if kind == "multipart/alternative":
            # The same in several forms; an attachment within one of them is kept all the same.
            plain = [way for way in found if any(_is_plain_text(one) for one in way)]
            rich = [way for way in found if any(one.get_content_type() == HTML for one in way)]
            found = (plain or rich or found)[:1]
        for way in found:
            yield from way

    def texts(self, bodies: Sequence[Message]) -> Iterator[str]:
        """Yield the text of each body."""
        for part in bodies:
            content = _content(part)
            self._note_damage(part)
            self._reading.check_bytes(len(content))
            is_html = part.get_content_type() == HTML
            declared = _safely(part.get_content_charset, None)
            text, warnings = _decoded(content, declared, is_html=is_html)
            self._told += warnings
            if is_html:
                text = read_html(text, keep_links=self._reading.keep_links)
            yield text.strip()

    def headers(self, message: Message) -> str:
        """Return what people read of the headers, as Markdown."""
        lines = [f"{name}: {value}" for name in _SHOWN_HEADERS if (value := _header(message, name))]
        if self.children:
            lines.append("Attachments: " + ", ".join(child.name for child in self.children))
        subject = _header(message, "Subject")
        return "\n\n".join(filter(None, (f"# {subject}" if subject else "", "\n".join(lines))))

    def _forward(self, part: Message) -> None:
        inner = part.get_payload()
        message = inner[0] if isinstance(inner, list) and inner else None
        if not isinstance(message, Message):
            self._left_out["forwarded messages that cannot be read"] += 1
            return
        subject = _fit(_UNFIT.sub(" ", _header(message, "Subject"))[:100])
        name = _name(part) or f"{subject or 'forwarded message'}.eml"
        if (
            str(part["content-transfer-encoding"]).strip().lower() == "base64"
        ):  # forbidden, and done
            content = _safely(lambda: base64.b64decode(str(message.get_payload())), b"")
        else:
            content = _safely(lambda: _written(message), b"")
        self._attach(name, part, content)

    def _attach(self, name: str | None, part: Message, content: bytes) -> None:
        if not content.strip():
            self._left_out["empty attachments"] += 1
            return
        if len(content) > BLOB_LIMIT_BYTES:
            self._told.append(
                f"left out an attachment of {len(content):,} bytes: more than the "
                f"{BLOB_LIMIT_BYTES:,} that are stored in the database"
            )
            return
        fit = _fit(name or "")
        if not fit:
            self._unnamed += 1
            ending = _TYPES.guess_extension(part.get_content_type()) or ""
            fit = f"attachment-{self._unnamed}{ending}"
        self.children.append(Child(fit, content))


def _is_shown(part: Message, kind: str, *, is_related: bool) -> bool:
    """Whether a picture is shown within the body, not attached as a file."""
    attached = _safely(part.get_content_disposition, None) == "attachment"
    return kind.startswith("image/") and (is_related or not attached)


def _is_body(part: Message, kind: str) -> bool:
    if kind.startswith("multipart/"):  # without a boundary: all of it is text
        return True
    attached = _safely(part.get_content_disposition, None) == "attachment"
    return kind in {PLAIN, HTML} and not attached and not _name(part)


def _is_plain_text(part: Message) -> bool:
    return part.get_content_type() == PLAIN and bool(_content(part).strip())


def _content(part: Message) -> bytes:
    """Return the bytes of a part, as far as its transfer encoding is not broken."""
    content: object = _safely(lambda: part.get_payload(decode=True), None)
    return content if isinstance(content, bytes) else b""


def _decoded(content: bytes, declared: str | None, *, is_html: bool) -> tuple[str, list[str]]:
    if declared and declared.startswith(_SEVEN_BIT):
        text = _safely(lambda: content.decode(declared, "replace"), "")
        if text:
            return text, []
    known = _WINDOWS.get(declared or "", declared)
    return decode(content, known or (declared_encoding(content) if is_html else None))


def _header(message: Message, name: str) -> str:
    """Return a header as people read it, or nothing."""
    value = message[name]
    if value is None:
        return ""
    moment = getattr(value, "datetime", None)
    text = f"{moment:%Y-%m-%d %H:%M %z}" if moment is not None else str(value)
    text = _BLANKS.sub(" ", text).strip()
    return text if len(text) <= _SHOWN_LIMIT_CHARS else text[:_SHOWN_LIMIT_CHARS] + " [...]"


def _name(part: Message) -> str | None:
    return _safely(part.get_filename, None)


def _fit(name: str) -> str:
    """Return a name without what file systems and terminals would take for more."""
    last = _BLANKS.sub(" ", _UNFIT.sub(" ", name.replace("\\", "/").rstrip("/").split("/")[-1]))
    printable = "".join(c for c in last if c.isprintable()).strip(" .")
    if len(printable) <= _NAME_LIMIT_CHARS:
        return printable
    start, dot, ending = printable.rpartition(".")
    keep = ending[-20:] if dot and start else ""
    return printable[: _NAME_LIMIT_CHARS - len(keep) - 1] + (f".{keep}" if keep else "")


def _written(message: Message) -> bytes:
    out = io.BytesIO()
    BytesGenerator(out, mangle_from_=False, policy=_POLICY).flatten(message)
    return out.getvalue()


def _safely(read: Callable[[], T], default: T) -> T:
    """Return what the standard library makes of a part, or ``default`` where it breaks.

    On hostile headers its parser raises whatever it runs into: index, attribute, lookup, type and
    recursion errors among others.
    """
    try:
        return read()
    except Exception:  # noqa: BLE001 - see above
        return default
