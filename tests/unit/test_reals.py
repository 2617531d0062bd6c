"""Vectors in PostgreSQL's binary form, made without a loop in Python."""

from __future__ import annotations

import pytest
from psycopg.adapt import PyFormat
from psycopg.types.array import ListBinaryDumper
from psycopg.types.numeric import Float4

from statemachine_pipeline.database.reals import Reals, _RealsDumper


@pytest.mark.parametrize("vectors", [[[1.5]], [[0.1, -2.0, 3e38], [1e-37, 0.0, 7.25]]])
def test_the_bytes_are_those_that_psycopg_makes(vectors: list[list[float]]) -> None:
    """One ``real[]`` in binary, as psycopg would send a list of ``Float4``."""
    slow = [Float4(number) for vector in vectors for number in vector]
    dumper = ListBinaryDumper(list).upgrade(slow, PyFormat.BINARY)
    assert bytes(_RealsDumper(Reals).dump(Reals(vectors))) == dumper.dump(slow)
