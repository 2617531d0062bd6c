"""Every edge of a lifecycle is walked by the shortest path from ``submit``, on the real store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from redacted import RedactedLifecycle
from sqlalchemy.ext.asyncio import create_async_engine
from statemachine import State

from statemachine_pipeline import DocumentLifecycle, Facts, Lifecycle, Pipeline, by_hand
from statemachine_pipeline.testing import every_transition, paths, walk
from statemachine_pipeline.testing.stand_ins import with_stand_ins
from statemachine_pipeline.testing.verdicts import taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from statemachine_pipeline.testing import Databases, Path

on_one_loop = pytest.mark.asyncio(loop_scope="module")
LIFECYCLES = (DocumentLifecycle, RedactedLifecycle)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pipelines(
    smp_databases: Databases,
) -> AsyncIterator[dict[type[Lifecycle], Pipeline]]:
    """A migrated pipeline for each lifecycle, on one database of this module's own."""
    url = smp_databases.make(None)
    engine = create_async_engine(url)
    made = {}
    for number, lifecycle in enumerate((DocumentLifecycle, SignedLifecycle)):
        hooks = with_stand_ins(lifecycle.graph, BY_HAND if lifecycle is SignedLifecycle else {})
        made[lifecycle] = Pipeline(engine, lifecycle=lifecycle, hooks=hooks, schema=f"smp{number}")
        await made[lifecycle].migrate()
    yield made
    await engine.dispose()
    smp_databases.drop(url)


@on_one_loop
@every_transition(DocumentLifecycle)
async def test_every_edge_of_the_shipped_lifecycle_can_be_walked(
    path: Path, pipelines: dict[type[Lifecycle], Pipeline]
) -> None:
    """'One pytest id per edge, by shortest path', and the history in the database is the path."""
    pipeline = pipelines[DocumentLifecycle]
    document = await walk(path, pipeline)
    assert [one.trigger for one in await pipeline.history(document)] == list(path.triggers)
    assert (await pipeline.get(document)).state == path.last.to_state


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
def test_there_is_one_path_for_every_edge(lifecycle: type[Lifecycle]) -> None:
    """'Restarts included': each path is legal, ends with its edge, and there is no shorter one."""
    graph = lifecycle.graph
    found = {path.id: path for path in paths(lifecycle)}
    assert {path.last for path in found.values()} == {*graph.edges, *graph.restarts}
    for path in found.values():
        assert [one.from_state for one in path.edges[1:]] == [o.to_state for o in path.edges[:-1]]
    assert found["uploaded>cancel>cancelled"].triggers == ("submit", "cancel")
    assert found["deleted>revise>uploaded"].triggers[2:] == ("delete", "revise")


@pytest.mark.parametrize("lifecycle", LIFECYCLES)
def test_facts_of_a_path_open_just_its_edges(lifecycle: type[Lifecycle]) -> None:
    """'Facts by which exactly that edge is taken', at every step."""
    graph = lifecycle.graph
    for path in paths(lifecycle):
        for edge, facts in zip(path.edges, path.facts, strict=True):
            if edge in graph.edges:
                assert taken(graph, str(edge.from_state), edge.trigger, facts) == edge


@every_transition(DocumentLifecycle)
def test_a_test_that_is_not_async_takes_paths_too(path: Path) -> None:
    """'Works for sync and async tests', with ids that read like edges."""
    assert str(path).startswith("submit")
    assert path.id == path.last.code.removeprefix(">")


def never(facts: Facts) -> bool:
    """Agree to nothing."""
    return False


class ShutLifecycle(Lifecycle):
    """An edge that no facts open."""

    waiting = State(initial=True)
    ended, lost = State(final=True), State(final=True)

    lose = waiting.to(lost, cond=never)
    finish = waiting.to(ended)


def test_an_edge_that_nothing_opens_is_skipped_and_named() -> None:
    """'An edge that no facts open is there too, and skipped': not silently left out."""
    mark = every_transition(ShutLifecycle).mark
    skipped = {one.id for one in mark.args[1] if one.marks}
    assert "waiting>lose>lost" in skipped
    assert "waiting>finish>ended" not in skipped


class SignedLifecycle(Lifecycle):
    """People choose one of two ways out."""

    waiting = State(initial=True)
    signed, refused = State(final=True), State(final=True)

    sign = waiting.to(signed)
    refuse = waiting.to(refused)


BY_HAND = {"sign": by_hand, "refuse": by_hand}


def test_people_take_any_of_several_ways_and_never_fail() -> None:
    """'Of several ways out people take any, and a worker the first that is open.'."""
    served = {path.id for path in paths(SignedLifecycle)}
    chosen = {path.id for path in paths(SignedLifecycle, BY_HAND)}
    assert chosen - served == {"waiting>refuse>refused", "refused>reprocess>waiting"} | {
        f"refused>{restart}" for restart in ("revise>waiting", "delete>deleted")
    }
    assert {"waiting>retry>waiting", "waiting>fail>dead_letter"} <= served - chosen
    skipped = {
        one.id for one in every_transition(SignedLifecycle, BY_HAND).mark.args[1] if one.marks
    }
    assert "waiting>fail>dead_letter" in skipped
    assert "waiting>refuse>refused" not in skipped


@on_one_loop
@every_transition(SignedLifecycle, BY_HAND)
async def test_every_edge_that_people_take_can_be_walked(
    path: Path, pipelines: dict[type[Lifecycle], Pipeline]
) -> None:
    """'People ask for what only people take.'."""
    await walk(path, pipelines[SignedLifecycle])


@on_one_loop
async def test_a_walk_that_strays_from_its_path_fails(
    pipelines: dict[type[Lifecycle], Pipeline],
) -> None:
    """'Asserting that history equals the path': facts that open another edge are found out."""
    path = next(one for one in paths(DocumentLifecycle) if one.last.trigger == "accept_parse")
    wrong = type(path)(edges=path.edges, facts=(*path.facts[:-1], Facts()))
    with pytest.raises(AssertionError, match="its history is"):
        await walk(wrong, pipelines[DocumentLifecycle])
