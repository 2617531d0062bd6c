"""Write the example documents beside this file: a small library's papers, all invented.

Run it again and the files come out byte for byte the same. It needs no package: the PDFs are
written by hand, as text that you can read in an editor, and so are the parts of the zip archives
that Word documents, OpenDocument texts and books are.
"""

from __future__ import annotations

import io
import shutil
import textwrap
import zipfile
from base64 import encodebytes
from pathlib import Path

FOLDER = Path(__file__).parent / "documents"
LINE_CHARS = 86
LINES_PER_PAGE = 46

ANNUAL_REPORT = (
    """
    Alder Vale Public Library
    Annual Report 2024

    A word from the director

    2024 was the year in which the library opened on Sundays for the first time. From 3 March on,
    the doors stood open from one to five in the afternoon, and every ninth visit of the year fell
    into those four hours. We welcomed 96,410 visitors in all, eleven per cent more than the year
    before, and lent 148,230 items. The most borrowed book was again a cookbook; the most borrowed
    object was the cordless drill from the Library of Things.

    We said goodbye to Harriet Oyelaran, who ran the children's room for twenty-two years, and
    welcomed Tomas Lindqvist as her successor. His Saturday story hour in two languages was full
    from the second week.

    Not everything went well. The roof above the reading room leaked twice in October. No book was
    lost, because the night porter, Sam Achterberg, noticed the water at four in the morning and
    moved eleven shelves by hand. The repair is planned for the summer of 2025.

    Mira Castellano, director
    """,
    """
    Money

    The library is paid for by the town. The budget for 2025 was approved by the town council on
    14 November 2024, on the motion of councillor Ines Marlow, with nineteen votes to two. It
    amounts to 412,600 euros, four per cent more than in 2024.

    Staff                         268,000 euros
    Books and other media          61,500 euros
    Building and energy            54,300 euros
    Programmes and events          17,200 euros
    Computers and software         11,600 euros

    In 2024 we spent 396,750 euros. Energy cost 8,900 euros less than planned, since the new
    windows on the north side were finished before the winter. We used that money to buy large
    print books, for which the waiting list had grown to three months.

    The Friends of the Library gave 14,300 euros, most of it from the book sale in May. Their gift
    paid for the reading garden behind the building, which opened on 21 June.

    Accounts were audited by Brandt and Ferreira, who found no reason for remarks.
    """,
    """
    Plans for 2025

    Roof. The roof above the reading room will be repaired in July and August. The reading room
    closes for five weeks; newspapers move to the ground floor. The work is expected to cost
    38,000 euros, of which the district pays half.

    Opening hours. Sunday opening goes on. A trial of early opening, at eight instead of ten, runs
    on Tuesdays and Thursdays from September, for people who work shifts.

    Collections. The map room will be catalogued by the end of the year. It holds 1,240 maps of
    the valley, the oldest from 1781, and none of them can be found by subject today.

    Digital. Membership cards become available on the telephone in spring. The plastic card stays
    for everyone who prefers it.

    Volunteers. Forty-one volunteers gave 3,900 hours in 2024. We look for ten more, above all for
    the repair workshop on the first Saturday of the month.
    """,
)

MINUTES = """\
---
title: Minutes of the library board
date: 2025-03-18
---

# Minutes of the library board, 18 March 2025

Present: Mira Castellano (director), Ines Marlow (town council), Joost van Daalen (chair),
Priya Raman (Friends of the Library), Tomas Lindqvist (children's room).

Apologies: Eleni Kouris.

## 1. Minutes of the last meeting

The minutes of 21 January were accepted without changes.

## 2. Roof of the reading room

Three firms have sent offers:

| Firm | Price in euros | Weeks |
| --- | ---: | ---: |
| Hollis Roofing | 38,000 | 5 |
| Dachwerk Nord | 41,250 | 4 |
| Pellegrini and Sons | 36,900 | 9 |

The board chose **Hollis Roofing**. The lower price of Pellegrini and Sons did not outweigh nine
weeks without a reading room. Joost van Daalen signs the contract by 1 April.

## 3. Late fees

Priya Raman proposed to end late fees for children and young people under eighteen. They brought
in 2,140 euros in 2024 and, by the staff's count, cost about as much in time. *Decided*: late fees
for members under eighteen end on 1 June 2025. Lost books are still to be paid for.

## 4. Noise on Sunday afternoons

There were six complaints since January, all about the stairwell. Tomas Lindqvist will

- move the pram parking to the side entrance,
- put felt under the chairs of the game corner, and
- report in May whether that was enough.

## 5. Next meeting

Tuesday, 20 May 2025, half past seven, in the map room.
"""

