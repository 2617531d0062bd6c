"""What is handed to ``submit`` is read, or refused with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from statemachine_pipeline import sources
from statemachine_pipeline.errors import SourceRefused
from statemachine_pipeline.records import sha256_hex
from statemachine_pipeline.sources import BLOB_LIMIT_BYTES, read


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One byte more than is stored; a hole, so that it takes no space."""
    path = tmp_path_factory.mktemp("sources") / "large.bin"
    with path.open("wb") as file:
        file.truncate(BLOB_LIMIT_BYTES + 1)
    return path


def refusal(source: str | Path | bytes, **named: str) -> str:
    """Return the sentence with which a source is refused."""
    with pytest.raises(SourceRefused) as caught:
        read(source, named.get("source_uri"), named.get("name"))
    return str(caught.value)


def test_a_file_is_read_whole_and_named_by_its_resolved_path(tmp_path: Path) -> None:
    """'source_uri is file:// + resolved path' and the content travels with it."""
    path = tmp_path / "a b.txt"
    path.write_bytes(b"hello")
    link = tmp_path / "link"
    link.symlink_to(path)
    found = read(link, None, None)
    assert found == (path.as_uri(), "a b.txt", 5, sha256_hex(b"hello"), b"hello", None)
    assert found.source_uri.startswith("file:///")
    assert found.source_uri.endswith("/a%20b.txt")
    assert read(str(path), None, None) == found


def test_bytes_are_named_by_their_hash() -> None:
    """'sha256:<hex> for bytes' without a source of their own."""
    sha256 = sha256_hex(b"hello")
    assert read(b"hello", None, None) == (
        f"sha256:{sha256}",
        f"sha256:{sha256[:12]}",
        5,
        sha256,
        b"hello",
        None,
    )


def test_the_callers_names_win(tmp_path: Path) -> None:
    """'source_uri is ... or the caller's'; 'name is for display'."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello")
    for source in (path, b"hello"):
        found = read(source, "crm:17", "Offer.txt")
        assert (found.source_uri, found.name) == ("crm:17", "Offer.txt")


def test_empty_content_is_accepted_here(tmp_path: Path) -> None:
    """Whether an empty document makes sense is for intake to say, with a history."""
    path = tmp_path / "empty"
    path.touch()
    assert read(path, None, None).data == b""
    assert read(b"", None, None).size_bytes == 0


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """'It cannot be read': the reason is that it is not there."""
    path = tmp_path / "none.txt"
    assert refusal(path) == f"cannot take '{path}': there is no such file; check the path"


def test_a_file_as_folder_is_refused(tmp_path: Path) -> None:
    """A path through a file has the operating system's reason."""
    path = tmp_path / "file"
    path.touch()
    assert refusal(path / "inner") == (
        f"cannot take '{path / 'inner'}': Not a directory; make it readable for this process"
    )


def test_a_folder_is_refused(tmp_path: Path) -> None:
    """'It is a folder': its files are what can be submitted."""
    assert refusal(tmp_path) == f"cannot take '{tmp_path}': it is a folder; submit the files in it"


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    """A loop is named, on every Python."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    said = refusal(one)
    assert said.startswith(f"cannot take '{one}': ")
    assert "its links form a loop" in said or "Too many levels of symbolic links" in said


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    """'It is no regular file': reading it could block for ever."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert refusal(path) == (f"cannot take '{path}': it is no regular file; submit a file or bytes")


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", "a\x1b[31mb", "a\x7fb"])
def test_control_characters_in_a_path_or_name_are_refused(name: str) -> None:
    """Names are shown in terminals and logs, so they hold no control characters."""
    assert "its path holds control characters" in refusal(f"/tmp/{name}")
    assert "its name holds control characters" in refusal(b"x", name=name)
    assert "its source_uri holds control characters" in refusal(b"x", source_uri=name)


def test_a_file_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """PostgreSQL could not hold the name, so it is said here, printably."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    said = refusal(os.fsdecode(raw))
    assert "caf\\\\udce9.txt" in said
    assert said.endswith("its path is not valid UTF-8; rename it, or submit bytes with a name")
    assert said.isascii()


def test_a_link_to_a_name_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    """What is stored is the resolved path, so that one is looked at too."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"x")
    link = tmp_path / "a.txt"
    link.symlink_to(folder / "a.txt")
    assert "its path is not valid UTF-8" in refusal(link)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("..\\..\\secret.txt", "secret.txt"),
        ("C:\\Users\\x\\a.pdf", "a.pdf"),
        ("/abs/a.pdf", "a.pdf"),
        ("a.pdf", "a.pdf"),
        ("///", "unnamed"),
        ("C:\\", "unnamed"),
    ],
)
def test_only_the_last_part_of_a_name_is_kept(name: str, shown: str) -> None:
    """'Names are shown, never opened: only the last part is kept, whatever the separators'."""
    assert read(b"x", None, name).name == shown


def test_bytes_over_the_limit_are_refused_and_say_what_to_do() -> None:
    """'Bytes over the limit are refused, naming it'."""
    assert refusal(bytes(BLOB_LIMIT_BYTES + 1)) == (
        "cannot take '26,214,401 bytes': more than the 26,214,400 that are stored in the database; "
        "write them to a file that every worker can read and submit its path, or keep bytes in "
        "an object store (`blobs=`)"
    )


def test_bytes_at_the_limit_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """'Bytes of uploads up to 25 MB': the limit itself is allowed."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 4)
    assert read(b"1234", None, None).data == b"1234"
    assert "more than the 4" in refusal(b"12345")


def test_a_file_over_the_limit_is_kept_by_its_path(large: Path) -> None:
    """'A larger local file is kept by path, size and sha256'."""
    found = read(large, None, None)
    assert (found.data, found.path, found.size_bytes) == (None, str(large), BLOB_LIMIT_BYTES + 1)
    assert found.sha256 == sha256_hex(bytes(BLOB_LIMIT_BYTES + 1))


def test_a_file_at_the_limit_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a larger file is kept by its path."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 4)
    path = tmp_path / "a"
    path.write_bytes(b"1234")
    assert (read(path, None, None).data, read(path, None, None).path) == (b"1234", None)
    path.write_bytes(b"12345")
    assert (read(path, None, None).data, read(path, None, None).path) == (None, str(path))


def test_an_unreadable_file_has_the_systems_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'Make it readable for this process', with what the operating system said."""

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "a"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refusal(path) == (
        f"cannot take '{path}': Permission denied; make it readable for this process"
    )
