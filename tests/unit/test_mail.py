"""The reader of e-mail: what a person would read, and what is attached as children."""

from __future__ import annotations

import base64
import re
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest

from statemachine_pipeline.adapters.mail import read_mail
from statemachine_pipeline.adapters.media_types import EMAIL, sniff
from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.adapters.reading import Reading
from statemachine_pipeline.hooks import Done, Reject
from statemachine_pipeline.records import Source
from statemachine_pipeline.sources import BLOB_LIMIT_BYTES

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAA"
)


def message(body: str = "Hello,\n\nsee you on Sunday.\n", **headers: str) -> EmailMessage:
    """Return a message with the usual headers."""
    made = EmailMessage()
    given = {"From": "Mira <mira@library.example>", "To": "sam@library.example"} | headers
    for name, value in ({"Subject": "Roof"} | given).items():
        made[name] = value
    if body:
        made.set_content(body)
    return made


def read(
    given: EmailMessage | bytes, **limits: Any
) -> tuple[str, tuple[str, ...], dict[str, bytes]]:
    """Return text, warnings and children."""
    content = given if isinstance(given, bytes) else given.as_bytes(policy=policy.SMTP)
    source = Source(name="x.eml", media_type=EMAIL, size_bytes=len(content), data=content)
    done = read_mail(source, Reading(**limits))
    product: Any = done.product
    return product.text, product.warnings, {one.name: one.data for one in done.children}


def test_headers_and_body_are_read_as_people_do() -> None:
    """The subject is the heading, then who, to whom and when, then the text."""
    given = message(Cc="priya@friends.example", Date="Tue, 18 Mar 2025 09:05:00 +0100")
    given["X-Mailer"] = "of no interest"
    text = (
        "# Roof\n\nFrom: Mira <mira@library.example>\nTo: sam@library.example\n"
        "Cc: priya@friends.example\nDate: 2025-03-18 09:05 +0100\n\n"
        "Hello,\n\nsee you on Sunday."
    )
    assert read(given) == (text, (), {})


def test_plain_text_comes_before_html() -> None:
    """Of the same in several forms one is read; HTML only where there is no plain text."""
    given = message("plain\n")
    given.add_alternative("<h1>Title</h1><p>rich</p>", subtype="html")
    assert read(given)[0].endswith("\n\nplain")
    given = message("")
    given.set_content(
        "<html><body><h2>Title</h2><p>rich &eacute;</p></body></html>", subtype="html"
    )
    assert read(given)[0].endswith("\n\n## Title\n\nrich é")
    given = message(" \n")
    given.add_alternative("<p>rich</p>", subtype="html")
    assert read(given)[0].endswith("\n\nrich")


def test_attachments_are_children_and_named_in_the_text() -> None:
    """Their bytes are those that were attached, whatever encoded them."""
    given = message()
    given.add_attachment(
        b"%PDF-1.4 \x00\xff", maintype="application", subtype="pdf", filename="a.pdf"
    )
    given.add_attachment("x;y\n", filename="../evil\\Ümlaut.csv", subtype="csv")
    given.add_attachment(b"\x01\x02", maintype="application", subtype="zip")
    text, warnings, children = read(given)
    assert children == {
        "a.pdf": b"%PDF-1.4 \x00\xff",
        "Ümlaut.csv": b"x;y\r\n",
        "attachment-1.zip": b"\x01\x02",
    }
    assert warnings == ()
    assert "\nAttachments: a.pdf, Ümlaut.csv, attachment-1.zip\n\nHello" in text


def test_forwarded_messages_are_children_as_they_were() -> None:
    """A mail in a mail is a mail of its own, and read as one."""
    inner = message("From the roofer:\n>quoted\n", Subject="Re: Roof / leak?")
    inner.add_attachment(b"offer", maintype="application", subtype="pdf", filename="offer.pdf")
    given = message()
    given.add_attachment(inner)
    text, _, children = read(given)
    assert list(children) == ["Re Roof leak.eml"]
    (content,) = children.values()
    assert sniff("x.eml", content) == EMAIL
    again, _, deeper = read(content)
    assert "# Re: Roof / leak?" in again
    assert again.endswith("From the roofer:\n>quoted")
    assert deeper == {"offer.pdf": b"offer"}
    assert "offer" not in text


