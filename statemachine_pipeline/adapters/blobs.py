"""Bytes in an object store: S3 and what speaks it, Google Cloud, Azure, or a folder.

Writes are whole or not there: one conditional PUT up to ``PIECE_BYTES``, a multipart upload above,
which becomes visible when its last piece was right. Reads are ranges of that length, each a request
of its own, so that no timeout depends on the length of the object.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from statemachine_pipeline.blobs import PIECE_BYTES
from statemachine_pipeline.errors import BlobsUnavailable, DefinitionError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

LIMIT_BYTES = 1024 * 1024 * 1024
PARTS_AT_ONCE = 4
BUCKETS = ("s3", "gs", "az")
ANSWER_WITHIN = timedelta(seconds=60)
"""How long a store that does not answer is asked again, before the caller hears of it."""
LETS_GO_SECONDS = 0.1
"""How long the end of a process waits for the threads of obstore."""


class ObjectBlobs:
    """Keeps bytes in an object store, through obstore.

    A prefix belongs to one pipeline. Credentials, region and endpoint come from the environment
    (``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``GOOGLE_SERVICE_ACCOUNT``,
    ``AZURE_STORAGE_ACCOUNT_NAME`` and their like), or from a store of obstore that you made.

    Memory: at most one piece per read, and about ``PARTS_AT_ONCE`` + 1 per upload.

    Args:
        store: ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``az://container/prefix``,
            ``file:///folder``, or a store of obstore.
        limit_bytes: Longer content is refused by ``submit``; 1 GiB by default.

    Raises:
        DefinitionError: It is no store, or the URL names none that keeps anything.
        MissingExtra: obstore is not installed.
    """

    def __init__(self, store: Any, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self._store = _opened(store) if isinstance(store, str) else _known(store)
        _end_later()

    def __repr__(self) -> str:
        return f"ObjectBlobs({self._store!r})"

    async def put_if_absent(
        self, key: str, pieces: AsyncIterator[bytes], *, size_bytes: int
    ) -> None:
        """Store content whole, unless its key is taken.

        Above ``PIECE_BYTES`` the key is looked up first: obstore has no conditional multipart
        upload. Two that upload the same key at once then both write, and write the same bytes.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with _answering("storing bytes"):
            if size_bytes <= PIECE_BYTES:
                whole = b"".join([piece async for piece in pieces])
                with contextlib.suppress(AlreadyExistsError):
                    await obstore.put_async(self._store, key, whole, mode="create")
            elif not await self._has(key):
                await obstore.put_async(
                    self._store,
                    key,
                    pieces,
                    use_multipart=True,
                    chunk_size=PIECE_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )

    async def _has(self, key: str) -> bool:
        import obstore

        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        return True

    async def open(self, key: str, *, size_bytes: int) -> AsyncIterator[bytes]:
        """Return the content in pieces.

        Raises:
            FileNotFoundError: There is no such object, in a store that has others.
            PermissionError: There is none, nor any other: it is not the store that was written to.
        """
        import obstore

        with _answering("reading bytes"):
            for start in range(0, size_bytes, PIECE_BYTES):
                end = min(start + PIECE_BYTES, size_bytes)
                try:
                    piece = await obstore.get_range_async(self._store, key, start=start, end=end)
                except FileNotFoundError:
                    await self._require_others()
                    raise
                yield bytes(piece)

    async def _require_others(self) -> None:
        """Tell a lost object from a lost bucket or a folder that is not mounted."""
        import obstore

        with contextlib.suppress(FileNotFoundError, obstore.exceptions.GenericError):
            async for found in obstore.list(self._store, chunk_size=1):
                if found:
                    return
        raise PermissionError(f"{self._store!r} is not there, or holds nothing at all")

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        import obstore

        with _answering("deleting bytes"):
            with contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, keys)
                return
            # Folders, Google and Azure stop at the first that is missing.
            for key in keys:
                with contextlib.suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)


@functools.cache
def _end_later() -> None:
    """Let the process end a moment later.

    Threads of obstore let go of Python's objects just after they have answered. An interpreter that
    ends meanwhile is aborted: github.com/PyO3/pyo3-async-runtimes/issues/40.
    """
    atexit.register(time.sleep, LETS_GO_SECONDS)


@contextlib.contextmanager
def _answering(doing: str) -> Iterator[None]:
    """Turn the library's errors into those of the protocol."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(_first_line(error)) from error
    except BaseError as error:
        raise BlobsUnavailable(doing, _first_line(error)) from error


def _known(store: Any) -> Any:
    if not hasattr(store, "put_async"):
        raise DefinitionError(
            f"blobs={store!r} is no store: it has neither the methods of "
            "statemachine_pipeline.blobs.Blobs nor those of a store of obstore; name a folder as "
            "file:///folder"
        )
    return store


def _opened(url: str) -> Any:
    parts = urlsplit(url)
    folder = parts.scheme == "file" and parts.netloc == "" and parts.path.strip("/")
    if not folder and not (parts.scheme in BUCKETS and parts.netloc):
        raise DefinitionError(
            f"blobs={url!r} names no store that can be used; it looks like s3://bucket/prefix, "
            "gs://bucket/prefix, az://container/prefix or file:///folder"
        )
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise MissingExtra("obstore", "blobs") from error
    try:
        if folder:
            return from_url(url, mkdir=True)
        return from_url(url, retry_config={"retry_timeout": ANSWER_WITHIN})
    except (BaseError, ValueError, OSError) as error:
        raise DefinitionError(f"blobs={url!r} cannot be used: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """The library prints its structs below the sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition(" - Server")[0]