HANDBOOK = """\
# Staff handbook: lending

This page is for everyone who works at the desk. The rules for members are shorter and hang beside
the entrance.

## Who can borrow

Anyone who lives, works or goes to school in Alder Vale gets a card free of charge. Others pay
twenty euros a year. A child needs the signature of an adult; a person without papers needs only a
letter that has reached them at an address in the town.

## How long

| What | Weeks | Renewals |
| --- | --- | --- |
| Books | 4 | 2 |
| Films and games | 1 | 1 |
| Magazines | 2 | none |
| Library of Things | 1 | none |

A book that someone else has reserved cannot be renewed.

### The Library of Things

Drills, sewing machines, projectors and the telescope leave the house only after a short
instruction. Note the number on the yellow label in the member's record:

```
# member, object, label, due
4711, telescope, T-03, 2025-05-02
```

Count the parts when they come back. A missing drill bit costs three euros, a missing eyepiece
forty.

## When something is lost

1. Wait two weeks after the third reminder.
2. Write down the price that we would pay today, not the price on the cover.
3. Offer the member to bring the same edition instead; most are glad to.

Nobody is banned for a lost book. If someone cannot pay, speak with Mira Castellano, who can strike
out any debt under one hundred euros.
"""

QUESTIONS = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Questions and answers - Alder Vale Public Library</title>
<style>body { font-family: serif; max-width: 40em; }</style>
<script>console.log("this line is no part of the text");</script>
</head>
<body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/catalogue">Catalogue</a></li></ul></nav>
<main>
<h1>Questions and answers</h1>

<h2>When are you open?</h2>
<table>
<tr><th>Day</th><th>Hours</th></tr>
<tr><td>Monday</td><td>closed</td></tr>
<tr><td>Tuesday to Friday</td><td>10:00 to 19:00</td></tr>
<tr><td>Saturday</td><td>10:00 to 16:00</td></tr>
<tr><td>Sunday</td><td>13:00 to 17:00</td></tr>
</table>
<p>In July and August 2025 the reading room is closed because its roof is being repaired. The
children&rsquo;s room, the desk and the toilets stay open.</p>

<h2>Can I bring my dog?</h2>
<p>Assistance dogs are welcome everywhere. Other dogs may wait in the entrance hall, where there is
a bowl of water and a hook, but not in the reading garden.</p>

<h2>How do I print something?</h2>
<ol>
<li>Send the file to the address on the printer&rsquo;s label.</li>
<li>Type the four digits from the answer into the printer.</li>
<li>Pay at the desk: ten cents a page, thirty in colour.</li>
</ol>

<h2>Is there wireless internet?</h2>
<p>Yes, without a password and without registration. We keep no record of what you read, neither
on paper nor on the screen. See <a href="https://library.example/privacy">our promise</a>.</p>

<h2>What happens if I am late?</h2>
<p>Adults pay twenty cents a day, at most five euros a book. From 1 June 2025 members under eighteen
pay nothing.</p>
</main>
<footer><p>Alder Vale Public Library, 4 Mill Lane. Telephone 555 0142.</p></footer>
</body>
</html>
"""

VOLUNTEERS = """\
Repair workshop: notes for new volunteers

The workshop takes place on the first Saturday of every month, from eleven to three, on the ground
floor beside the map room. People bring what is broken. We repair it together with them, not for
them: whoever brings a toaster holds the screwdriver.

Before you open anything, pull the plug, wait a minute and ask Sam Achterberg, who has the tester.
Microwave ovens are never opened. Batteries that are swollen go into the sand bucket at the door
and nowhere else.

Write every repair into the red book: the object, its age if known, what was wrong and whether it
works again. In 2024 we looked at 612 objects and mended 401 of them. Lamps are easiest, printers
hardest, and zips are most often asked for.

