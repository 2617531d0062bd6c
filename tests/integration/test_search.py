"""Search as applications use it: three modes, filters, access lists, a reranker."""

from __future__ import annotations

import asyncio
import math
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from fix_pipelines import Hooks, completed, pipeline_with
from sqlalchemy.ext.asyncio import create_async_engine

from statemachine_pipeline.errors import (
    DefinitionError,
    DocumentNotFound,
    SearchRefused,
    SourceRefused,
)
from statemachine_pipeline.records import Chunk, Chunks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from uuid import UUID

    import psycopg
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline import Claim, Pipeline
    from statemachine_pipeline.records import Hit
    from statemachine_pipeline.testing import Databases

    Psql = psycopg.Connection[Any]


class ClockEmbedder:
    """Gives a text that begins with "at N:" the direction of hour N on a clock; else of hour 6."""

    dimensions = 2
    batch_size = 8
    fingerprint = "clock/1"

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [self._hand(text) for text in texts]

    async def embed_query(self, text: str) -> list[float]:
        return self._hand(text)

    def _hand(self, text: str) -> list[float]:
        hour = int(text[3 : text.index(":")]) if text.startswith("at ") else 6
        return [math.cos(hour * math.pi / 6), math.sin(hour * math.pi / 6)]


def clocked(engine: AsyncEngine, **own: Any) -> Pipeline:
    """Return a pipeline whose vectors are told by the texts."""
    return pipeline_with(engine, Hooks(), store_embeddings=ClockEmbedder(), **own)


async def published(
    pipeline: Pipeline, texts: Mapping[str, str], **metadata: Mapping[str, Any]
) -> dict[str, UUID]:
    """Publish texts as documents of these names, some with metadata; return their ids."""
    sent = {
        name: (
            await pipeline.submit(text.encode(), name=name, metadata=metadata.get(name))
        ).document_id
        for name, text in texts.items()
    }
    assert set(await completed(pipeline, *sent.values())) <= {"complete"}
    return sent


def names(hits: Sequence[Hit]) -> list[str]:
    """Return the names of the documents, in order."""
    return [hit.document.name for hit in hits]


NEAR_AND_WORDED = {
    "near": "at 1: the bakery opens early",
    "worded": "at 5: invoice CSROWR-12 was paid",
    "both": "at 2: an invoice from the baker",
    "far": "at 6: nothing of the kind",
}
QUESTION = "at 1: the invoices"


async def test_each_mode_ranks_by_what_it_compares(engine: AsyncEngine) -> None:
    """``vector`` compares meanings, ``text`` words; ``hybrid`` fuses the rankings."""
    pipeline = clocked(engine)
    await published(pipeline, NEAR_AND_WORDED)

    by_vector = await pipeline.search(QUESTION, mode="vector")
    by_words = await pipeline.search(QUESTION, mode="text")
    fused = await pipeline.search(QUESTION)

    assert names(by_vector) == ["near", "both", "worded", "far"]
    assert set(names(by_words)) >= {"worded", "both"}
    assert "far" not in names(by_words)
    assert fused[0].document.name in {"near", "both"}
    assert set(names(fused)) == set(NEAR_AND_WORDED)


async def test_a_hit_says_why_it_stands_where_it_stands(engine: AsyncEngine) -> None:
    """Scores and ranks by vector and by words are visible, and what they mean per mode."""
    pipeline = clocked(engine)
    await published(pipeline, NEAR_AND_WORDED)

    (vector, *_) = await pipeline.search(QUESTION, mode="vector")
    (text, *_) = await pipeline.search("CSROWR-12", mode="text")
    fused = {hit.document.name: hit for hit in await pipeline.search("at 1: CSROWR-12")}

    assert (vector.vector_rank, vector.text_rank, vector.text_score) == (1, None, None)
    assert vector.score == vector.vector_score == pytest.approx(1.0)
    assert (text.document.name, text.text_rank, text.vector_rank) == ("worded", 1, None)
    assert text.score == text.text_score > 0
    assert text.vector_score is None
    near, worded = fused["near"], fused["worded"]
    assert (worded.vector_rank, worded.vector_score) == (3, pytest.approx(-0.5))
    assert worded.score == pytest.approx((61 / 63 + 61 / (60 + (worded.text_rank or 0))) / 2)
    assert near.score > worded.score or near.text_rank is None


