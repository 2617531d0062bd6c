"""How often search finds what answers a question: ``make retrieval CORPUS=folder``.

Reads the folder into an embedded server, asks every question of ``questions.py`` in each mode, and
counts those of which one of the first three passages is of a document that answers. Says of each
miss where such a passage stood, or why there is none. Questions whose documents are not in the
folder are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from questions import QUESTIONS

from statemachine_pipeline import Pipeline

if TYPE_CHECKING:
    from statemachine_pipeline.records import Document, Hit, SearchMode

MODES: tuple[SearchMode, ...] = ("vector", "text", "hybrid")
FIRST = 3
DEEP = 50


async def read_in(pipeline: Pipeline, folder: Path) -> dict[str, Document]:
    """Run every file of the folder; return the documents by name."""
    sent = [
        (await pipeline.submit(path)).document_id
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    print(dict(await pipeline.runner().run_until_idle()))
    return {document.name: document for document in await pipeline.documents(ids=sent)}


def place(hits: list[Hit], files: frozenset[str]) -> int | None:
    """Return the 1-based place of the first passage of one of ``files``."""
    places = (n for n, hit in enumerate(hits, start=1) if hit.document.name in files)
    return next(places, None)


def why(hits: list[Hit], files: frozenset[str], documents: dict[str, Document]) -> str:
    """Say why the first passages are of none of ``files``."""
    if (found := place(hits, files)) is not None:
        return f"first on place {found}, behind {hits[0].document.name}"
    if all(documents[name].chunk_count == 0 for name in files & documents.keys()):
        states = sorted({documents[name].state for name in files & documents.keys()})
        return f"nothing of it is published: {', '.join(states)}"
    return f"not among {len(hits)} passages" if hits else "no passage has a word of it"


async def measure(folder: Path) -> int:
    """Print hits and misses of each mode; 1 when hybrid finds less than vectors alone."""
    with tempfile.TemporaryDirectory() as place_of_server:
        async with Pipeline("embedded", directory=Path(place_of_server)) as pipeline:
            documents = await read_in(pipeline, folder)
            asked = [(text, files) for text, files in QUESTIONS if files & documents.keys()]
            if not asked:
                print("none of the documents that the questions are about is in this folder")
                return 2
            found = {}
            for mode in MODES:
                begun, misses, first = time.monotonic(), [], 0
                for text, files in asked:
                    hits = await pipeline.search(text, limit=DEEP, mode=mode)
                    at = place(hits, files)
                    first += at == 1
                    if at is None or at > FIRST:
                        misses.append(f"  missed: {text}\n    {why(hits, files, documents)}")
                milliseconds = (time.monotonic() - begun) / len(asked) * 1000
                found[mode] = len(asked) - len(misses)
                print(
                    f"{mode:7} {found[mode]} of {len(asked)} among the first {FIRST}, "
                    f"{first} first; {milliseconds:.0f} ms a question"
                )
                print("".join(f"{miss}\n" for miss in misses), end="")
    return int(found["hybrid"] < found["vector"])


def main() -> int:
    """Measure the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    return asyncio.run(measure(parser.parse_args().folder.resolve()))


if __name__ == "__main__":
    sys.exit(main())
