"""Many documents in one statement come to what each would have come to by itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fix_pipelines import completed, hand, path_of, pipeline_with, until_blocked
from sqlalchemy.ext.asyncio import AsyncSession

from statemachine_pipeline import Incoming, sources
from statemachine_pipeline.database import arrivals
from statemachine_pipeline.records import Refused, Submitted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    Psql = psycopg.Connection[Any]

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
COLUMNS = """
    SELECT d.name, d.tenant, d.size_bytes, d.path, d.content_sha256 = d.input_sha256, d.metadata,
           d.correlation_id, d.state, d.version, d.life, d.generation, w.lane, w.priority, w.state,
           w.tenant, CASE WHEN w.lane = 'deferred' THEN w.run_at END, b.content,
           b.sha256 = d.content_sha256, t.trigger, t.to_state, t.by, t.correlation_id
    FROM document d JOIN work w ON w.document_id = d.id JOIN transition t ON t.document_id = d.id
    LEFT JOIN blob b ON b.document_id = d.id ORDER BY d.source_uri
"""


def outcomes(answers: list[Submitted | Refused]) -> list[str]:
    """Say what became of each."""
    return [one.outcome if isinstance(one, Submitted) else "refused" for one in answers]


def counts(psql: Psql) -> tuple[int, ...]:
    """Count the rows that a submitted document has."""
    tables = ("document", "transition", "work", "blob")
    found = (psql.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables)
    return tuple(row[0] for row in found if row)


def variety(folder: Path) -> list[Incoming]:
    """Return documents that use every argument, one kept by its path among them."""
    large = folder / "large.txt"
    large.write_text("more than is stored")
    return [
        Incoming(b"a", source_uri="mem:1", name="a.txt", correlation_id="one"),
        Incoming(b"b", source_uri="mem:2", metadata={"k": ["ä\\u0000", 1.5]}, correlation_id="2"),
        Incoming(b"c", source_uri="mem:3", priority=-7, correlation_id="3"),
        Incoming(b"d", source_uri="mem:4", not_before=LATER, priority=3, correlation_id="4"),
        Incoming(b"", source_uri="mem:5", not_before=LATER - timedelta(days=1), correlation_id="5"),
        Incoming(large, source_uri="mem:6", correlation_id="6"),
    ]


async def test_many_leave_the_same_rows_as_one_by_one(
    engine: AsyncEngine, psql: Psql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Document, history, work and bytes: nothing differs but ids and times."""
    monkeypatch.setattr(sources, "BLOB_LIMIT_BYTES", 10)
    pipeline, items = pipeline_with(engine), variety(tmp_path)
    for item in items:
        values = {name: getattr(item, name) for name in item.__slots__ if name != "_"}
        await pipeline.submit(values.pop("source"), tenant="ours", **values)
    singly = psql.execute(COLUMNS).fetchall()
    psql.execute("TRUNCATE work; DELETE FROM document; DELETE FROM transition")
    answers = await pipeline.operations.submit_many(items, tenant="ours")
    assert psql.execute(COLUMNS).fetchall() == singly
    assert len(singly) == len(items)
    assert outcomes(answers) == ["new"] * len(items)
    ids = [one.document_id for one in answers if isinstance(one, Submitted)]
    stored = psql.execute("SELECT id FROM document ORDER BY source_uri").fetchall()
    assert ids == [row[0] for row in stored]


async def test_each_of_many_is_recognised(engine: AsyncEngine, psql: Psql) -> None:
    """new, changed and unchanged, in the order of the items, whatever the others are."""
    pipeline = pipeline_with(engine)
    for name in (b"a", b"b", b"c"):
        await pipeline.submit(name, source_uri=f"mem:{name.decode()}")
    answers = await pipeline.operations.submit_many(
        [
            Incoming(b"new", source_uri="mem:d"),
            Incoming(b"b2", source_uri="mem:b", name="second", priority=4),
            Incoming(b"a", source_uri="mem:a", name="ignored"),
            Incoming(b"c2", source_uri="mem:c"),
        ]
    )
    assert outcomes(answers) == ["new", "changed", "unchanged", "changed"]
    names = dict(psql.execute("SELECT source_uri, name FROM document").fetchall())
    assert names["mem:b"] == "second"
    assert names["mem:a"] != "ignored"
    changed = answers[1]
    assert isinstance(changed, Submitted)
    assert path_of(psql, changed.document_id) == ["submit", "revise"]
    assert psql.execute("SELECT content FROM blob ORDER BY content").fetchall() == [
        (b"a",),
        (b"b2",),
        (b"c2",),
        (b"new",),
    ]
    assert set(await completed(pipeline)) == set()
    assert await pipeline.counts() == {"complete": 4}