Coffee is free. Cake is whoever's turn it is.
"""

# Style and text of each paragraph; a tuple of tuples is a table.
AGREEMENT = (
    ("Title", "Agreement for the Library of Things"),
    ("", "Between the Alder Vale Public Library and the member who signs below."),
    ("Heading1", "What is lent"),
    (
        "",
        (
            "One object at a time leaves the house, with the box, the manual and every part that "
            "is listed on the yellow label. The member has been shown how it is used."
        ),
    ),
    ("Heading1", "Deposit"),
    (
        ("Object", "Deposit in euros", "Days"),
        ("Cordless drill", "30", "7"),
        ("Sewing machine", "60", "14"),
        ("Telescope", "150", "3"),
    ),
    ("", "The deposit is paid back in cash on the day the object returns complete and clean."),
    ("Heading1", "When something breaks"),
    ("ListNumber", "Stop using it and bring it back; do not repair it."),
    ("ListNumber", "Tell the desk what happened, so that nobody is hurt by it."),
    ("ListNumber", "Wear costs nothing. What was dropped is paid for, up to the deposit."),
)
REMARK = "Ines: should the telescope really leave the house in winter?"

GARDEN = """\
<text:p text:style-name="Title">The reading garden</text:p>
<text:h text:outline-level="1">Who waters what</text:h>
<text:p>The garden behind the building opened on 21 June 2024. It has no gardener: the Friends of
the Library look after it in turns<text:note text:note-class="footnote"><text:note-citation>1\
</text:note-citation><text:note-body><text:p>The list of turns hangs in the map room.</text:p>\
</text:note-body></text:note>.</text:p>
<table:table><table:table-column table:number-columns-repeated="2"/>
<table:table-header-rows><table:table-row><table:table-cell><text:p>Bed</text:p></table:table-cell>
<table:table-cell><text:p>Watered on</text:p></table:table-cell></table:table-row>
</table:table-header-rows>
<table:table-row><table:table-cell><text:p>Roses along the wall</text:p></table:table-cell>
<table:table-cell><text:p>Monday and Thursday</text:p></table:table-cell></table:table-row>
<table:table-row><table:table-cell><text:p>Herbs</text:p></table:table-cell>
<table:table-cell><text:p>every evening in July</text:p></table:table-cell></table:table-row>
</table:table>
<text:h text:outline-level="1">Rules for the bench under the walnut tree</text:h>
<text:list><text:list-item><text:p>Whoever reads aloud asks the others first.</text:p>\
</text:list-item><text:list-item><text:p>Books stay dry: take them in before the sprinkler starts
at eight.</text:p></text:list-item></text:list>
"""

# File, name in the table of contents, and text of each chapter.
TALES = (
    (
        "preface.xhtml",
        "Preface",
        (
            "<h1>Preface</h1><p>Eleni Kouris wrote these tales down in the winter of 2023, as they "
            "were told to her on Tuesday afternoons in the newspaper corner.</p>"
        ),
    ),
    (
        "bell.xhtml",
        "The bell that rang under water",
        (
            "<p>When the mill pond was dug, the old chapel stood in the way. They took the altar "
            "and the benches, but the bell was too heavy, and so the water came over it.</p>"
            "<p>On foggy mornings, says the ferryman, it rings twice before somebody moves away "
            "from the valley.</p>"
        ),
    ),
    (
        "map.xhtml",
        "The surveyor\u2019s mistake",
        (
            "<h1>The surveyor\u2019s mistake</h1><p>In 1781 a surveyor fell asleep under a walnut "
            "tree and drew the river on the wrong side of the village. For nine years the village "
            "paid its taxes to another county, which was cheaper, and nobody woke him.</p>"
        ),
    ),
)


CONTRACT = """
    Hollis Roofing
    Contract 4471: roof of the reading room

    Hollis Roofing repairs the roof above the reading room of the Alder Vale Public Library for
    38,000 euros. Work begins on 7 July 2025 and ends on 8 August 2025. For every day of delay the
    price falls by 250 euros.

    Hollis Roofing guarantees for ten years that the roof does not leak. The guarantee covers the
    flashing at the chimney, where the water came in last October.

    Greta Hollis, 1 April 2025
    """

LETTER = """\
From: Greta Hollis <greta@hollis-roofing.example>
To: Mira Castellano <mira@library.example>
Cc: Joost van Daalen <joost@library.example>
Date: Wed, 02 Apr 2025 08:40:00 +0200
Message-ID: <4471.1@hollis-roofing.example>
Subject: Contract for the roof, and a question about the parking
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="here-the-next-part-begins"

--here-the-next-part-begins
Content-Type: text/plain; charset="utf-8"

