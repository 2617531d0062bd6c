"""Write the example documents beside this file: a small library's papers, all invented.

Run it again and the files come out byte for byte the same. It needs no package: the PDFs are
written by hand, as text that you can read in an editor.
"""

from __future__ import annotations

import shutil
import textwrap
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


if __name__ == "__main__":
    main()