async def test_twins_in_one_batch_are_taken_one_after_another(
    engine: AsyncEngine, psql: Psql
) -> None:
    """A source that was given twice is seen by the second as the first left it."""
    pipeline = pipeline_with(engine)
    await pipeline.submit(b"old", source_uri="mem:known")
    answers = await pipeline.operations.submit_many(
        [
            Incoming(b"1", source_uri="mem:a"),
            Incoming(b"1", source_uri="mem:a"),
            Incoming(b"2", source_uri="mem:a"),
            Incoming(b"1", source_uri="mem:a"),
            Incoming(b"old", source_uri="mem:known"),
            Incoming(b"young", source_uri="mem:known"),
        ]
    )
    assert outcomes(answers) == ["new", "unchanged", "changed", "changed", "unchanged", "changed"]
    kept = "SELECT content FROM blob JOIN document ON id = document_id WHERE source_uri = %s"
    assert psql.execute(kept, ["mem:a"]).fetchall() == [(b"1",)]
    assert psql.execute(kept, ["mem:known"]).fetchall() == [(b"young",)]
    generations = psql.execute("SELECT generation FROM document ORDER BY source_uri").fetchall()
    assert generations == [(3,), (2,)]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (Incoming("/nowhere/at/all.txt"), "there is no such file"),
        (Incoming(b"x", source_uri="a\x00b"), "control characters"),
        (Incoming(b"x", metadata={"k": float("nan")}), "no JSON"),
        (Incoming(b"x", metadata={"k": object()}), "no JSON"),
        (Incoming(b"x", metadata={"k": "a\x00"}), "NUL"),
        (Incoming(b"x", metadata={"k": "\ud800"}), "no JSON"),
        (Incoming(b"x", priority=40_000), "from -32768 to 32767"),
        (Incoming(b"x", correlation_id="a\x00"), "cannot be stored"),
        (Incoming(b"x", not_before=datetime(2030, 1, 1)), "no time zone"),  # noqa: DTZ001
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_taken_is_refused_by_itself(
    engine: AsyncEngine, psql: Psql, item: Incoming, says: str
) -> None:
    """Nothing of it is written, the others go on, and ``submit`` says the same."""
    pipeline = pipeline_with(engine)
    answers = await pipeline.operations.submit_many([b"first", item, b"last"])
    assert outcomes(answers) == ["new", "refused", "new"]
    refused = answers[1]
    assert isinstance(refused, Refused)
    assert says in refused.reason
    assert counts(psql) == (2, 2, 2, 2)
    values = {name: getattr(item, name) for name in item.__slots__ if name not in {"_", "source"}}
    with pytest.raises(sources.SourceRefused, match=says):
        await pipeline.submit(item.source, **values)


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_many_commit_or_vanish_with_the_callers_session(
    engine: AsyncEngine, psql: Psql, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All batches are part of the caller's transaction, refused ones do not break it."""
    monkeypatch.setattr(arrivals, "BATCH", 2)
    pipeline = pipeline_with(engine)
    async with AsyncSession(engine) as session:
        answers = await pipeline.operations.submit_many(
            [b"1", b"2", "/nowhere/at/all", b"3", b"4", b"5"], session=session
        )
        assert counts(psql) == (0, 0, 0, 0)
        await getattr(session, end)()
    assert outcomes(answers) == ["new", "new", "refused", "new", "new", "new"]
    assert counts(psql) == ((5, 5, 5, 5) if end == "commit" else (0, 0, 0, 0))


async def test_batches_before_an_error_are_kept_and_found_again(
    engine: AsyncEngine, psql: Psql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a session each batch commits by itself; the same again finds them unchanged."""
    monkeypatch.setattr(arrivals, "BATCH", 2)
    pipeline = pipeline_with(engine)
    items = [b"1", b"2", b"3", b"4"]

    def breaking() -> Iterator[bytes]:
        yield from items[:3]
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        await pipeline.operations.submit_many(breaking())
    assert counts(psql) == (2, 2, 2, 2)
    answers = await pipeline.operations.submit_many(items)
    assert outcomes(answers) == ["unchanged", "unchanged", "new", "new"]


async def test_a_batch_is_bounded_in_bytes_too(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large documents do not gather in memory: a batch closes once it holds enough."""
    monkeypatch.setattr(arrivals, "BATCH_BYTES", 10)
    incoming = iter([Incoming(b"%d" % n * 6) for n in range(5)])
    sizes = []
    while batch := arrivals.next_batch(incoming, "default"):
        sizes.append(len(batch))
    assert sizes == [2, 2, 1]


async def test_two_callers_with_the_same_documents_do_not_deadlock(
    engine: AsyncEngine, psql: Psql
) -> None:
    """In id order, so that two batches wait for each other and not in a circle."""
    pipeline = pipeline_with(engine)
    items = [Incoming(b"%d" % n, source_uri=f"mem:{n}") for n in range(40)]
    async with engine.connect() as first:
        await pipeline.operations.submit_many(items[::2], session=first)
        second = asyncio.create_task(pipeline.operations.submit_many(reversed(items)))
        await until_blocked(psql)
        await pipeline.operations.submit_many(items[::2][::-1], session=first)
        await first.commit()
    assert sorted(outcomes(await second)) == ["new"] * 20 + ["unchanged"] * 20
    many = [pipeline.operations.submit_many(items[n:] + items[:n]) for n in range(0, 40, 5)]
    assert {o for answers in await asyncio.gather(*many) for o in outcomes(answers)} == {
        "unchanged"
    }


async def test_a_worker_takes_them_by_priority(engine: AsyncEngine) -> None:
    """``priority``: smaller is taken first."""
    pipeline = pipeline_with(engine)
    await pipeline.operations.submit_many(
        [Incoming(b"%d" % n, name=str(n), priority=-n) for n in range(4)]
    )
    worker = await hand(pipeline)
    taken = [(await worker.claim("queue_parse", slots=1))[0][0].document.name for _ in range(4)]
    assert taken == ["3", "2", "1", "0"]


async def test_one_document_is_not_taken_for_its_letters(engine: AsyncEngine) -> None:
    """A path or bytes in place of several is a mistake, not a hundred documents."""
    with pytest.raises(TypeError, match="there is submit"):
        await pipeline_with(engine).operations.submit_many("notes.txt")
    assert await pipeline_with(engine).operations.submit_many([]) == []
