"""Asks pages on loopback, and waits until one says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import subprocess
import urllib.error
import urllib.request
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import BRIEFLY
from sqlalchemy.ext.asyncio import create_async_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fix_proxy import Proxy
    from sqlalchemy.ext.asyncio import AsyncEngine

PROMTOOL = shutil.which("promtool")


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body of a page; blocks."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def page(port: int, path: str) -> tuple[int, str]:
    """Return status and body of a page, from another thread."""
    return await asyncio.to_thread(get, port, path)


async def becomes(port: int, path: str, code: int) -> dict[str, Any]:
    """Wait until a page has this status; return what it says."""
    async with asyncio.timeout(BRIEFLY.total_seconds() * 2):
        while True:
            found, body = await page(port, path)
            if found == code:
                told: dict[str, Any] = json.loads(body)
                return told
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def engine_through(proxy: Proxy) -> AsyncIterator[AsyncEngine]:
    """Return an engine behind a proxy; psycopg warns of connections that died, and may."""
    made = create_async_engine(proxy.url)
    yield made
    await made.dispose()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


async def until_true(check: Callable[[], object]) -> None:
    """Wait until something of this process is true."""
    async with asyncio.timeout(BRIEFLY.total_seconds() * 2):
        while True:
            if check():
                return
            await asyncio.sleep(0.01)


def promtool_accepts(text: str) -> None:
    """Let Debian's promtool check metrics, with its lint; skip where it is not installed."""
    if PROMTOOL is None:
        pytest.skip("needs promtool: apt-get install prometheus")
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
