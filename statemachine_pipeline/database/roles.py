"""What a role needs that works with a pipeline and does not own it, table by table.

Enough for workers, submitters, searches and every verb but ``migrate`` and those that throw history
away. Nothing lets it change or drop a history, or the checks that guard histories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.database.tables import CLAIM_SEQUENCE, VERSION_TABLE, tables
from statemachine_pipeline.errors import RightsMissing, RoleRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

_LOOK: Final = ("SELECT",)
_ADD: Final = ("SELECT", "INSERT")
_KEEP: Final = ("SELECT", "INSERT", "UPDATE")
_REPLACE: Final = ("SELECT", "INSERT", "DELETE")
_ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")

_LESS: Final = {
    VERSION_TABLE: _LOOK,
    "lifecycle": _LOOK,
    "restore": _LOOK,
    "transition": _ADD,
    "embedder": _ADD,
    "document": _KEEP,
    "breaker": _KEEP,
    "budget": _KEEP,
    "breaker_change": _REPLACE,
    "chunk_buffer": _REPLACE,
    "chunk_vector": _REPLACE,
    "vector_buffer": _REPLACE,
}
GRANTS: Final = (
    dict.fromkeys((one.name for one in tables("smp").metadata.sorted_tables), _ALL) | _LESS
)
"""What the statements of the library do with each table; a test compares them."""

OTHER_ROLE: Final = (
    "connect as that role to migrate; the role for daily work, which `--app-role` prepares, needs "
    "no `migrate` of its own"
)
HISTORY: Final = "transition"
_HARMFUL: Final = ("UPDATE", "DELETE", "TRUNCATE")


def require_owner(connection: Connection, schema: str) -> Any:
    """Refuse to migrate as a role that could not do all of it.

    Returns:
        The row of ``inspection.standing``.

    Raises:
        RightsMissing: The role is named, with what it lacks and who has it.
    """
    found = connection.execute(inspection.standing(tables(schema)), {"tables": list(GRANTS)}).one()
    lacks, advice = _lacks(found, schema)
    if lacks:
        raise RightsMissing("migrate", found.role, lacks, advice)
    return found


def _lacks(found: Any, schema: str) -> tuple[str, str]:
    """Say what a role cannot do that ``migrate`` has to, and what to do about it."""
    if found.owners:
        owners = " and ".join(repr(owner) for owner in found.owners)
        return f"the tables in schema {schema!r} belong to {owners}", OTHER_ROLE
    database, to = _name(found.database), _name(found.role)
    if not found.has_schema and not found.may_create_schema:
        lacks = f"schema {schema!r} is not there, and the role may not create it"
        return lacks, f"as an administrator: GRANT CREATE ON DATABASE {database} TO {to}"
    if found.has_schema and not found.has_tables and not found.may_create_tables:
        lacks = f"schema {schema!r} has no tables, and the role may not create any there"
        return lacks, f"as its owner: GRANT CREATE ON SCHEMA {_name(schema)} TO {to}"
    if not found.has_extension and not found.may_create_extension:
        lacks = "the extension `vector` is not there, and the role may not create it"
        return lacks, "as a superuser, once: CREATE EXTENSION vector"
    return "", ""


def check(connection: Connection, schema: str, role: str) -> None:
    """Refuse a role that is not there.

    Raises:
        RoleRefused: There is none of this name.
    """
    if connection.execute(inspection.has_role(tables(schema)), {"role": role}).first() is None:
        raise RoleRefused(role, "there is none of this name", "CREATE ROLE it first")


def grant(connection: Connection, schema: str, role: str) -> None:
    """Give a role what it needs in a schema, and take back whatever else this owner gave it.

    Part of the connection's transaction, so at no moment anybody sees it with less.

    Raises:
        RoleRefused: There is no such role, or it may change histories in another way.
    """
    check(connection, schema, role)
    for statement in _statements(schema, role):
        connection.exec_driver_sql(statement)
    t, given = tables(schema), {"role": role}
    found = excess(
        connection.execute(inspection.role(t), given).one(),
        connection.execute(inspection.privileges(t), given).all(),
    )
    if found:
        raise RoleRefused(role, f"it {found[0]} all the same", "name a role without such rights")


def excess(role: Any, privileges: Any) -> list[str]:
    """Say what a role may do that harms histories or their guards; nothing is as it should be.

    Args:
        role: A row of ``inspection.role``.
        privileges: The rows of ``inspection.privileges``.
    """
    if role.is_superuser:
        return ["is a superuser"]
    owned = sorted({row.relation for row in privileges if row.is_owner})
    if owned:
        return [f"owns {'the tables' if HISTORY in owned else ', '.join(owned)}"]
    harmful = [
        row.privilege
        for row in privileges
        if row.relation == HISTORY and row.held and row.privilege in _HARMFUL
    ]
    found = [f"may {', '.join(harmful)} {HISTORY}"] if harmful else []
    return [*found, *(["may create things in the schema"] if role.may_create else [])]


def missing(role: Any, privileges: Any) -> list[str]:
    """Say which rights a role lacks that work with the pipeline needs.

    Args:
        role: A row of ``inspection.role``.
        privileges: The rows of ``inspection.privileges``.
    """
    held = {(row.relation, row.privilege) for row in privileges if row.held}
    found = [] if role.may_look else ["USAGE on the schema"]
    found += [] if role.may_number else [f"USAGE on {CLAIM_SEQUENCE}"]
    return found + [
        f"{privilege} on {relation}"
        for relation, needed in GRANTS.items()
        for privilege in needed
        if (relation, privilege) not in held
    ]


def _statements(schema: str, role: str) -> Iterator[str]:
    to, within = _name(role), _name(schema)
    for kind in ("TABLES", "SEQUENCES"):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA {within} FROM {to}"
    yield f"REVOKE ALL ON SCHEMA {within} FROM {to}"
    yield f"GRANT USAGE ON SCHEMA {within} TO {to}"
    # Functions are called by triggers only, for which nobody needs a right; and identity columns
    # number their rows themselves.
    yield f"GRANT USAGE ON SEQUENCE {within}.{_name(CLAIM_SEQUENCE)} TO {to}"
    for relation, privileges in GRANTS.items():
        yield f"GRANT {', '.join(privileges)} ON {within}.{_name(relation)} TO {to}"


def _name(identifier: str) -> str:
    """Return an identifier as SQL, whatever its characters, for a driver that reads ``%``."""
    return '"' + identifier.replace('"', '""').replace("%", "%%") + '"'
