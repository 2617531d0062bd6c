"""The example notebook, run cell by cell in a real kernel."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
PATIENCE_SECONDS = 120


class _ThisPython(AsyncKernelManager):
    """Starts this interpreter, whatever kernels are installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=words, language="python", display_name="this one")


def _printed(cell: Any) -> str:
    return "".join(one.get("text", "") for one in cell.outputs)


def _read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs() -> None:
    """Outputs and counts would change with each run, and hide what changed."""
    code = [cell for cell in _read().cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


# Jupyter's own libraries warn about themselves on the way.
@pytest.mark.filterwarnings("default")
@pytest.mark.timeout(400)
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline and a runner opened in one cell serve the later ones, and the last closes them."""
    (tmp_path / "documents").symlink_to(ROOT / "examples" / "documents")
    for name in [name for name in os.environ if name.startswith(("SMP_", "DATABASE_URL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = _read()
    client = NotebookClient(
        notebook,
        timeout=PATIENCE_SECONDS,
        kernel_manager_class=_ThisPython,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    asyncio.run(client.async_execute())

    _, _, submitted, explained, found, closed = [
        _printed(cell) for cell in notebook.cells if cell.cell_type == "code"
    ]
    assert [line.split()[:2] for line in submitted.splitlines()] == [
        ["annual-report-2024.pdf", "complete"],
        ["board-minutes-2025-03.md", "complete"],
        ["scanned-letter.pdf", "dead_letter"],
    ]
    assert explained.startswith("dead_letter: no text on")
    assert len(found.splitlines()) == 3
    assert closed == ""
