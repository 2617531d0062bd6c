"""Twenty questions about a folder of real documents, and the files that answer them.

Written down before any search was run, and not changed since: a miss is a fact about search. A
question is answered by any of its files; several hold the same document in different formats.
The files are test documents of https://github.com/docling-project/docling.
"""

from __future__ import annotations

QUESTIONS: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (question, frozenset(files.split()))
    for question, files in (
        ("How does the Transformer do without recurrence?", "1706.03762_main.tex.md"),
        (
            "How much faster is inference with OTSL than with HTML?",
            """
            2305.03393_main.tex.md 2305.03393v1.md 2305.03393v1.doctags.txt 2305.03393v1-pg9.md
            2305.03393v1-pg9.doctags.txt 2305.03393v1-pg9.pdf deepseek_example.md
            deepseek_example.md.md deepseek_simple.md chandra_simple.html
            """,
        ),
        (
            "Which dataset of pages labelled by people trains models of document layout?",
            "2206.01062.md 2206.01062.doctags.txt deepseek_title.md deepseek_title.md.md",
        ),
        ("In which city does Big Blue have its headquarters?", "wiki.md wiki.md.md"),
        (
            "What sounds do ducks make?",
            "wiki_duck.html wiki_duck.html.md html_rich_table_cells.html",
        ),
        (
            "How can cows in warm regions be fed so that less greenhouse gas is emitted?",
            "pone.0234687.nxml.md",
        ),
        (
            "Why do districts fail surveys before mass drug treatment of filariasis ends?",
            "pntd.0008301.nxml.md",
        ),
        (
            "What do KRAB zinc finger proteins repress in mice?",
            "elife-56337.nxml.md elife-56337.txt",
        ),
        (
            "What ratio of red to blue light should lamps for growing lettuce have?",
            "ipa20180000016.md",
        ),
        (
            "What must a kindergarten do when children fall ill with something infectious?",
            "textbox.docx.md",
        ),
        (
            "Cells killed with bleomycin that still glow",
            "pa20010031492.md",
        ),
        ("interleaver that permutes rows of an index array", "pg06442728.md"),
        (
            "Who invented the typewriter, and when?",
            "multi_page.md multi_page.pdf multi_page.doctags.txt chandra_list_group.html",
        ),
        (
            "Where may self-locking nuts be used on an aircraft?",
            "amt_handbook_sample.md amt_handbook_sample.pdf amt_handbook_sample.doctags.txt",
        ),
        ("CSROWR-12", "311_calls_for_service.ebc.md"),
        (
            "When can shareholders of the blank check company redeem from the trust account?",
            "mlac-20251231.xml.md",
        ),
        (
            "How is a column mask created in DB2 for i?",
            "redp5110_sampled.md redp5110_sampled.doctags.txt",
        ),
        (
            "코로나-19 사망에 재해보험금을 지급해야 하는가?",
            "normal_4pages.md normal_4pages.pdf normal_4pages.doctags.txt",
        ),
        (
            "ما فائدة البرمجة بلغة Python في تحليل البيانات؟",
            "right_to_left_01.md right_to_left_01.pdf right_to_left_01.doctags.txt",
        ),
        ("Which file of LLNCS was renamed to subjidx.ind?", "history.txt"),
    )
)