async def test_a_hit_knows_its_place(engine: AsyncEngine) -> None:
    """Index, offsets, page, headings and metadata of the chunk come with it."""

    async def split(claim: Claim) -> Chunks:
        text = (await claim.text()).text
        first = Chunk(index=0, text="at 9: other", start=0, end=11)
        second = Chunk(
            index=1,
            text="at 1: it",
            start=20,
            end=28,
            headings=("A", "B"),
            page=3,
            metadata={"part": "annex", "level": 2},
        )
        assert text
        return Chunks((first, second))

    pipeline = clocked(engine, store_chunks=split)
    await published(pipeline, {"one": "whatever"})

    (hit, _) = await pipeline.search("at 1: it")
    (annex,) = await pipeline.search("at 9: other", where={"chunk.part": "annex"})
    low = await pipeline.search("at 9: other", where={"chunk.level": {"$lt": 2}})

    assert (hit.index, hit.start, hit.end, hit.page) == (1, 20, 28, 3)
    assert (hit.headings, dict(hit.metadata)) == (("A", "B"), {"part": "annex", "level": 2})
    assert annex.chunk_id == hit.chunk_id
    assert low == []


@pytest.mark.parametrize(
    "question",
    [
        "paid & !paid | (invoice",
        "it's \\ 'quoted' \\' and \"so\"",
        "a:* <-> b <2> c",
        "'; DROP TABLE smp.chunk; --",
        "https://example.org/a?b=c&d='e'",
        "nul \x00 and half \ud83d an emoji",
        "%s %(text)s :limit {} 100%",
        "word " * 30_000,
    ],
)
async def test_no_character_of_a_question_is_an_operator(
    engine: AsyncEngine, question: str
) -> None:
    """Whatever people type is looked for as words."""
    pipeline = clocked(engine)
    await published(
        pipeline, {"one": f"invoice {question[:99]!r}".encode("ascii", "replace").decode()}
    )
    assert len(await pipeline.search(question)) == 1
    assert len(await pipeline.search(f"{question} invoice"[-9_000:], mode="text")) == 1


async def test_a_question_of_stop_words_has_no_words(engine: AsyncEngine) -> None:
    """'To be or not to be' finds nothing by words, and hybrid goes by meaning alone."""
    pipeline = clocked(engine)
    await published(pipeline, {"one": "at 6: to be or not to be"})
    assert await pipeline.search("to be or not to be", mode="text") == []
    (hit,) = await pipeline.search("to be or not to be")
    assert (hit.vector_rank, hit.text_rank, hit.score) == (1, None, 0.5)


LIBRARY = {name: f"at 1: {name}" for name in ("old", "new", "note", "bare")}
KEPT: dict[str, dict[str, Any]] = {
    "old": {"year": 1999, "kind": "letter", "tags": ["roof", "money"], "from": {"city": "Bern"}},
    "new": {"year": 2024, "kind": "letter", "tags": [], "signed": "2024-05-01"},
    "note": {"year": "2024", "kind": "note", "tags": "roof", "chunk.": None},
}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, {"old", "new", "note", "bare"}),
        ({"kind": "letter"}, {"old", "new"}),
        ({"kind": "letter", "year": 2024}, {"new"}),
        ({"year": "2024"}, {"note"}),
        ({"tags": ["roof"]}, {"old"}),
        ({"tags": {"$in": ["roof"]}}, {"old", "note"}),
        ({"from": {"city": "Bern"}}, {"old"}),
        ({"from.city": "Bern"}, set()),
        ({"year": {"$gte": 1999}}, {"old", "new"}),
        ({"year": {"$gt": 1999, "$lte": 2024}}, {"new"}),
        ({"year": {"$lt": -5}}, set()),
        ({"signed": {"$gte": "2024-01-01", "$lt": "2025-01-01"}}, {"new"}),
        ({"kind": {"$in": ["note", "memo"]}, "year": {"$gte": "2"}}, {"note"}),
        ({"kind": {"$in": []}}, set()),
        ({"missing": None}, set()),
        ({"missing": {"$in": [None]}}, set()),
        ({"kind' OR true --": "x"}, set()),
        ({'kind" == "note" || "a': {"$in": ["a"]}}, set()),
    ],
)
async def test_metadata_says_what_is_found(
    library: Pipeline, where: dict[str, Any], expected: set[str]
) -> None:
    """A name and its value, or operators never true of another type or a missing name."""
    for mode in ("vector", "text"):
        hits = await library.search("old new note bare", mode=mode, where=where)  # type: ignore[arg-type]
        assert set(names(hits)) == expected, mode


