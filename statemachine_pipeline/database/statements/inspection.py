"""What PostgreSQL knows about itself, about our tables and about who works on them.

Catalogs and views of the server, so plain SQL. Whatever a role may not see is null or left out; no
statement here fails for want of rights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from statemachine_pipeline.database.statements.rows import (
    ID,
    LANE_CLAIMED,
    clock,
    seconds,
)

if TYPE_CHECKING:
    from statemachine_pipeline.database.tables import Tables

_NAMES = ARRAY(sa.Text)


def server(_: Tables) -> Any:
    """Read versions, the clock, and by which number the server knows this connection."""
    return sa.text(
        "SELECT current_setting('server_version') AS version, "
        "current_setting('server_version_num')::integer AS number, "
        "(SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector') AS vector, "
        "clock_timestamp() AS now, pg_backend_pid() AS backend"
    )


def settings(_: Tables) -> Any:
    """Read settings by their ``names``, each in its unit, as a session of this role begins."""
    return sa.text(
        "SELECT name, reset_val AS setting FROM pg_catalog.pg_settings "
        "WHERE name = ANY (:names) ORDER BY name"
    ).bindparams(sa.bindparam("names", type_=_NAMES))


def connections(_: Tables) -> Any:
    """Count connections, and what bounds them for this role in this database."""
    return sa.text(
        "SELECT (SELECT sum(numbackends) FROM pg_catalog.pg_stat_database)::integer AS used, "
        "current_setting('max_connections')::integer "
        "- current_setting('superuser_reserved_connections')::integer AS most, "
        "(SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user) AS of_role, "
        "(SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database()) "
        "AS of_database"
    )


def oldest_transaction(_: Tables) -> Any:
    """Find the oldest transaction in this database, prepared ones included, as far as is seen."""
    return sa.text(
        "SELECT who, extract(epoch FROM clock_timestamp() - since)::double precision AS seconds "
        "FROM (SELECT xact_start AS since, 'process ' || pid || ' of ' || usename || "
        "coalesce(' (' || nullif(application_name, '') || ')', '') || ', ' || state AS who "
        "FROM pg_catalog.pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend' "
        "UNION ALL SELECT prepared, 'prepared transaction ' || gid "
        "FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()) AS found "
        "WHERE since IS NOT NULL ORDER BY since LIMIT 1"
    )


def objects(t: Tables) -> Any:
    """List what there is in the schema, and whether it is in force.

    Triggers of foreign keys stand under the name of their constraint. ``conenforced`` came with
    PostgreSQL 18.
    """
    return sa.text(
        "SELECT kind, relation, name, in_force, definition FROM ("
        "SELECT 'column' AS kind, r.relname AS relation, a.attname AS name, true AS in_force, "
        "NULL AS definition FROM pg_catalog.pg_attribute a "
        "JOIN pg_catalog.pg_class r ON r.oid = a.attrelid "
        "WHERE r.relnamespace = to_regnamespace(:schema) AND r.relkind = 'r' "
        "AND a.attnum > 0 AND NOT a.attisdropped "
        "UNION ALL SELECT 'constraint', r.relname, c.conname, "
        "coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true), pg_get_constraintdef(c.oid) "
        "FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_class r ON r.oid = c.conrelid "
        "WHERE r.relnamespace = to_regnamespace(:schema) "
        "UNION ALL SELECT 'trigger', r.relname, coalesce(c.conname, g.tgname), "
        "g.tgenabled IN ('O', 'A'), NULL FROM pg_catalog.pg_trigger g "
        "JOIN pg_catalog.pg_class r ON r.oid = g.tgrelid "
        "LEFT JOIN pg_catalog.pg_constraint c ON c.oid = g.tgconstraint "
        "WHERE r.relnamespace = to_regnamespace(:schema) "
        "UNION ALL SELECT 'index', r.relname, i.relname, x.indisvalid, NULL "
        "FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid "
        "JOIN pg_catalog.pg_class r ON r.oid = x.indrelid "
        "WHERE i.relnamespace = to_regnamespace(:schema) "
        "UNION ALL SELECT 'function', '', p.proname, true, p.prosrc FROM pg_catalog.pg_proc p "
        "WHERE p.pronamespace = to_regnamespace(:schema)) AS found "
        "ORDER BY kind, relation, name"
    ).bindparams(schema=_quoted(t))


def role(t: Tables) -> Any:
    """Read what a role, this connection's when null, is and may do in the schema."""
    return sa.text(
        "SELECT r.rolname AS name, r.rolsuper AS is_superuser, "
        "has_schema_privilege(r.oid, n.oid, 'USAGE') AS may_look, "
        "has_schema_privilege(r.oid, n.oid, 'CREATE') AS may_create, "
        "has_sequence_privilege(r.oid, s.oid, 'USAGE') AS may_number "
        "FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n "
        "LEFT JOIN pg_catalog.pg_class s ON s.relnamespace = n.oid AND s.relname = :sequence "
        "WHERE r.rolname = coalesce(:role, current_user) AND n.oid = to_regnamespace(:schema)"
    ).bindparams(sa.bindparam("role", type_=sa.Text), schema=_quoted(t), sequence=t.claim_seq.name)