def test_pictures_within_the_text_are_left_out_and_attached_ones_are_not() -> None:
    """Logos and signatures are no documents; a scan that was attached as a file is one."""
    given = message("plain\n")
    given.add_alternative('<p>rich <img src="cid:logo"></p>', subtype="html")
    html: Any = given.get_payload()
    html[1].add_related(PNG, "image", "png", cid="<logo>", filename="logo.png")
    given.add_attachment(PNG, "image", "png", filename="scan.png", cid="<gmail-gives-one>")
    given.add_attachment(PNG, "image", "png", filename="pasted.png", disposition="inline")
    _, warnings, children = read(given)
    assert list(children) == ["scan.png"]
    assert warnings == ("left out: pictures within the text (2)",)


def test_attachments_within_an_alternative_are_found() -> None:
    """One mail program puts files between two halves of the HTML form."""
    parts = (
        b"Content-Type: multipart/alternative; boundary=a\n\n"
        b"--a\nContent-Type: text/plain\n\nplain\n"
        b"--a\nContent-Type: multipart/mixed; boundary=m\n\n"
        b"--m\nContent-Type: text/html\n\n<p>1</p>\n"
        b'--m\nContent-Type: text/markdown; name="a.md"\nContent-Disposition: inline; '
        b'filename="a.md"\n\n# A\n--m\nContent-Type: text/html\n\n<p>2</p>\n--m--\n--a--\n'
    )
    text, _, children = read(parts)
    assert text == "Attachments: a.md\n\nplain"
    assert list(children) == ["a.md"]


def test_signatures_and_reports_of_servers_are_left_out_with_a_warning() -> None:
    """They are no text for people."""
    given = message()
    given.add_attachment(b"0", "application", "pkcs7-signature", filename="smime.p7s")
    given.add_attachment(b"", "application", "pdf", filename="empty.pdf")
    _, warnings, children = read(given)
    assert children == {}
    assert warnings == (
        "left out: application/pkcs7-signature (1)",
        "left out: empty attachments (1)",
    )


@pytest.mark.parametrize(
    ("charset", "content", "expected", "is_told"),
    [
        ("utf-8", "Grüße".encode(), "Grüße", False),
        ("iso-8859-1", "„Grüße“".encode("cp1252"), "„Grüße“", False),
        ("iso-8859-1", "Grüße".encode(), "Grüße", False),  # wrongly declared, and common
        ("us-ascii", "Grüße".encode("cp1252"), "Grüße", False),
        ("iso-2022-jp", "こんにちは".encode("iso-2022-jp"), "こんにちは", False),
        ("x-unknown", "Grüße, und alles Gute".encode("cp1252"), "Grüße, und alles Gute", True),
        ('"=?"', "Grüße".encode(), "Grüße", False),
    ],
)
def test_bodies_are_decoded_as_they_were_meant(
    charset: str, content: bytes, expected: str, *, is_told: bool
) -> None:
    """What had to be guessed is told."""
    head = f"Subject: x\nContent-Type: text/plain; charset={charset}\n"
    for body in (
        b"Content-Transfer-Encoding: 8bit\n\n" + content,
        b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(content),
    ):
        text, warnings, _ = read(head.encode() + body)
        assert text == f"# x\n\n{expected}"
        assert bool(warnings) is is_told