@pytest.fixture(scope="module")
def shelf(smp_databases: Databases) -> Iterator[str]:
    """The URL of a database with four documents, three with metadata, which is only read."""

    async def fill() -> None:
        engine = create_async_engine(url)
        await published(clocked(engine), LIBRARY, **KEPT)
        await engine.dispose()

    url = smp_databases.make()
    asyncio.run(fill())
    yield url
    smp_databases.drop(url)


@pytest.fixture
async def library(shelf: str) -> AsyncIterator[Pipeline]:
    """A pipeline to search them with."""
    engine = create_async_engine(shelf)
    yield clocked(engine)
    await engine.dispose()


async def test_a_value_that_no_row_can_have_is_refused(library: Pipeline) -> None:
    """What PostgreSQL has no place for is the caller's mistake, said in one line."""
    for given in ({"where": {"kind": "a\x00b"}}, {"tenant": "a\x00b"}):
        with pytest.raises(SearchRefused, match="PostgreSQL refused it"):
            await library.search("old", **given)  # type: ignore[arg-type]


async def test_access_lists_are_closed_by_default(engine: AsyncEngine) -> None:
    """With groups, a document is shown if its list names one of them, and not without a list."""
    pipeline = clocked(engine)
    lists: dict[str, Any] = {
        "staff": {"groups": ["staff"]},
        "board": {"groups": ["board", "audit"]},
        "empty": {"groups": []},
        "name": {"groups": "staff"},
        "odd": {"groups": {"staff": False}},
        "deep": {"groups": [["staff"]]},
        "none": {},
    }
    await published(pipeline, {name: f"at 1: paper {name}" for name in lists}, **lists)

    async def shown(groups: Sequence[str] | None) -> set[str]:
        vector = await pipeline.search("paper", groups=groups, limit=9, mode="vector")
        text = await pipeline.search("paper", groups=groups, limit=9, mode="text")
        assert set(names(vector)) == set(names(text))
        return set(names(vector))

    assert await shown(["staff"]) == {"staff"}
    assert await shown(["audit", "staff"]) == {"staff", "board"}
    assert await shown(['staff" || true || "']) == set()
    assert await shown([]) == set()
    assert await shown(None) == set(lists)


async def test_an_access_list_is_changed_without_new_bytes(engine: AsyncEngine, psql: Psql) -> None:
    """It holds at once; the document is not moved, and the same bytes change nothing."""
    pipeline = clocked(engine)
    text = "at 1: the paper"
    sent = await published(pipeline, {"a": text}, a={"groups": ["staff"], "kind": "note"})
    before = await pipeline.history(sent["a"])

    again = await pipeline.submit(text.encode(), name="a", metadata={"groups": ["public"]})
    assert again.outcome == "unchanged"
    assert names(await pipeline.search("paper", groups=["staff"])) == ["a"]
    await pipeline.operations.describe(sent["a"], {"groups": ["board"]})

    assert await pipeline.search("paper", groups=["staff"]) == []
    assert names(await pipeline.search("paper", groups=["board"], where={"kind": "note"})) == ["a"]
    assert await pipeline.history(sent["a"]) == before
    assert psql.execute("SELECT count(*) FROM work").fetchone() == (0,)


async def test_what_cannot_be_described_stays_as_it_is(engine: AsyncEngine) -> None:
    """A value that is no JSON, a document that is not there, and a deleted one are refused."""
    library = clocked(engine)
    await published(library, {"old": LIBRARY["old"]}, old=KEPT["old"])
    found = await library.documents(limit=1)
    one, describe = found[0], library.operations.describe
    with pytest.raises(SourceRefused, match="no JSON that can be stored"):
        await describe(one.id, {"year": float("nan")})
    with pytest.raises(DocumentNotFound):
        await describe(uuid.uuid4(), {"year": 1})
    async with library.engine.connect() as connection:
        await describe(one.id, {"year": 1}, session=connection)
    assert (await library.get(one.id)).metadata == one.metadata

    await library.apply("delete", one.id, reason="a test")
    with pytest.raises(SourceRefused, match="deleted"):
        await describe(one.id, {"year": 1})
    assert (await library.get(one.id)).metadata == {}