Dear Ms Castellano,

the signed contract is attached. The scaffold comes on the last Monday of June, so that nobody
works overhead while the reading garden is full.

One question: may our two vans stand in the yard behind the map room for the five weeks?

With kind regards
Greta Hollis

--here-the-next-part-begins
Content-Type: application/pdf; name="roof-contract.pdf"
Content-Disposition: attachment; filename="roof-contract.pdf"
Content-Transfer-Encoding: base64

{attachment}
--here-the-next-part-begins--
"""


def pdf(pages: list[str]) -> bytes:
    """Write a PDF whose pages have these content streams.

    Source: ISO 32000-1, sections 7.5 (file structure) and 7.7.3 (page tree).
    """
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for number, content in enumerate(pages):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    written = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(written))
        written += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    return written + (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}"
        f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(written)}\n%%EOF\n"
    ).encode("ascii")


def text_page(text: str) -> str:
    """Write the content stream of a page of text, 11 points high."""
    lines: list[str] = []
    for paragraph in textwrap.dedent(text).strip().split("\n\n"):
        is_table = "   " in paragraph
        if is_table or len(paragraph) < LINE_CHARS:
            lines += paragraph.split("\n")
        else:
            lines += textwrap.wrap(" ".join(paragraph.split()), LINE_CHARS)
        lines.append("")
    if len(lines) > LINES_PER_PAGE:
        raise ValueError(f"{len(lines)} lines do not fit a page of {LINES_PER_PAGE}")
    escaped = (line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") for line in lines)
    shown = "\n".join(f"({line}) Tj T*" for line in escaped)
    return f"BT\n/F1 11 Tf\n15 TL\n72 770 Td\n{shown}\nET"


def archive(parts: dict[str, str]) -> bytes:
    """Write a zip archive, stored and without a date, so that it is the same on every day."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, part in parts.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # Unix, also where it is not
            file.writestr(entry, part)
    return written.getvalue()


def docx() -> bytes:
    """Write the agreement as a Word document with a comment.

    Source: ECMA-376, part 1, section 17 (WordprocessingML).
    """
    schemas = "http://schemas.openxmlformats.org"
    word = f'xmlns:w="{schemas}/wordprocessingml/2006/main"'
    office = f"{schemas}/officeDocument/2006/relationships"
    types = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    kinds = {"document": "document.main", "styles": "styles", "numbering": "numbering"}
    kinds["comments"] = "comments"

    def paragraph(style: str, text: str, after: str = "") -> str:
        named = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        return f"<w:p>{named}<w:r><w:t>{text}</w:t></w:r>{after}</w:p>"

    def table(rows: tuple[tuple[str, ...], ...]) -> str:
        lines = ("".join(f"<w:tc>{paragraph('', text)}</w:tc>" for text in cells) for cells in rows)
        return f"<w:tbl>{''.join(f'<w:tr>{line}</w:tr>' for line in lines)}</w:tbl>"

    body = "".join(
        table(block) if isinstance(block[0], tuple) else paragraph(*block) for block in AGREEMENT
    )
    body += paragraph("", "Date, name, signature", '<w:r><w:commentReference w:id="0"/></w:r>')
    styles = {"Title": "Title", "Heading1": "heading 1", "ListNumber": "List Number"}
    numbered = '<w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr>'
    return archive(
        {
            "[Content_Types].xml": f'<Types xmlns="{schemas}/package/2006/content-types">'
            '<Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            + "".join(
                f'<Override PartName="/word/{name}.xml" ContentType="{types}.{kind}+xml"/>'
                for name, kind in kinds.items()
            )
            + "</Types>",
            "_rels/.rels": f'<Relationships xmlns="{schemas}/package/2006/relationships">'
            f'<Relationship Id="r1" Type="{office}/officeDocument" Target="word/document.xml"/>'
            "</Relationships>",
            "word/_rels/document.xml.rels": (
                f'<Relationships xmlns="{schemas}/package/2006/relationships">'
                + "".join(
                    f'<Relationship Id="r{number}" Type="{office}/{name}" Target="{name}.xml"/>'
                    for number, name in enumerate(list(kinds)[1:])
                )
                + "</Relationships>"
            ),
            "word/document.xml": f"<w:document {word}><w:body>{body}</w:body></w:document>",
            "word/styles.xml": f"<w:styles {word}>"
            + "".join(
                f'<w:style w:type="paragraph" w:styleId="{key}"><w:name w:val="{name}"/>'
                f"{numbered if key == 'ListNumber' else ''}</w:style>"
                for key, name in styles.items()
            )
            + "</w:styles>",
            "word/numbering.xml": f'<w:numbering {word}><w:abstractNum w:abstractNumId="0">'
            '<w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/><w:pStyle w:val="ListNumber"/></w:lvl>'
            '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
            "</w:numbering>",
            "word/comments.xml": f'<w:comments {word}><w:comment w:id="0" w:author="Ines Marlow">'
            f"{paragraph('', REMARK)}</w:comment></w:comments>",
        }
    )


