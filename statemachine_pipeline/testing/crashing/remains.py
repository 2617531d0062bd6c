"""What processes left in the database, and which promises that breaks."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql

from statemachine_pipeline.graph import RETRY
from statemachine_pipeline.testing import histories
from statemachine_pipeline.testing.clock import move
from statemachine_pipeline.testing.databases import EMPTIED, connect
from statemachine_pipeline.testing.histories import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    import psycopg

    from statemachine_pipeline.graph import Graph

# What is locked is moved right now, by a process that could not end while this waits for it.
_DUE = """
UPDATE {s}.work SET run_at = now() WHERE document_id IN (
    SELECT document_id FROM {s}.work WHERE lane = 'deferred' AND run_at > now()
    FOR UPDATE SKIP LOCKED)
"""
_HISTORIES = """
SELECT d.id, d.name, d.state, d.version, t.version, t.life, t.trigger, t.from_state, t.to_state,
       t.attempt, t.error
FROM {s}.document d LEFT JOIN {s}.transition t ON t.document_id = d.id
ORDER BY d.created_at, d.id, t.version
"""
_WAITING = """
SELECT d.name, w.state, w.lane FROM {s}.work w JOIN {s}.document d ON d.id = w.document_id
ORDER BY d.name
"""
# By content: of two documents with the same words either may come first and be published.
_CONTENTS = """
SELECT d.state,
       (SELECT string_agg(p.text, '' ORDER BY p.generation)
        FROM {s}.parsed_document p WHERE p.document_id = d.id),
       (SELECT string_agg(format('%s %s %s', c.index, c.text, v.vector::text), E'\n'
                          ORDER BY c.index, c.text, v.embedder_id)
        FROM {s}.chunk c LEFT JOIN {s}.chunk_vector v ON v.chunk_id = c.id
        WHERE c.document_id = d.id)
FROM {s}.document d
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One document and its history."""

    name: str
    state: str
    version: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"{self.name}, which stands in {self.state!r} at version {self.version}:"]
        return "\n".join([*lines, *map(str, self.steps)])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What stands in the database.

    Attributes:
        told: The documents, by id.
        waiting: Who does not rest, where and in which lane; but for what a person has to move.
        contents: How often each state, text and published passages with vectors are there.
    """

    told: Mapping[UUID, Told]
    waiting: tuple[tuple[str, str, str], ...]
    contents: Counter[tuple[str, str | None, str | None]]

    @property
    def retries(self) -> int:
        """How many attempts failed and were made again."""
        return sum(s.trigger == RETRY for told in self.told.values() for s in told.steps)


class Ground:
    """One schema as a test prepares and reads it, beside the processes that work on it.

    Args:
        url: Of the database, as SQLAlchemy writes it.
        schema: The pipeline's.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._connection, self._schema = connect(url), schema
        self._connection.execute("SET lock_timeout = '10s'")

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()

    def count(self) -> int:
        """Return how many documents there are; none where there are no tables."""
        if self._ask("SELECT to_regclass('{s}.document')") == [(None,)]:
            return 0
        return int(self._ask("SELECT count(*) FROM {s}.document")[0][0])

    def stored(self) -> int:
        """Return a number that grows whenever anything is stored on this server."""
        return int(self._ask("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")[0][0])

    def empty(self) -> None:
        """Remove every document and all that was noted of workers and providers."""
        with self._connection.transaction():  # no document goes without its history
            for table in EMPTIED:
                name = sql.Identifier(self._schema, table)
                self._connection.execute(sql.SQL("DELETE FROM {}").format(name))

    def let_an_hour_pass(self) -> None:
        """Make every time that is compared with the clock an hour older."""
        move(self._connection, self._schema, timedelta(hours=1))

    def let_waits_pass(self) -> None:
        """Make due what waits for its time."""
        self._run(_DUE)

    def look(self) -> Remains:
        """Return what stands there now."""
        told = {}
        rows = self._ask(_HISTORIES)
        for (id_, name, state, version), found in itertools.groupby(rows, key=lambda row: row[:4]):
            names = [field.name for field in dataclasses.fields(Step)]
            values = [dict(zip(names, row[4:], strict=True)) for row in found if row[4] is not None]
            steps = tuple(Step(**given) for given in values)
            told[id_] = Told(name=name, state=state, version=version, steps=steps)
        waiting = tuple(row for row in self._ask(_WAITING) if row[2] != "held")
        return Remains(told=told, waiting=waiting, contents=Counter(self._ask(_CONTENTS)))

    def _ask(self, query: LiteralString) -> Sequence[Any]:
        return self._run(query).fetchall()

    def _run(self, statements: LiteralString) -> psycopg.Cursor[Any]:
        return self._connection.execute(sql.SQL(statements).format(s=sql.Identifier(self._schema)))


def broken(remains: Remains, clean: Remains, graph: Graph, *, most_retries: int) -> Iterator[str]:
    """Name each promise that does not hold, with what was found.

    Args:
        remains: What was left.
        clean: What is left where nothing happens.
        graph: Of which every history is a path.
        most_retries: Attempts that may have failed beyond those of ``clean``.
    """
    lost = [told.name for id_, told in clean.told.items() if id_ not in remains.told]
    if lost:
        yield f"no document is lost: {', '.join(lost)} not found"
    for name, state, lane in remains.waiting:
        yield f"everything rests: {name} is {lane} at {state!r}"
    for told in remains.told.values():
        for problem in histories.broken(told.steps, graph, state=told.state, version=told.version):
            yield f"every history is a path of {graph.name}: {problem}\n{told}"
            break  # what follows is often only what follows from it
    if remains.retries - clean.retries > most_retries:
        extra = remains.retries - clean.retries
        yield f"at most {most_retries} attempts fail of it: {extra} did"
    for kind, more, less in (("too much", remains, clean), ("missing", clean, remains)):
        for (state, text, passages), count in (more.contents - less.contents).items():
            what = f"{count} document in {state!r} with text {text!r} and passages {passages!r}"
            yield f"the products are those of a clean run: {kind}: {what}"