async def test_only_the_documents_named_are_searched(library: Pipeline) -> None:
    """``documents`` narrows, beside the tenant and all other filters."""
    ids = {one.name: one.id for one in await library.documents()}
    assert names(await library.search("old", documents=[ids["bare"]])) == ["bare"]
    assert await library.search("old", documents=[]) == []
    assert await library.search("old", documents=[ids["bare"]], tenant="theirs") == []


async def test_a_reranker_has_the_last_word(library: Pipeline) -> None:
    """It is given more candidates than are returned, and its scores are the hits'."""
    given: list[tuple[str, list[str]]] = []

    async def longest_name_first(question: str, hits: Sequence[Hit]) -> list[float]:
        given.append((question, names(hits)))
        return [len(hit.document.name) for hit in hits]

    hits = await library.search("old", limit=2, rerank=longest_name_first)

    assert given == [("old", given[0][1])]
    assert len(given[0][1]) == 4
    assert [(hit.score, len(hit.document.name)) for hit in hits] == [(4, 4), (4, 4)]
    assert all(hit.vector_rank for hit in hits)

    async def lazy(_question: str, _hits: Sequence[Hit]) -> list[float]:
        return []

    with pytest.raises(SearchRefused, match="each of 4 passages"):
        await library.search("old", rerank=lazy)


async def test_a_reranker_is_not_asked_about_nothing(library: Pipeline) -> None:
    """A model that refuses an empty list does not make an empty answer an error."""

    async def strict(_question: str, hits: Sequence[Hit]) -> list[float]:
        assert hits
        return [1.0] * len(hits)

    assert await library.search("old", documents=[], rerank=strict) == []


async def test_words_need_no_embedder(engine: AsyncEngine) -> None:
    """A database whose hooks are elsewhere is still searched by words; the other modes say why."""
    from statemachine_pipeline import Pipeline as Plain

    await published(clocked(engine), LIBRARY)
    async with Plain(engine, lifecycle=None) as looking:
        assert names(await looking.search("note", mode="text")) == ["note"]
        with pytest.raises(DefinitionError, match="only mode='text' can search"):
            await looking.search("note")


async def test_all_of_a_search_sees_one_moment(engine: AsyncEngine, psql: Psql) -> None:
    """Readers never see half a document, nor two versions of one."""
    pipeline = clocked(engine)
    await published(pipeline, {"one": "at 6: some words"})

    def meanwhile(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "ts_rank" in statement:
            psql.execute("DELETE FROM smp.chunk")

    sa.event.listen(engine.sync_engine, "before_cursor_execute", meanwhile)
    (hit,) = await pipeline.search("some words")
    assert (hit.vector_rank, hit.text_rank) == (1, 1)
    assert await pipeline.search("some words") == []


async def test_a_passage_of_any_size_is_published(engine: AsyncEngine, psql: Psql) -> None:
    """A tsvector holds 1 MB; of a longer passage the first 100,000 characters are searched."""

    async def whole(claim: Claim) -> Chunks:
        text = (await claim.text()).text
        return Chunks((Chunk(index=0, text=text, start=0, end=len(text)),))

    pipeline = clocked(engine, store_chunks=whole)
    many = " ".join(f"w{number:x}" for number in range(400_000))
    await published(pipeline, {"long": f"at 1: {many} finale"})

    assert len(await pipeline.search("w1f", mode="text")) == 1
    assert await pipeline.search("finale", mode="text") == []
    (size,) = psql.execute("SELECT length(text) FROM chunk").fetchone() or (0,)
    assert size > 2_000_000


async def test_the_language_is_the_schemas(engine: AsyncEngine, psql: Psql) -> None:
    """The configuration ``words`` of the schema is what column and question are read by."""
    pipeline = clocked(engine)
    await published(pipeline, {"one": "at 1: Die Häuser"})
    assert await pipeline.search("Haus", mode="text") == []

    psql.execute(
        "ALTER TEXT SEARCH CONFIGURATION smp.words "
        "ALTER MAPPING FOR asciiword, word WITH german_stem"
    )
    psql.execute("UPDATE smp.chunk SET text = text")

    assert len(await pipeline.search("Haus", mode="text")) == 1