def odt() -> bytes:
    """Write the plan of the garden as an OpenDocument text.

    Source: OpenDocument 1.3, part 2 (packages) and part 3 (schema).
    """
    media_type = "application/vnd.oasis.opendocument.text"
    names = "urn:oasis:names:tc:opendocument:xmlns:"
    spaces = " ".join(
        f'xmlns:{prefix}="{names}{prefix}:1.0"' for prefix in ("office", "table", "text")
    )
    return archive(
        {
            "mimetype": media_type,
            "META-INF/manifest.xml": f'<m:manifest xmlns:m="{names}manifest:1.0" m:version="1.3">'
            f'<m:file-entry m:full-path="/" m:media-type="{media_type}"/>'
            '<m:file-entry m:full-path="content.xml" m:media-type="text/xml"/></m:manifest>',
            "content.xml": f'<office:document-content {spaces} office:version="1.3"><office:body>'
            f"<office:text>{GARDEN}</office:text></office:body></office:document-content>",
        }
    )


def epub() -> bytes:
    """Write the tales as a book.

    Source: EPUB 3.3, sections 3 (container), 5 (package) and 7 (navigation).
    """
    page = (
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops">'
        "<head><title>Tales of the valley</title></head><body>{}</body></html>"
    )
    links = "".join(f'<li><a href="{file}">{name}</a></li>' for file, name, _ in TALES)
    items = "".join(
        f'<item id="c{number}" href="{file}" media-type="application/xhtml+xml"/>'
        for number, (file, _, _) in enumerate(TALES)
    )
    places = "".join(f'<itemref idref="c{number}"/>' for number in range(len(TALES)))
    return archive(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container version="1.0" '
            'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
            'full-path="book/package.opf" media-type="application/oebps-package+xml"/>'
            "</rootfiles></container>",
            "book/package.opf": '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" '
            'unique-identifier="id"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
            '<dc:identifier id="id">urn:example:tales</dc:identifier><dc:language>en</dc:language>'
            "<dc:title>Tales of the valley</dc:title><dc:creator>Eleni Kouris</dc:creator>"
            '<meta property="dcterms:modified">2024-02-01T00:00:00Z</meta></metadata><manifest>'
            '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" '
            f'properties="nav"/>{items}</manifest><spine>{places}</spine></package>',
            "book/nav.xhtml": page.format(f'<nav epub:type="toc"><ol>{links}</ol></nav>'),
            **{f"book/{file}": page.format(text) for file, _, text in TALES},
        }
    )


def main() -> None:
    """Write every document."""
    FOLDER.mkdir(exist_ok=True)
    report = FOLDER / "annual-report-2024.pdf"
    report.write_bytes(pdf([text_page(page) for page in ANNUAL_REPORT]))
    shutil.copyfile(report, FOLDER / "annual-report-2024-copy.pdf")
    # A line drawn from corner to corner: a page without text, as a scanner would leave it.
    (FOLDER / "scanned-letter.pdf").write_bytes(pdf(["72 72 m 523 770 l S"]))
    contract = pdf([text_page(CONTRACT)])
    texts = {
        "board-minutes-2025-03.md": MINUTES,
        "staff-handbook-lending.md": HANDBOOK,
        "questions-and-answers.html": QUESTIONS,
        "repair-workshop.txt": VOLUNTEERS,
        "roof-contract.eml": LETTER.format(attachment=encodebytes(contract).decode("ascii")),
    }
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
    (FOLDER / "library-of-things.docx").write_bytes(docx())
    (FOLDER / "reading-garden.odt").write_bytes(odt())
    (FOLDER / "tales-of-the-valley.epub").write_bytes(epub())


if __name__ == "__main__":
    main()
