"""What `make demo` runs: a folder of documents becomes passages that can be searched.

Every step is a verb of the command line, printed before it is run, so that it can be copied. The
data lie in ``build/demo``; a second run finds everything unchanged. Run it by hand with

    python examples/demo.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from statemachine_pipeline.records import document_id

HERE = Path(__file__).resolve().parent
SCRATCH = HERE.parent / "build" / "demo"
MINUTES = HERE / "documents" / "board-minutes-2025-03.md"


def step(saying: str, *words: str, may_exit: tuple[int, ...] = (0,)) -> int:
    """Print a command, run it in the scratch folder, and stop if it fails otherwise than told."""
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    print(f"\n# {saying}\n$ statemachine-pipeline {shown}", flush=True)
    command = [sys.executable, "-m", "statemachine_pipeline", *words]
    code = subprocess.run(command, cwd=SCRATCH, check=False).returncode
    if code not in may_exit:
        sys.exit(f"the command ended with exit code {code}")
    return code


def parked() -> list[str]:
    """Return the names of documents that were given up."""
    command = [sys.executable, "-m", "statemachine_pipeline", "list", "--json"]
    listed = subprocess.run(command, cwd=SCRATCH, check=True, capture_output=True, text=True).stdout
    documents = [json.loads(line) for line in listed.splitlines()]
    return [one["name"] for one in documents if one["state"] == "dead_letter"]


def main() -> None:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    # The demo is about the embedded server, whatever this shell is used for otherwise.
    for name in ("SMP_DATABASE", "SMP_APP", "SMP_SCHEMA", "DATABASE_URL"):
        os.environ.pop(name, None)
    folders = (
        os.path.relpath(folder, SCRATCH) for folder in (HERE / "documents", HERE.parent / "docs")
    )

    code = step("From files to searchable passages.", "ingest", *folders, may_exit=(0, 1))
    if code == 1:
        print(
            "\n# Exit code 1 is right: the folder holds a scanned letter without text. It was not\n"
            "# forgotten but parked with its reason. Of the two equal reports one is a duplicate.\n"
            "# The contract that was attached to an e-mail became a document of its own."
        )
    step("How many documents stand where.", "status")
    if parked() != ["scanned-letter.pdf"]:
        sys.exit(f"only the scanned letter should have been parked, but {parked()} were")
    step("What was parked.", "list", "--state", "dead_letter")
    step(
        "The life of one document, every row written in the transaction that moved it.",
        "show",
        str(document_id("default", MINUTES.as_uri())),
    )
    step(
        "The three best passages for a question.",
        "search",
        "Who approved the budget?",
        "--limit",
        "3",
    )


if __name__ == "__main__":
    main()
