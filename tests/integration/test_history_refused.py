"""PostgreSQL refuses every illegal history, whatever client writes.

Each test writes as the superuser who owns the tables, by plain SQL. Beside what is refused stands
the nearest proper write, so that it is the named check that refuses and not a slip of the test.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from fix_postgres import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from statemachine_pipeline.testing import Databases

Psql = psycopg.Connection[Any]

INITIAL = "uploaded"
_DOCUMENT = """
    INSERT INTO document (id, tenant, source_uri, name, state, version, life, generation,
                          size_bytes, content_sha256, input_sha256, correlation_id)
    VALUES (%(id)s, 't', 'mem:' || %(id)s, 'n', %(state)s, %(version)s, 1, 1, 1, 's', 's', 'c')
"""
_HISTORY = """
    INSERT INTO transition (document_id, version, life, generation, trigger, from_state, to_state,
                            correlation_id)
    VALUES (%(id)s, %(version)s, 1, 1, %(trigger)s, %(from_state)s, %(to_state)s, 'c')
"""


@pytest.fixture(scope="module")
def superuser(smp_databases: Databases) -> Iterator[Psql]:
    """A connection to one database for all tests: a new one for each took most of their time."""
    url = smp_databases.make()
    with connect(url) as connection:
        connection.execute("SET search_path TO smp, public")
        yield connection
    smp_databases.drop(url)


@pytest.fixture
def psql(superuser: Psql) -> Iterator[Psql]:
    """That connection; what a test wrote is taken away behind the back of what refuses."""
    yield superuser
    superuser.execute(
        "SET session_replication_role = replica; DELETE FROM document; DELETE FROM transition; "
        "RESET session_replication_role"
    )


def _birth(psql: Psql, **changes: Any) -> UUID:
    """Write a document and its first history row in one statement, as the library does."""
    proper: dict[str, Any] = {
        "id": uuid.uuid4(),
        "version": 1,
        "trigger": "submit",
        "from_state": None,
        "to_state": INITIAL,
    }
    values = proper | changes
    values.setdefault("state", values["to_state"])
    psql.execute(f"WITH told AS ({_HISTORY}) {_DOCUMENT}", values)
    return values["id"]


def _step(psql: Psql, document: UUID, **changes: Any) -> None:
    """Write one more row of history and move the document, in one statement."""
    proper: dict[str, Any] = {
        "id": document,
        "version": 2,
        "trigger": "queue_parse",
        "from_state": INITIAL,
        "to_state": "parse_queued",
    }
    values = proper | changes
    psql.execute(
        f"WITH told AS ({_HISTORY}) "
        "UPDATE document SET state = %(to_state)s, version = %(version)s WHERE id = %(id)s",
        values,
    )


def _standing(psql: Psql, document: UUID) -> tuple[Any, ...]:
    found = psql.execute("SELECT state, version FROM document WHERE id = %s", [document])
    return tuple(found.fetchone() or ())


def test_a_birth_by_submit_is_accepted(psql: Psql) -> None:
    """``submit`` is the first row of every history."""
    document = _birth(psql)
    assert _standing(psql, document) == (INITIAL, 1)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"trigger": "requeue"}, "transition_edge_is_declared"),
        ({"trigger": "queue_parse", "to_state": "parse_queued"}, "transition_edge_is_declared"),
        ({"to_state": "parse_queued"}, "transition_edge_is_declared"),
        ({"trigger": None}, "trigger"),
        ({"to_state": None, "state": INITIAL}, "to_state"),
        ({"version": 7}, "transition_only_the_first_is_born"),
        ({"version": 0}, "transition_only_the_first_is_born"),
        (
            {"version": 0, "trigger": "revise", "from_state": "complete"},
            "transition_version_starts_at_one",
        ),
        (
            {"version": -1, "trigger": "revise", "from_state": "complete"},
            "transition_version_starts_at_one",
        ),
        ({"from_state": "complete", "trigger": "revise"}, "transition_only_the_first_is_born"),
        ({"state": "complete"}, "document_stands_at_its_newest_transition"),
    ],
)
def test_a_birth_any_other_way_is_refused(psql: Psql, changes: dict[str, Any], check: str) -> None:
    """A first row is ``submit``, from nothing, to the initial state, at version 1."""
    with pytest.raises(psycopg.errors.IntegrityError, match=check):
        _birth(psql, **changes)
    assert psql.execute("SELECT count(*) FROM transition").fetchone() == (0,)


def test_a_declared_step_is_accepted(psql: Psql) -> None:
    """What the refused steps differ from."""
    document = _birth(psql)
    _step(psql, document)
    assert _standing(psql, document) == ("parse_queued", 2)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"to_state": "complete"}, "transition_edge_is_declared"),
        ({"trigger": "finish_parse"}, "transition_edge_is_declared"),
        ({"trigger": "submit", "to_state": INITIAL}, "transition_edge_is_declared"),
        (
            {"trigger": "submit", "from_state": None, "to_state": INITIAL},
            "transition_only_the_first_is_born",
        ),
        ({"trigger": None}, "trigger"),
        ({"version": 3}, "transition_continues_its_predecessor"),
        ({"version": 1}, "transition_only_the_first_is_born"),
        (
            {"trigger": "finish_parse", "from_state": "parse_queued", "to_state": "parse_complete"},
            "transition_continues_its_predecessor",
        ),
        ({"from_state": None}, "transition_edge_is_declared"),
    ],
)
def test_a_step_that_is_no_edge_is_refused(psql: Psql, changes: dict[str, Any], check: str) -> None:
    """Every later row follows a declared edge from where its predecessor ended."""
    document = _birth(psql)
    with pytest.raises(psycopg.errors.IntegrityError, match=check):
        _step(psql, document, **changes)
    assert _standing(psql, document) == (INITIAL, 1)
    _step(psql, document)


def test_a_submit_in_the_middle_of_a_history_is_refused(psql: Psql) -> None:
    """No later row is ``submit``, whatever it claims to come from."""
    document = _birth(psql)
    _step(psql, document)
    for from_state in (None, "parse_queued", INITIAL):
        with pytest.raises(psycopg.errors.IntegrityError):
            _step(
                psql, document, version=3, trigger="submit", from_state=from_state, to_state=INITIAL
            )
    _step(psql, document, version=3, trigger="revise", from_state="parse_queued", to_state=INITIAL)


def test_a_restart_is_an_edge_like_any_other(psql: Psql) -> None:
    """``requeue`` leads from ``dead_letter`` and from nowhere else in the middle of a life."""
    document = _birth(psql)
    with pytest.raises(psycopg.errors.CheckViolation, match="transition_edge_is_declared"):
        _step(psql, document, trigger="requeue", to_state=INITIAL)
    _step(psql, document, trigger="fail", to_state="dead_letter")
    _step(psql, document, version=3, trigger="requeue", from_state="dead_letter", to_state=INITIAL)


def test_a_document_without_history_is_refused(psql: Psql) -> None:
    """A document stands at its newest transition, so there must be one."""
    values = {"id": uuid.uuid4(), "state": INITIAL, "version": 1}
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="stands_at_its_newest"):
        psql.execute(_DOCUMENT, values)


def test_history_without_its_document_is_refused(psql: Psql) -> None:
    """History is never ahead of its document, nor without one."""
    values = {
        "id": uuid.uuid4(),
        "version": 1,
        "trigger": "submit",
        "from_state": None,
        "to_state": INITIAL,
    }
    with pytest.raises(psycopg.errors.IntegrityError, match="ahead of the document"):
        psql.execute(_HISTORY, values)
    document = _birth(psql)
    ahead = {
        "id": document,
        "version": 2,
        "trigger": "queue_parse",
        "from_state": INITIAL,
        "to_state": "parse_queued",
    }
    with pytest.raises(psycopg.errors.IntegrityError, match="ahead of the document"):
        psql.execute(_HISTORY, ahead)


def test_a_version_cannot_be_written_twice(psql: Psql) -> None:
    """One history row per version."""
    document = _birth(psql)
    _step(psql, document)
    with pytest.raises(psycopg.errors.UniqueViolation):
        _step(psql, document)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("state = 'complete'", "stands_at_its_newest"),
        ("state = 'parse_complete', version = 3", "stands_at_its_newest"),
        ("version = 3", "stands_at_its_newest"),
        ("version = 1, state = 'uploaded'", "never goes back"),
        ("generation = 0", "never goes back"),
        ("life = 0", "never goes back"),
        ("id = gen_random_uuid()", "never goes back"),
        ("state = NULL", "state"),
    ],
)
def test_a_document_is_not_moved_by_hand(psql: Psql, change: str, check: str) -> None:
    """State and version change together with history, forward, or not at all."""
    document = _birth(psql)
    _step(psql, document)
    with pytest.raises(psycopg.errors.IntegrityError, match=check):
        psql.execute(f"UPDATE document SET {change} WHERE id = %s", [document])
    assert _standing(psql, document) == ("parse_queued", 2)
    psql.execute("UPDATE document SET name = 'other' WHERE id = %s", [document])


@pytest.mark.parametrize(
    "change", ["trigger = 'submit'", "reason = 'better'", "at = now()", "version = 9", "hop = true"]
)
def test_a_history_row_is_never_changed(psql: Psql, change: str) -> None:
    """History is append-only, in every column."""
    document = _birth(psql)
    with pytest.raises(psycopg.errors.IntegrityError, match="history is never changed"):
        psql.execute(f"UPDATE transition SET {change} WHERE document_id = %s", [document])


def test_a_history_row_is_not_deleted_while_its_document_stands(psql: Psql) -> None:
    """Neither the newest row nor an older one."""
    document = _birth(psql)
    _step(psql, document)
    for version in (1, 2):
        with pytest.raises(psycopg.errors.IntegrityError):
            psql.execute(
                "DELETE FROM transition WHERE document_id = %s AND version = %s",
                [document, version],
            )
    with pytest.raises(psycopg.errors.IntegrityError):
        psql.execute("DELETE FROM transition")


@pytest.mark.parametrize(
    "tables",
    ["transition", "document", "transition, document", "document CASCADE", "transition CASCADE"],
)
def test_truncate_is_refused(psql: Psql, tables: str) -> None:
    """History is never thrown away whole, nor are documents."""
    _birth(psql)
    with pytest.raises(psycopg.Error):
        psql.execute(f"TRUNCATE {tables}")
    assert psql.execute("SELECT count(*) FROM transition").fetchone() == (1,)


def test_pruning_takes_a_document_and_its_whole_history(psql: Psql) -> None:
    """Pruning is possible: the document goes, then its history, whole, in one transaction."""
    document, other = _birth(psql), _birth(psql)
    _step(psql, document)
    with psql.transaction():
        psql.execute("DELETE FROM document WHERE id = %s", [document])
        psql.execute("DELETE FROM transition WHERE document_id = %s", [document])
    assert psql.execute("SELECT document_id FROM transition").fetchall() == [(other,)]


@pytest.mark.parametrize(
    ("which", "check"),
    [
        ("version = 1", "transition_continues_its_predecessor"),
        ("version = 2", "transition_continues_its_predecessor"),
        ("version = 3", "a history goes whole"),
        ("version > 1", "a history goes whole"),
        ("false", "goes in the same transaction"),
    ],
)
def test_no_part_of_a_history_goes(psql: Psql, which: str, check: str) -> None:
    """Not the last row without the first, nor the first without the last, nor a document alone."""
    document = _birth(psql)
    _step(psql, document)
    _step(
        psql, document, version=3, trigger="fail", from_state="parse_queued", to_state="dead_letter"
    )

    def remove() -> None:
        with psql.transaction():
            psql.execute("DELETE FROM document WHERE id = %s", [document])
            psql.execute(f"DELETE FROM transition WHERE document_id = %s AND {which}", [document])

    with pytest.raises(psycopg.errors.IntegrityError, match=check):
        remove()
    assert _standing(psql, document) == ("dead_letter", 3)
    assert psql.execute("SELECT count(*) FROM transition").fetchone() == (3,)


def test_a_document_cannot_go_and_leave_its_history(psql: Psql) -> None:
    """Whoever comes by its id next would find it taken."""
    document = _birth(psql)
    with pytest.raises(psycopg.errors.IntegrityError, match="goes in the same transaction"):
        psql.execute("DELETE FROM document WHERE id = %s", [document])
    assert _standing(psql, document) == (INITIAL, 1)
