"""Folders become files in a steady order, each once, whatever the links do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.cli.walking import walk

if TYPE_CHECKING:
    from pathlib import Path


def names(root: Path, *paths: Path) -> list[str]:
    """Return what is found, relative to ``root``; what is refused has a mark."""
    return [
        f"{found.path.relative_to(root)}{' refused' if found.refused else ''}"
        for found in walk(paths)
    ]


def test_folders_are_walked_in_order_without_hidden_files(tmp_path: Path) -> None:
    """Sorted by name, folders in their place, nothing that begins with a dot."""
    for name in ("b.txt", "a/z.txt", "a/.git/config", ".env", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path, tmp_path) == ["a/z.txt", "b.txt", "c.txt"]
    assert names(tmp_path, tmp_path / ".env") == [".env"]


def test_a_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    """A loop of folders is named and left; everything beside it is found."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "x.txt").touch()
    assert names(tmp_path, tmp_path) == ["a/up refused", "a/x.txt"]


def test_a_file_is_taken_once_however_it_is_reached(tmp_path: Path) -> None:
    """Two paths to one file, by links or by naming it twice, are one document."""
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert names(tmp_path, tmp_path, tmp_path / "a.txt") == ["a.txt"]


def test_missing_and_broken_paths_are_left_to_submit(tmp_path: Path) -> None:
    """What cannot be read is not dropped in silence: submitting it says why."""
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    assert names(tmp_path, tmp_path, tmp_path / "gone") == ["broken", "round", "gone"]