def standing(t: Tables) -> Any:
    """Read who asks, to whom those of the ``tables`` belong that are not its own, what it may make.

    An extension that is trusted is made by whoever may create things in the database.
    """
    return sa.text(
        "SELECT current_user AS role, current_database() AS database, "
        "n.oid IS NOT NULL AS has_schema, "
        "has_database_privilege(current_database(), 'CREATE') AS may_create_schema, "
        "coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create_tables, "
        "EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid "
        "AND c.relname = ANY (:tables)) AS has_tables, "
        "ARRAY(SELECT DISTINCT pg_get_userbyid(c.relowner)::text FROM pg_catalog.pg_class c "
        "WHERE c.relnamespace = n.oid AND c.relname = ANY (:tables) "
        "AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1) AS owners, "
        "EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector') AS has_extension, "
        "coalesce((SELECT bool_or(NOT e.superuser OR e.trusted "
        "AND has_database_privilege(current_database(), 'CREATE')) "
        "FROM pg_catalog.pg_available_extension_versions e WHERE e.name = 'vector'), true) "
        "OR r.rolsuper AS may_create_extension "
        "FROM pg_catalog.pg_roles r LEFT JOIN pg_catalog.pg_namespace n "
        "ON n.oid = to_regnamespace(:schema) WHERE r.rolname = current_user"
    ).bindparams(sa.bindparam("tables", type_=_NAMES), schema=_quoted(t))


def has_role(_: Tables) -> Any:
    """Find a role by its name."""
    return sa.text("SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = :role")


def privileges(t: Tables) -> Any:
    """Read what a role, this connection's when null, may do with each table, by whatever way."""
    return sa.text(
        "SELECT c.relname AS relation, p.privilege, "
        "has_table_privilege(r.oid, c.oid, p.privilege) AS held, "
        "pg_has_role(r.oid, c.relowner, 'USAGE') AS is_owner "
        "FROM pg_catalog.pg_class c CROSS JOIN pg_catalog.pg_roles r "
        "CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) "
        "AS p (privilege) "
        "WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r' "
        "AND r.rolname = coalesce(:role, current_user) ORDER BY c.relname, p.privilege"
    ).bindparams(sa.bindparam("role", type_=sa.Text), schema=_quoted(t))


def without_autovacuum(t: Tables) -> Any:
    """Name the tables that were taken out of autovacuum."""
    return sa.text(
        "SELECT relname AS relation FROM pg_catalog.pg_class "
        "WHERE relnamespace = to_regnamespace(:schema) AND relkind = 'r' "
        "AND 'autovacuum_enabled=false' = ANY (reloptions) ORDER BY relname"
    ).bindparams(schema=_quoted(t))


def overdue(t: Tables) -> Any:
    """Count claims past their deadline by more than ``grace`` seconds, and find the oldest."""
    w = t.work.c
    late = clock() - seconds(sa.bindparam("grace", type_=sa.Double))
    return sa.select(
        sa.func.count().label("count"), sa.func.min(w.deadline_at).label("oldest_at")
    ).where(w.lane == LANE_CLAIMED, w.deadline_at < late)


def crashing(t: Tables) -> Any:
    """Count by state the documents that took a process down at the stage before them; name one."""
    w = t.work.c
    return (
        sa.select(w.state, *_some(w.document_id))
        .where(w.crashes > 0)
        .group_by(w.state)
        .order_by(w.state)
    )


def crashed(t: Tables) -> Any:
    """Count dead letters ``since`` a time that took a process down, by stage and code; name one."""
    letter = t.dead_letter.c
    kind = (letter.stage, letter.code)
    count, example = _some(letter.document_id)
    return (
        sa.select(*kind, count, example)
        .where(letter.at >= sa.bindparam("since", type_=letter.at.type), letter.crashes > 0)
        .group_by(*kind)
        .order_by(count.desc(), *kind)
    )


def unknown_states(t: Tables) -> Any:
    """Count documents by those ``states`` in which there are any."""
    d = t.document.c
    return (
        sa.select(d.state, sa.func.count().label("count"))
        .where(d.state == sa.any_(sa.bindparam("states", type_=_NAMES)))
        .group_by(d.state)
        .order_by(d.state)
    )


def vectors(t: Tables) -> Any:
    """Read how long the vectors of an embedder are said to be, and how long one of them is."""
    v, e = t.chunk_vector.c, t.embedder.c
    fingerprint = sa.bindparam("fingerprint", type_=sa.Text)
    one = sa.select(sa.func.vector_dims(v.vector)).where(v.embedder_id == e.id).limit(1)
    return sa.select(e.id, e.dimensions, one.scalar_subquery().label("found")).where(
        e.fingerprint == fingerprint
    )


def stored_object(t: Tables) -> Any:
    """Name the first object that a document refers to, with its length.

    Of those that are only announced nobody knows whether they were ever stored.
    """
    b, d = t.blob.c, t.document.c
    return (
        sa.select(b.key, d.size_bytes)
        .join(t.document, d.id == b.document_id)
        .where(b.key.is_not(None), d.size_bytes > 0)
        .order_by(b.key)
        .limit(1)
    )


def _some(document: Any) -> tuple[Any, Any]:
    """Return how many, and the latest of them."""
    newest = sa.cast(sa.func.max(sa.cast(document, sa.Text)), ID)
    return sa.func.count().label("count"), newest.label("example")


def _quoted(t: Tables) -> str:
    """Return the schema as ``to_regnamespace`` reads it, which folds what is not quoted."""
    return f'"{t.schema}"'