def test_headers_are_read_however_they_are_encoded() -> None:
    """Encoded words, raw UTF-8 and raw Windows-1252; a broken one as it stands."""
    text, _, children = read(
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n =?iso-8859-1?b?IGF1cyBL9mxu?=\n"
        + "From: Jörg <j@b.example>\n".encode()
        + "To: Zoë und Käthe <z@b.example>\n".encode("cp1252")
        + b"Date: yesterday\nCc: "
        + b"(" * 5000
        + b"\n"
        b"Content-Type: application/x-y; name==?utf-8?q?=C3=9Cbersicht=2Ebin?=\n"
        b"Content-Disposition: attachment; filename*=utf-8''%C3%9Cbersicht.bin\n\nxyz"
    )
    assert text.startswith(
        "# Grüße aus Köln\n\nFrom: Jörg <j@b.example>\nTo: Zoë und Käthe <z@b.example>\nCc: ((("
    )
    assert "\nDate: yesterday\n" in text
    assert list(children) == ["Übersicht.bin"]


def test_a_damaged_message_says_so() -> None:
    """What could be read is kept."""
    text, warnings, children = read(
        b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n"
        b"Content-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\nJVBERi0x!"
    )
    assert text == "# x\n\nAttachments: a.pdf\n\nhello"
    assert list(children) == ["a.pdf"]
    assert len(warnings) == 1
    assert warnings[0] == ("the message is damaged: CloseBoundaryNotFound, InvalidBase64Characters")
    assert read(b"Content-Type: multipart/mixed\n\nno boundary")[0] == "no boundary"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"Content-Type: multipart/encrypted; boundary=b\n\n--b\n\nx\n--b--\n", "encrypted"),
        (b"Content-Type: application/pkcs7-mime\n\nx", "encrypted"),
        (b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 20_002, "too_large"),
        (b"Subject: x\n\n" + b"a" * 101, "too_large"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, code: str) -> None:
    """With a code that says why."""
    with pytest.raises(Reject) as refused:
        read(content, text_chars=100)
    assert refused.value.code == code


def nested(depth: int) -> bytes:
    """Return parts that lie in one another."""
    inner = b"Content-Type: text/plain\n\nhi\n"
    for n in range(depth):
        inner = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%b\n--b%d--\n" % (
            *(n, n),
            *(inner, n),
        )
    return b"Subject: x\n" + inner


def test_nesting_is_bounded() -> None:
    """Parts in parts in parts: read, then left out with a warning, then refused."""
    assert read(nested(15))[:2] == ("# x\n\nhi", ())
    text, warnings, _ = read(nested(60))
    assert (text, warnings) == (
        "# x",
        ("left out: parts that lie more than 20 deep in others (1)",),
    )
    with pytest.raises(Reject, match="without end"):
        read(nested(1000))


def test_long_headers_are_cut() -> None:
    """Thousands of addresses are neither parsed for minutes nor shown."""
    text, _, _ = read(b"To: " + b"someone@library.example, " * 100_000 + b"\nSubject: x\n\nhi")
    assert len(text) < 1100
    assert re.search(r"To: .* \[\.\.\.\]\n\nhi$", text)


def test_an_attachment_that_cannot_be_stored_is_left_out_with_a_warning() -> None:
    """The message itself does not die of it."""
    head = b"Content-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: binary\n\n"
    _, warnings, children = read(head + b"x" * (BLOB_LIMIT_BYTES + 1))
    assert children == {}
    (warning,) = warnings
    assert warning.startswith(
        "left out an attachment of 26,214,401 bytes: more than the 26,214,400"
    )


def test_the_shipped_parser_reads_mail() -> None:
    """It returns a text with children where documents lie in one, else a text."""
    content = message().as_bytes()
    source = Source(name="x.eml", media_type=EMAIL, size_bytes=len(content), data=content)
    assert isinstance(DocumentParser().parse(source), Done)


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: text/plain; charset*=\x00''utf-8",
        b"Content-Type: " + b"(" * 5000,
        b'Content-Type: ;;;="\nContent-Transfer-Encoding: ?',
        b"Content-Type: text/plain; charset*0*='\nContent-Disposition: *0*",
    ],
)
def test_headers_that_break_the_parser_break_nothing(header: bytes) -> None:
    """A message is read as far as it can be told what it is."""
    assert read(b"Subject: x\n" + header + b"\n\nhello")[0] == "# x\n\nhello"
