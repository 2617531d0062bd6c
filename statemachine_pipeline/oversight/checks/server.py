"""The server: its version and settings, its clock, its connections, its disk."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from statemachine_pipeline.counting import counted
from statemachine_pipeline.database.statements import inspection, workers
from statemachine_pipeline.oversight.checks.verdicts import (
    Subject,
    Verdict,
    fail,
    named,
    ok,
    skip,
    warn,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OLDEST_SERVER, NEWEST_SERVER = 15, 18
OLDEST_VECTOR = (0, 8)
SKEW_SECONDS = 2.0
OLD_TRANSACTION_SECONDS = 15 * 60.0
BESIDE_THE_POOL = 2
"""Connections of a worker that are not of its pool: one to beat, one to listen."""
ALMOST_ALL = 0.9
LITTLE_SPACE_BYTES = 1_000_000_000
LITTLE_SPACE_SHARE = 0.05


async def database(subject: Subject) -> Verdict:
    """Whether the database answers.

    Fails when it does not; the checks that need it are skipped then.
    """
    (row,) = await subject.inspection.rows(inspection.server)
    return ok(f"PostgreSQL {row.version} answers")


async def server_version(subject: Subject) -> Verdict:
    """PostgreSQL 15 to 18 with pgvector 0.8 or later.

    Fails for an older server or without pgvector; warns of a server or a pgvector that the library
    is not tested with.
    """
    (row,) = await subject.inspection.rows(inspection.server)
    return version_verdict(row.number, row.version, row.vector)


def version_verdict(number: int, version: str, vector: str | None) -> Verdict:
    """Judge the versions of a server, given as ``server_version_num``, and of its pgvector."""
    wanted = f"PostgreSQL {OLDEST_SERVER} to {NEWEST_SERVER}"
    if number // 10_000 < OLDEST_SERVER:
        return fail(f"the server is {version}", f"upgrade the server: {wanted} is supported")
    if vector is None:
        return fail("the extension pgvector is missing", "as a superuser: CREATE EXTENSION vector")
    found = tuple(int(part) for part in vector.split(".")[:2])
    if found < OLDEST_VECTOR:
        least = ".".join(map(str, OLDEST_VECTOR))
        return warn(
            f"pgvector is {vector}, and searches want {least}", "ALTER EXTENSION vector UPDATE"
        )
    if number // 10_000 > NEWEST_SERVER:
        return warn(
            f"the server is {version}", f"{wanted} is tested; look for a newer release of this"
        )
    return ok(f"PostgreSQL {version}, pgvector {vector}")


async def clock_skew(subject: Subject) -> Verdict:
    """How far this machine's clock is from the server's.

    Only the server's clock decides anything. Warns of two seconds and more: times in logs would
    not fit those in histories.
    """
    before = datetime.now(UTC)
    (row,) = await subject.inspection.rows(inspection.server)
    after = datetime.now(UTC)
    return skew_verdict(before, row.now, after)


def skew_verdict(before: datetime, told: datetime, after: datetime) -> Verdict:
    """Judge what a server's clock told between two looks at this machine's."""
    ahead = (told - after).total_seconds() if told > after else 0.0
    behind = (before - told).total_seconds() if told < before else 0.0
    skew = max(ahead, behind)
    if skew < SKEW_SECONDS:
        return ok(f"the clocks of server and client differ by less than {SKEW_SECONDS:g} s")
    side = "ahead of" if ahead else "behind"
    return warn(
        f"the server's clock is {skew:,.1f} s {side} this machine's",
        "let both follow NTP; until then compare logs with care",
    )


async def idle_transactions(subject: Subject) -> Verdict:
    """Whether PostgreSQL ends transactions that were forgotten open.

    Warns when ``idle_in_transaction_session_timeout`` is off. The pipeline sets its own in each of
    its transactions; a forgotten one of any other program keeps VACUUM from the queue's tables.
    """
    name = "idle_in_transaction_session_timeout"
    limit = int((await subject.inspection.settings(name))[name])
    if limit:
        return ok(f"forgotten transactions end after {limit / 1000:g} s")
    if await subject.inspection.embedded_directory():
        return ok(f"{name} is off, and the embedded server is this project's alone")
    return warn(
        f"{name} is off: a forgotten transaction holds VACUUM up for ever",
        f"ALTER DATABASE ... SET {name} = '5min', or for the roles of people and reports",
    )


async def connections(subject: Subject) -> Verdict:
    """Whether the server has connections enough for the workers that live.

    Each may open as many as its pool has, and two more. Warns when all of them together are more
    than the server, the role or the database allow, or when nine of ten are taken now.
    """
    (row,) = await subject.inspection.rows(inspection.connections)
    most = min(limit for limit in (row.most, row.of_role, row.of_database) if limit >= 0)
    if row.used >= most * ALMOST_ALL:
        return warn(
            f"{row.used} of {most} connections are taken",
            "raise max_connections, give pools fewer, or put PgBouncer before the server",
        )
    pool = subject.inspection.pool_size
    if pool is None:
        return ok(f"{row.used} of {most} connections are taken; this engine's pool has no limit")
    alive = max(
        1, sum(1 for one in await subject.inspection.rows(workers.known) if not one.dead_at)
    )
    asked = alive * (pool + BESIDE_THE_POOL)
    if asked > most:
        return warn(
            f"{counted(alive, 'worker')} with pools like this one's of {pool} may ask for {asked} "
            f"connections, and {most} are allowed",
            "create_async_engine(url, pool_size=..., max_overflow=...) with less, or raise "
            "max_connections",
        )
    need = counted(alive, "worker needs", "workers need")
    return ok(f"{row.used} of {most} connections are taken; {need} {asked} at most")


async def durability(subject: Subject) -> Verdict:
    """Whether what was committed survives a crash of the server.

    Fails with ``fsync`` or ``full_page_writes`` off: a crash of the machine may destroy everything.
    Warns with ``synchronous_commit`` off: it may lose the last commits, accepted documents among
    them.
    """
    names = ("fsync", "full_page_writes", "synchronous_commit")
    return durability_verdict(await subject.inspection.settings(*names))


def durability_verdict(found: Mapping[str, str]) -> Verdict:
    """Judge the settings that say when a commit is on disk."""
    off = [name for name, value in found.items() if value == "off"]
    if "fsync" in off or "full_page_writes" in off:
        return fail(
            f"{' and '.join(off)} off: a crash of the machine may destroy the database",
            "set them to on in postgresql.conf, unless all of it may be lost",
        )
    if off:
        return warn(
            "synchronous_commit is off: a crash loses what was accepted a moment before",
            "ALTER ROLE ... SET synchronous_commit = on, or for the database",
        )
    return ok(f"commits are durable (synchronous_commit = {found['synchronous_commit']})")


async def autovacuum(subject: Subject) -> Verdict:
    """Whether dead rows are removed.

    Fails when autovacuum is off for the server, warns when it is for some of our tables: a queue
    changes its rows all the time, and slows down by those that are left behind.
    """
    found = await subject.inspection.settings("autovacuum", "track_counts")
    off = [name for name, value in found.items() if value == "off"]
    if off:
        return fail(
            f"{' and '.join(off)} off: queries slow down until somebody vacuums",
            f"ALTER SYSTEM SET {off[0]} = on; SELECT pg_reload_conf()",
        )
    left_out = [
        row.relation for row in await subject.inspection.rows(inspection.without_autovacuum)
    ]
    if left_out:
        table = f"{subject.t.schema}.{left_out[0]}"
        return warn(
            f"autovacuum is off for {named(left_out)}",
            f"ALTER TABLE {table} RESET (autovacuum_enabled)",
        )
    return ok("autovacuum is on")


async def oldest_transaction(subject: Subject) -> Verdict:
    """How old the oldest transaction in this database is, prepared ones included.

    Warns from 15 minutes on: while it lasts VACUUM removes nothing that died since, and followers
    of events see nothing new.
    """
    found = await subject.inspection.rows(inspection.oldest_transaction)
    if not found or found[0].seconds < OLD_TRANSACTION_SECONDS:
        return ok("no transaction is old, as far as this role sees")
    oldest = found[0]
    return warn(
        f"a transaction is open for {oldest.seconds / 60:,.0f} minutes: {oldest.who}",
        "end it, with pg_terminate_backend(pid) or ROLLBACK PREPARED",
    )


async def disk(subject: Subject) -> Verdict:
    """How much space the embedded server's disk has.

    Warns below 1 GB or 5 %. Skipped for other servers, whose disk cannot be seen from here.
    """
    directory = await subject.inspection.embedded_directory()
    if directory is None:
        return skip("the server is not the embedded one; its disk cannot be seen from here")
    return disk_verdict(directory, await asyncio.to_thread(_usage, directory))


def disk_verdict(directory: Path, usage: Mapping[str, int]) -> Verdict:
    """Judge the bytes that are ``free`` of a disk's ``total``."""
    free, total = usage["free"], usage["total"]
    message = f"{free / 1e9:,.1f} GB of {total / 1e9:,.1f} GB are free at {directory}"
    if free < LITTLE_SPACE_BYTES or free < total * LITTLE_SPACE_SHARE:
        return warn(message, "free some space, or move the directory to a larger disk")
    return ok(message)


def _usage(directory: Path) -> dict[str, int]:
    return shutil.disk_usage(directory)._asdict()
