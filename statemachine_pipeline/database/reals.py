"""Vectors on their way to PostgreSQL: one ``real[]`` in binary, made without a loop in Python.

As a list of floats the same numbers take psycopg and the server 20 to 35 times as long: 1.6 s
instead of 45 ms for 256 vectors of 3,072 dimensions, during which nothing else runs.
"""

from __future__ import annotations

import array
import itertools
import struct
import sys
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from psycopg import adapters, pq
from psycopg.adapt import Dumper

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

_REAL = adapters.types["float4"]
_HEADER = struct.Struct("!5i")


class Reals:
    """Numbers of many vectors, one after the other, rounded to single precision."""

    __slots__ = ("numbers",)

    def __init__(self, vectors: Iterable[Sequence[float]]) -> None:
        self.numbers = array.array("f", itertools.chain.from_iterable(vectors))


class RealArray(sa.types.UserDefinedType[Reals]):
    """The type of a parameter that is given as ``Reals``."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return its name in SQL."""
        return "REAL[]"


class _RealsDumper(Dumper):
    """Writes PostgreSQL's binary form of a flat array: a header, then length and bytes of each."""

    format = pq.Format.BINARY
    oid = _REAL.array_oid

    def dump(self, obj: Reals) -> bytearray:
        numbers = obj.numbers
        count = len(numbers)
        if sys.byteorder == "little":
            numbers = numbers[:]
            numbers.byteswap()
        raw = numbers.tobytes()
        written = bytearray(_HEADER.size + 8 * count)
        _HEADER.pack_into(written, 0, 1, 0, _REAL.oid, count, 1)
        body = memoryview(written)[_HEADER.size :]
        body[3::8] = b"\x04" * count  # every length is 4, in four bytes of which three are zero
        for place in range(4):
            body[4 + place :: 8] = raw[place::4]
        return written


async def take_reals(connection: AsyncConnection) -> None:
    """Teach a connection to send ``Reals``; an engine that was handed in cannot know them."""
    pooled = await connection.get_raw_connection()
    driver: Any = pooled.driver_connection
    driver.adapters.register_dumper(Reals, _RealsDumper)
