"""The role that this program works as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database import roles
from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.oversight.checks.verdicts import Verdict, fail, named, ok, skip, warn

if TYPE_CHECKING:
    from statemachine_pipeline.oversight.checks.verdicts import Subject


async def role(subject: Subject) -> Verdict:
    """What the role may do that this program works as.

    Fails when it lacks a right that the work needs. Warns when it is a superuser, owns the tables,
    may create things in the schema or may UPDATE, DELETE or TRUNCATE history: whoever gets hold of
    it can then change what happened, or drop what guards it. The embedded server has one role.
    Skipped where there is no schema.
    """
    rows = await subject.inspection.rows(inspection.role, role=None)
    if not rows:
        return skip(f"there is no schema {subject.t.schema}")
    (found,) = rows
    privileges = await subject.inspection.rows(inspection.privileges, role=None)
    lacking = roles.missing(found, privileges)
    fix = f"as the owner: statemachine-pipeline migrate --app-role {found.name}"
    if lacking:
        return fail(f"role {found.name} lacks {named(lacking)}", fix)
    excess = roles.excess(found, privileges)
    if excess and await subject.inspection.embedded_directory():
        return ok(f"role {found.name} is the embedded server's only one")
    if excess:
        return warn(
            f"role {found.name} {' and '.join(excess)}",
            "as the owner: statemachine-pipeline migrate --app-role ROLE, and let workers and "
            "applications connect as ROLE",
        )
    return ok(f"role {found.name} has the rights that work needs, and no others on history")
