"""The shortest program: three documents in, one question answered.

Shows submit, a runner that works until nothing is left, why one document was parked, and search, on
the embedded PostgreSQL. Run it from the folder that holds ``examples``:

    python examples/shortest.py

It keeps its data in ``.statemachine-pipeline``; the second run has only the question to answer.
"""

import asyncio
from pathlib import Path

from statemachine_pipeline import Pipeline

FOLDER = Path("examples/documents")


async def main() -> None:
    async with Pipeline("embedded") as pipeline:
        for name in ("annual-report-2024.pdf", "board-minutes-2025-03.md", "scanned-letter.pdf"):
            await pipeline.submit(FOLDER / name)
        print(await pipeline.runner().run_until_idle())
        for parked in await pipeline.documents(state="dead_letter"):
            print(f"{parked.name}: {parked.last_error}")
        for hit in await pipeline.search("Who approved the budget?", limit=3):
            print(f"{hit.score:.2f} {hit.document.name}, page {hit.page or '-'}: {hit.text[:34]!r}")


asyncio.run(main())
