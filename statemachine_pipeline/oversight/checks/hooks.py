"""What stages are made of: hooks, their vectors, the bytes that they read, whom they ask."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.blobs import TENANT_DIGITS, begin_to_read
from statemachine_pipeline.counting import counted
from statemachine_pipeline.database.providers import Providers
from statemachine_pipeline.database.statements import inspection
from statemachine_pipeline.obstacles import TIME
from statemachine_pipeline.oversight.checks.verdicts import Verdict, fail, named, ok, skip, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.blobs import Blobs
    from statemachine_pipeline.oversight.checks.verdicts import Subject
    from statemachine_pipeline.stages import Bound, Stage

_NO_OBJECT = "/".join(("0" * TENANT_DIGITS, "0" * 64, "0" * 32))
"""A key as those that are stored have, and none of them."""


async def hooks(subject: Subject) -> Verdict:
    """Whether every hook is of a known kind and can be found by those who run it.

    Fails when one that runs in child processes cannot be imported there by its name. Skipped when
    the hooks are not known.
    """
    bound = list(subject.stages)
    if not bound:
        return skip("the hooks are not known; name the pipeline with --app")
    problems = [problem for one in bound for problem in _problems(one)]
    if problems:
        return fail(
            named(problems),
            "define the hook at the top of a module that can be imported, not in __main__, or let "
            'it run in a thread: Stage(..., run="thread")',
        )
    kinds = [f"{one.trigger} ({one.stage.kind}, {one.stage.where})" for one in bound]
    return ok(f"{counted(len(bound), 'stage has a hook', 'stages have hooks')}: {', '.join(kinds)}")


def _problems(bound: Bound) -> Iterator[str]:
    if bound.stage.where != "process":
        return
    module, name = _place(bound.stage)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        yield f"{bound.trigger}: {module}.{name} cannot be imported in a child process ({error})"
    else:
        if module == "__main__":
            yield f"{bound.trigger}: {name} is defined in __main__, which no child process has"


def _place(stage: Stage) -> tuple[str, str]:
    hook = stage.hook
    named: Any = hook if inspect.isroutine(hook) or inspect.isclass(hook) else type(hook)
    return named.__module__, named.__qualname__


async def vectors(subject: Subject) -> Verdict:
    """Whether embedders have the dimensions of the vectors that are stored under their name.

    Fails when they do not: workers would not start, and searches would be refused. Skipped when no
    stage is known to embed.
    """
    embedders = [bound for bound in subject.stages if bound.stage.kind == "embedder"]
    if not embedders:
        return skip("no stage is known to embed")
    said = []
    for bound in embedders:
        wanted = bound.stage.hook.dimensions
        found = await subject.inspection.rows(inspection.vectors, fingerprint=bound.fingerprint)
        stored = {size for row in found for size in (row.dimensions, row.found) if size is not None}
        if stored - {wanted}:
            others = " and ".join(str(size) for size in sorted(stored - {wanted}))
            return fail(
                f"{bound.trigger}: {bound.fingerprint!r} has {wanted} dimensions, and vectors with "
                f"{others} are stored",
                "give the stage another version, Stage(..., version=...), and `reprocess`",
            )
        said.append(f"{bound.trigger} has {wanted} dimensions")
    return ok(", ".join(said))


async def blobs(subject: Subject) -> Verdict:
    """Whether the bytes of documents can be read where they are kept.

    One object that a document refers to is opened; if there is none, one that cannot exist is asked
    for. Fails when the store does not answer, refuses, or has lost the object, and when documents
    lie in a store and the pipeline names none; warns when it refuses and holds nothing yet. Skipped
    when bytes are in the database.
    """
    found = await subject.inspection.rows(inspection.stored_object)
    if subject.blobs is not None:
        return await _read(subject.blobs, found[0] if found else None)
    if found:
        return fail(
            "bytes of documents lie in an object store, and this pipeline names none",
            "Pipeline(..., blobs=...), or --blobs URL",
        )
    return skip("bytes are kept in the database")


async def _read(store: Blobs, stored: Any) -> Verdict:
    key, size_bytes = (_NO_OBJECT, 1) if stored is None else (stored.key, stored.size_bytes)
    try:
        await begin_to_read(store, key, size_bytes=size_bytes)
    except FileNotFoundError:
        if stored is None:
            return ok("the object store answers; no document's bytes are there yet")
        return fail(f"the object store has lost {key}", "restore it from the bucket's backup")
    except PermissionError as error:
        told, fix = f"the object store refuses to read: {error}", "check its credentials and rights"
        # A folder or bucket may be made by the first write.
        return warn(f"{told}; nothing is there yet", fix) if stored is None else fail(told, fix)
    except OSError as error:
        return fail(f"the object store does not answer: {error}", "check `blobs=` and the network")
    return ok(f"the object store answers: {key} can be read")


async def providers(subject: Subject) -> Verdict:
    """Whether the services that stages ask are asked now: by what workers noted, never by asking.

    Warns of each whose breaker is not closed or that wants to be left alone, since when and why.
    """
    standings = await Providers(subject.engine, subject.t).standings()
    down = []
    for one in standings:
        if one.state != "closed":
            down.append(f"{one.provider!r} is not asked since {one.since:{TIME}}: {one.reason}")
        elif one.blocked_until is not None:
            down.append(f"{one.provider!r} wants to be left alone until {one.blocked_until:{TIME}}")
    if down:
        return warn(
            "; ".join(down),
            "`statemachine-pipeline providers` shows when it is tried again; mend it, its key or "
            "its limits, and documents go on by themselves",
        )
    known = named([one.provider for one in standings])
    return ok(f"every provider is asked: {known}" if known else "no provider is known")
