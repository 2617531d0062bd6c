"""The object store adapter, on a folder and on a real S3 server: whole or not there, streamed."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fix_blobs import ONE_TRY, S3Server, objects_in
from obstore.store import LocalStore, S3Store

from statemachine_pipeline import Pipeline
from statemachine_pipeline.adapters.blobs import ObjectBlobs
from statemachine_pipeline.blobs import PIECE_BYTES, Blobs
from statemachine_pipeline.errors import BlobsUnavailable, DefinitionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
LARGE = 2 * PIECE_BYTES + 5
KEY = f"{'a' * 32}/{'b' * 64}/{'c' * 32}"


async def pieces(*given: bytes | BaseException) -> AsyncIterator[bytes]:
    """Yield the pieces in order; raise what is an exception."""
    for piece in given:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


def cut(content: bytes) -> AsyncIterator[bytes]:
    """Yield content in pieces of the longest allowed length."""
    return pieces(*(content[at : at + PIECE_BYTES] for at in range(0, len(content), PIECE_BYTES)))


async def read(blobs: Blobs, size_bytes: int, key: str = KEY) -> bytes:
    """Return a whole object."""
    return b"".join([piece async for piece in blobs.open(key, size_bytes=size_bytes)])


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, LARGE])
async def test_what_was_put_is_read_again(blobs: ObjectBlobs, store: Any, size: int) -> None:
    """Of any length, by one PUT or by a multipart upload."""
    content = bytes(range(251)) * (size // 251 + 1)
    content = content[:size]
    await blobs.put_if_absent(KEY, cut(content), size_bytes=size)
    assert objects_in(store) == {KEY: content}
    assert await read(blobs, size) == content


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_key_that_is_taken_keeps_what_it_has(
    blobs: ObjectBlobs, store: Any, size: int
) -> None:
    """'Store content whole, or leave what is there already under its key'."""
    await blobs.put_if_absent(KEY, pieces(b"first"), size_bytes=5)
    await blobs.put_if_absent(KEY, cut(b"x" * size), size_bytes=size)
    assert objects_in(store) == {KEY: b"first"}


async def test_of_many_that_put_one_key_at_once_one_wins(blobs: ObjectBlobs, store: Any) -> None:
    """The store decides (If-None-Match on S3): nobody overwrites, and nobody fails."""
    given = [bytes([number]) * 1000 for number in range(12)]
    await asyncio.gather(*(blobs.put_if_absent(KEY, pieces(one), size_bytes=1000) for one in given))
    (kept,) = objects_in(store).values()
    assert kept in given
    await asyncio.gather(*(blobs.put_if_absent(KEY, pieces(one), size_bytes=1000) for one in given))
    assert objects_in(store) == {KEY: kept}


@pytest.mark.parametrize("before", [(b"begun",), (bytes(PIECE_BYTES), bytes(PIECE_BYTES))])
async def test_content_that_fails_at_its_end_is_not_there(
    blobs: ObjectBlobs, store: Any, before: tuple[bytes, ...]
) -> None:
    """'It raises at its end where the bytes are not those announced: nothing may be stored'."""
    size = sum(map(len, before)) + 1
    with pytest.raises(ZeroDivisionError, match="changed"):
        await blobs.put_if_absent(
            KEY, pieces(*before, ZeroDivisionError("changed")), size_bytes=size
        )
    assert objects_in(store) == {}


async def test_a_missing_object_is_told_from_a_missing_store(
    blobs: ObjectBlobs, store: Any
) -> None:
    """FileNotFoundError where the store holds others; PermissionError where it is empty."""
    with pytest.raises(PermissionError, match="holds nothing at all"):
        await read(blobs, 5)
    await blobs.put_if_absent(KEY, pieces(b"other"), size_bytes=5)
    with pytest.raises(FileNotFoundError):
        await read(blobs, 5, KEY + "0")


async def test_deleting_what_is_not_there_is_no_error(blobs: ObjectBlobs, store: Any) -> None:
    """The first missing one does not spare those behind it."""
    keys = [f"{KEY}{number}" for number in range(5)]
    for key in keys[1::2]:
        await blobs.put_if_absent(key, pieces(b"x"), size_bytes=1)
    await blobs.delete(keys)
    assert objects_in(store) == {}


async def test_a_large_object_is_never_whole_in_memory(store: Any, tmp_path: Path) -> None:
    """Python holds a few pieces at a time, of an object of eight."""
    blobs = ObjectBlobs(store)
    piece = bytes(PIECE_BYTES)

    async def made() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(bytearray(piece))

    tracemalloc.start()
    try:
        await blobs.put_if_absent(KEY, made(), size_bytes=8 * PIECE_BYTES)
        count = 0
        async for found in blobs.open(KEY, size_bytes=8 * PIECE_BYTES):
            count += len(found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 8 * PIECE_BYTES
    assert peak < 7 * PIECE_BYTES


async def test_wrong_credentials_are_no_outage(s3_server: S3Server) -> None:
    """What a person has to mend is a PermissionError, so that no document is charged."""
    blobs = ObjectBlobs(s3_server.store(secret_access_key="wrong"))
    with pytest.raises(PermissionError, match="privileges"):
        await blobs.put_if_absent(KEY, pieces(b"x"), size_bytes=1)
    with pytest.raises(PermissionError, match="privileges"):
        await read(blobs, 1)


async def test_a_missing_bucket_is_no_missing_object(s3_server: S3Server) -> None:
    """S3 answers 404 to both; a typing error must not reject every document."""
    with pytest.raises(PermissionError, match="is not there"):
        await read(ObjectBlobs(s3_server.store(bucket="no-such-bucket")), 1)


async def test_a_store_that_is_down_says_so() -> None:
    """Nobody listens there: an outage, with no internals of the library in its sentence."""
    gone = S3Store(
        "b", endpoint="http://127.0.0.1:9", access_key_id="k", secret_access_key="s",
        client_options={"allow_http": True}, retry_config=ONE_TRY,
    )  # fmt: skip
    with pytest.raises(BlobsUnavailable, match="did not answer while reading bytes") as caught:
        await read(ObjectBlobs(gone), 1)
    assert "Debug" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "memory:///", "https://host/x", "s3:", "/a/folder", "file://", "file://a/b"]
)
def test_a_url_that_keeps_nothing_is_refused(url: str) -> None:
    """Memory is gone with the process, and a path may be meant as anything."""
    with pytest.raises(DefinitionError, match=r"s3://bucket/prefix|cannot be used"):
        ObjectBlobs(url)


@pytest.mark.parametrize("thing", [3, Path("store"), object()])
def test_what_is_no_store_is_refused_when_a_pipeline_is_made(thing: object) -> None:
    """And not at the first document."""
    with pytest.raises(DefinitionError, match="is no store"):
        Pipeline(blobs=thing)


def test_a_folder_is_made(tmp_path: Path) -> None:
    """``file:///folder``: where it is missing it is made."""
    assert isinstance(ObjectBlobs((tmp_path / "a" / "b").as_uri())._store, LocalStore)
    assert (tmp_path / "a" / "b").is_dir()


async def test_s3_is_found_by_the_environment(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials, region and endpoint come from the usual variables."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    blobs = ObjectBlobs("s3://documents/by-environment")
    await blobs.put_if_absent(KEY, pieces(b"found"), size_bytes=5)
    assert await read(blobs, 5) == b"found"


def test_the_adapter_is_what_the_protocol_asks_for(tmp_path: Path) -> None:
    """``Blobs`` is checked when a pipeline is made."""
    assert isinstance(ObjectBlobs(tmp_path.as_uri()), Blobs)
