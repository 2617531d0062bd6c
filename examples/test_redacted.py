"""The proof of a lifecycle of one's own: what a user of ``redacted.py`` would keep as its tests.

Run it from this folder. It needs the extra ``testing``, and pytest-asyncio in its mode ``auto``;
without SMP_TEST_DATABASE an embedded PostgreSQL is started.

    python -m pytest --lifecycle-cov=redacted:RedactedLifecycle test_redacted.py
"""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from hypothesis import settings
from redacted import RedactedLifecycle, pipeline, redact

from statemachine_pipeline import Pipeline
from statemachine_pipeline.testing import (
    Databases,
    Path,
    Row,
    assert_history,
    assert_lint_clean,
    assert_mutants_killed,
    assert_precedes,
    crash_everywhere,
    drain,
    every_transition,
    lifecycle_machine,
    model_check,
    walk,
)

HOOKS = {"redact": redact}
LETTER, SUSPECT = b"Write to mira@library.example, please.", b"Write to mira@localhost, please."

pytestmark = pytest.mark.smp_pipeline(lifecycle=RedactedLifecycle, hooks=HOOKS)


def test_no_branch_is_forgotten() -> None:
    assert_lint_clean(pipeline)
    assert_precedes(RedactedLifecycle, "pii_redacted", "complete")


def is_redacted_when_complete(row: Row) -> bool:
    return row.state != "complete" or "pii_redacted" in row.passed


def test_no_order_of_events_breaks_a_promise() -> None:
    promise = {"what is complete was redacted": is_redacted_when_complete}
    model_check(RedactedLifecycle, HOOKS, always=promise).raise_for_violation()
    assert_mutants_killed(RedactedLifecycle, HOOKS)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def redacting(smp_databases: Databases) -> AsyncIterator[Pipeline]:
    url = smp_databases.make(RedactedLifecycle, hooks=HOOKS)
    async with pipeline.at(url) as opened:
        yield opened


@pytest.mark.asyncio(loop_scope="module")
@every_transition(RedactedLifecycle, HOOKS)
async def test_every_edge_can_be_walked(path: Path, redacting: Pipeline) -> None:
    await walk(path, redacting)


TestRedacted = lifecycle_machine(RedactedLifecycle, hooks={"queue_embedding": None}).TestCase
TestRedacted.settings = settings(TestRedacted.settings, max_examples=4)


async def test_what_still_looks_suspicious_is_kept_back(
    smp_pipeline: Callable[..., Pipeline],
) -> None:
    async with smp_pipeline() as redacting:
        suspect = (await redacting.submit(SUSPECT)).document_id
        assert await drain(redacting) == {"dead_letter": 1}
        way = ["submit", "queue_parse", "finish_parse", "accept_parse"]
        await assert_history(redacting, suspect, [*way, "parse_validated>fail>dead_letter"])


async def submit_letter(redacting: Pipeline) -> None:
    await redacting.submit(LETTER, name="letter.txt")


async def is_redacted(redacting: Pipeline) -> None:
    (hit,) = await redacting.search("write to", mode="text")
    assert hit.text == "Write to [e-mail], please."


async def test_a_process_may_be_killed_at_any_step(smp_database: str) -> None:
    await crash_everywhere(pipeline.at(smp_database), submit_letter, check=is_redacted, most=8)
