"""What a role for daily work is granted is what the statements do, table by table."""

from __future__ import annotations

import re
from pathlib import Path

from statemachine_pipeline.database.roles import GRANTS
from statemachine_pipeline.database.tables import VERSION_TABLE, tables

SQL = Path(__file__).resolve().parents[1] / "sql"
OWNERS_OWN = ("successors.", "pruning.")
"""Statements of verbs that the owner runs."""
WRITES = {
    "INSERT": re.compile(r"INSERT INTO smp\.(\w+)"),
    "UPDATE": re.compile(r"\bUPDATE smp\.(\w+)"),
    "DELETE": re.compile(r"DELETE\s+FROM smp\.(\w+)"),
}
ON_CONFLICT = re.compile(r"INSERT INTO smp\.(\w+)(?:(?!INSERT INTO).)*?DO UPDATE", re.DOTALL)


def written() -> dict[str, set[str]]:
    """Return by table how the statements of daily work write it."""
    found: dict[str, set[str]] = {}
    for path in SQL.glob("*.sql"):
        if path.name.startswith(OWNERS_OWN):
            continue
        text = path.read_text()
        for privilege, pattern in (*WRITES.items(), ("UPDATE", ON_CONFLICT)):
            for table in pattern.findall(text):
                found.setdefault(table, set()).add(privilege)
    return found


def test_the_role_may_do_what_statements_do_and_nothing_more() -> None:
    """'Grants what a worker, a submitter and the command line need and nothing more'."""
    granted = {table: set(rights) - {"SELECT"} for table, rights in GRANTS.items()}
    assert granted == {table: set() for table in GRANTS} | written()


def test_history_is_only_added_to() -> None:
    """'No UPDATE, DELETE or TRUNCATE on transition', nor any way to drop a document whole."""
    assert set(GRANTS["transition"]) == {"SELECT", "INSERT"}
    assert "DELETE" not in GRANTS["document"]
    assert not any("TRUNCATE" in rights for rights in GRANTS.values())


def test_every_table_has_its_rights() -> None:
    """A new table is given to the role, or the role is not enough for the work."""
    made = {table.name for table in tables("smp").metadata.sorted_tables}
    assert set(GRANTS) == made | {VERSION_TABLE}
