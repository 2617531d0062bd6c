"""What PostgreSQL refuses, whatever client writes: every stored history is a legal path.

The constraints that need no graph are on the tables. Here are the edges, as one CHECK made from the
lifecycle, and row triggers whose WHEN clauses cost nothing while they are false. Measured: the same
as statement triggers costs twice as much, and a foreign key to an edge table locks hot rows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EDGE_CHECK = "transition_edge_is_declared"
CLOSED_CHECK = "transition_leads_to_no_retired_state"

_FUNCTION = re.compile(r"CREATE FUNCTION \S+\.(\w+)\(\).*?\$\$(.*?)\$\$", re.DOTALL)
_TRIGGER = re.compile(r"CREATE (?:CONSTRAINT )?TRIGGER (\w+) .*? ON \S+\.(\w+)\b", re.DOTALL)
_EDGE = re.compile(r"'(\w*>\w+>\w+)'")

_REFUSE = """
CREATE FUNCTION {schema}.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0]
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""

_REFUSE_DELETE = """
CREATE FUNCTION {schema}.refuse_delete_of_kept_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM {schema}.document WHERE id = OLD.document_id) THEN
        RAISE EXCEPTION 'DELETE on transition: history goes only after its document'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$
"""

_REFUSE_PART = """
CREATE FUNCTION {schema}.refuse_delete_of_part_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM {schema}.transition WHERE document_id IN (SELECT document_id FROM gone)
    ) THEN
        RAISE EXCEPTION 'DELETE on transition: a history goes whole, in one statement, or not'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$
"""

_REFUSE_LEFT_BEHIND = """
CREATE FUNCTION {schema}.refuse_history_left_behind() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM {schema}.transition WHERE document_id = OLD.id) THEN
        RAISE EXCEPTION 'DELETE on document: its history goes in the same transaction'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$
"""

_REFUSE_AHEAD = """
CREATE FUNCTION {schema}.refuse_history_ahead() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM {schema}.document WHERE id = NEW.document_id AND version >= NEW.version
    ) THEN
        RAISE EXCEPTION 'INSERT on transition: version % of document % is ahead of the document',
            NEW.version, NEW.document_id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$
"""

_TRIGGERS = (
    """CREATE TRIGGER document_never_goes_back BEFORE UPDATE ON {schema}.document FOR EACH ROW
       WHEN (NEW.version < OLD.version OR NEW.life < OLD.life OR NEW.generation < OLD.generation
             OR NEW.id <> OLD.id)
       EXECUTE FUNCTION {schema}.refuse_change('a document never goes back')""",
    """CREATE TRIGGER document_is_not_truncated BEFORE TRUNCATE ON {schema}.document
       EXECUTE FUNCTION {schema}.refuse_change('documents go one by one')""",
    """CREATE TRIGGER history_is_not_changed BEFORE UPDATE ON {schema}.transition FOR EACH ROW
       EXECUTE FUNCTION {schema}.refuse_change('history is never changed')""",
    """CREATE TRIGGER history_is_not_truncated BEFORE TRUNCATE ON {schema}.transition
       EXECUTE FUNCTION {schema}.refuse_change('history is never thrown away whole')""",
    """CREATE TRIGGER history_goes_after_its_document BEFORE DELETE ON {schema}.transition
       FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_delete_of_kept_history()""",
    """CREATE TRIGGER history_goes_whole AFTER DELETE ON {schema}.transition
       REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
       EXECUTE FUNCTION {schema}.refuse_delete_of_part_of_history()""",
    """CREATE CONSTRAINT TRIGGER document_goes_with_its_history AFTER DELETE ON {schema}.document
       DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
       EXECUTE FUNCTION {schema}.refuse_history_left_behind()""",
    """CREATE TRIGGER history_is_not_ahead AFTER INSERT ON {schema}.transition FOR EACH ROW
       EXECUTE FUNCTION {schema}.refuse_history_ahead()""",
)


def guard_history(schema: str) -> list[str]:
    """Return the DDL of functions and triggers, for a quoted ``schema``."""
    functions = (_REFUSE, _REFUSE_DELETE, _REFUSE_PART, _REFUSE_LEFT_BEHIND, _REFUSE_AHEAD)
    return [ddl.format(schema=schema) for ddl in (*functions, *_TRIGGERS)]


def functions(schema: str) -> dict[str, str]:
    """Return the bodies of the functions that guard history, by name, for a quoted ``schema``."""
    found = (_FUNCTION.search(ddl) for ddl in guard_history(schema))
    return {one[1]: one[2] for one in found if one}


def triggers() -> list[tuple[str, str]]:
    """Return the triggers that guard history, each as its table and its name."""
    found = (_TRIGGER.search(ddl) for ddl in guard_history("smp"))
    return [(one[2], one[1]) for one in found if one]


def edges(definition: str) -> set[str]:
    """Return the edges that a CHECK, as PostgreSQL prints it, lets through."""
    return set(_EDGE.findall(definition))


def guard_edges(schema: str, codes: Iterable[str], closed: Iterable[str] = ()) -> list[str]:
    """Return the DDL that swaps the CHECK of legal edges, for a quoted ``schema``.

    NOT VALID spares the scan of old rows: they were checked by the CHECK before, whose edges are
    all in this one. That no edge leads to ``closed`` states any more is asked of new rows only.
    """
    code = "coalesce(from_state, '') || '>' || trigger || '>' || to_state"
    checks = {EDGE_CHECK: f"{code} = ANY ({_array(codes)})"}
    if states := sorted(closed):
        checks[CLOSED_CHECK] = f"to_state <> ALL ({_array(states)})"
    alter = f"ALTER TABLE {schema}.transition"
    return [
        *(f"{alter} DROP CONSTRAINT IF EXISTS {name}" for name in (EDGE_CHECK, CLOSED_CHECK)),
        *(f"{alter} ADD CONSTRAINT {name} CHECK ({it}) NOT VALID" for name, it in checks.items()),
    ]


def _array(names: Iterable[str]) -> str:
    """Return names of states and triggers, which are letters, digits and ``_``, as SQL."""
    quoted = ", ".join(f"'{name}'" for name in sorted(set(names)))
    return f"ARRAY[{quoted}]"
