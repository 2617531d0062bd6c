"""Reads what is handed to ``submit``, a path or bytes, or refuses with the reason."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from statemachine_pipeline.blobs import PIECE_BYTES
from statemachine_pipeline.errors import SourceRefused
from statemachine_pipeline.records import CHILD_SCHEME, sha256_hex

BLOB_LIMIT_BYTES = 25 * 1024 * 1024
"""Largest content kept in the database; a larger file is kept by its path, size and hash."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Content(NamedTuple):
    """Bytes on their way into the pipeline; ``data`` is None when they are read from ``path``."""

    source_uri: str
    name: str
    size_bytes: int
    sha256: str
    data: bytes | None
    path: str | None


def read(
    source: str | Path | bytes,
    source_uri: str | None,
    name: str | None,
    store_limit_bytes: int | None = None,
) -> Content:
    """Read a source whole, or hash it where it is too large to be held in memory. Blocks.

    Args:
        source: A path, or the bytes.
        source_uri: What the caller calls it.
        name: For display.
        store_limit_bytes: What the object store takes; None where bytes go into the database.

    Raises:
        SourceRefused: It cannot be read, is too long to be stored, or ``source_uri`` begins as
            those of children do.
    """
    if source_uri is not None and source_uri.startswith(CHILD_SCHEME):
        raise SourceRefused(
            source_uri,
            f"{CHILD_SCHEME} is for documents found in documents",
            "submit its parent again, or choose another source_uri",
        )
    if isinstance(source, bytes):
        content = _of_bytes(source, store_limit_bytes)
    else:
        content = _of_file(source, store_limit_bytes)
    return content._replace(
        source_uri=_checked(source_uri or content.source_uri, "source_uri"),
        name=display_name(name) if name else content.name,
    )


def _of_bytes(source: bytes, store_limit_bytes: int | None) -> Content:
    if store_limit_bytes is None and len(source) > BLOB_LIMIT_BYTES:
        raise SourceRefused(
            f"{len(source):,} bytes",
            f"more than the {BLOB_LIMIT_BYTES:,} that are stored in the database",
            "write them to a file that every worker can read and submit its path, or keep bytes in "
            "an object store (`blobs=`)",
        )
    _require_room(f"{len(source):,} bytes", len(source), store_limit_bytes)
    sha256 = sha256_hex(source)
    return Content(f"sha256:{sha256}", f"sha256:{sha256[:12]}", len(source), sha256, source, None)


def _require_room(shown: str, size_bytes: int, store_limit_bytes: int | None) -> None:
    if store_limit_bytes is not None and size_bytes > store_limit_bytes:
        raise SourceRefused(
            shown,
            f"{size_bytes:,} bytes are more than the {store_limit_bytes:,} that may be stored",
            "raise `limit_bytes` of its store",
        )


def _of_file(source: str | Path, store_limit_bytes: int | None) -> Content:
    shown = str(source)
    _checked(shown, "path")
    try:
        path = Path(source).resolve(strict=True)
        _checked(str(path), "path")
        if path.is_dir():
            raise SourceRefused(shown, "it is a folder", "submit the files in it")
        if not path.is_file():
            raise SourceRefused(shown, "it is no regular file", "submit a file or bytes")
        size = path.stat().st_size
        _require_room(shown, size, store_limit_bytes)
        if size > (BLOB_LIMIT_BYTES if store_limit_bytes is None else PIECE_BYTES):
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return Content(path.as_uri(), display_name(path.name), size, sha256, None, str(path))
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceRefused(shown, "there is no such file", "check the path") from error
    except RuntimeError as error:  # how Python before 3.13 reports a loop of links
        raise SourceRefused(shown, "its links form a loop", "submit the real file") from error
    except OSError as error:
        found = error.strerror or type(error).__name__
        raise SourceRefused(shown, found, "make it readable for this process") from error
    return Content(path.as_uri(), display_name(path.name), len(data), sha256_hex(data), data, None)


def tenant_problem(tenant: str) -> str | None:
    """Say why a name cannot be a tenant's; None if it can."""
    if not tenant.strip():
        return f"tenant {tenant!r} is blank"
    if not tenant.isprintable():
        return f"tenant {tenant!a} holds characters that cannot be printed"
    return None


def _checked(text: str, what: str) -> str:
    if _CONTROL.search(text):
        raise SourceRefused(text, f"its {what} holds control characters", "rename it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SourceRefused(
            ascii(text), f"its {what} is not valid UTF-8", "rename it, or submit bytes with a name"
        ) from error
    return text


def display_name(name: str) -> str:
    """Names are shown, never opened: only the last part is kept, whatever the separators."""
    last = PureWindowsPath(PurePosixPath(name).name).name
    return _checked(last or "unnamed", "name")
