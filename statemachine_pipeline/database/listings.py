"""Documents that match: pages of them, and how many there are of each kind."""

from __future__ import annotations

import dataclasses
from datetime import timedelta  # noqa: TC003 - a field of a dataclass
from typing import TYPE_CHECKING, Any, Literal

from statemachine_pipeline.database.mapping import answering, page_limit, to_document
from statemachine_pipeline.database.statements import documents, listings
from statemachine_pipeline.database.statements.rows import leading
from statemachine_pipeline.errors import DocumentNotFound

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import Document
    from statemachine_pipeline.stages import Stages

GroupKey = Literal["state", "stage", "tenant", "code"]

MOST_COUNTED = 100_000
"""Documents that a count looks at, the newest first: 0.1 s; of more, it says that it stopped."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which documents are meant; None takes all.

    Attributes:
        state: Those that stand there.
        stage: Those that wait for or are at this stage, and dead letters that did not earn it.
        tenant: Whose.
        code: Dead letters that failed with it.
        older_than: Those that have not moved for so long.
        contains: Those whose name or id contains it, in any case.
    """

    state: str | None = None
    stage: str | None = None
    tenant: str | None = None
    code: str | None = None
    older_than: timedelta | None = None
    contains: str | None = None

    def parameters(self, stages: Stages) -> dict[str, Any]:
        """Return what the statements ask for."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        age = self.older_than
        at = [state for state in stages.graph.states if self.stage in stages.awaited_at(state)]
        return given | {"older_than": None if age is None else age.total_seconds(), "states": at}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many documents there are of one kind.

    Attributes:
        key: A state, stage, tenant or code; None for those that have none.
        count: How many.
    """

    key: str | None
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """How many documents match, by kind.

    Attributes:
        groups: The largest first.
        is_capped: Only the newest 100,000 that match were counted; there may be more.
    """

    groups: tuple[Group, ...]
    is_capped: bool


class Listings:
    """Looks for documents of one schema.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        stages: Tells which stage awaits in which state.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, stages: Stages) -> None:
        self._engine, self._t, self._stages = engine, t, stages

    async def page(self, which: Which, after: UUID | None, limit: int) -> list[Document]:
        """Return those that match in the order they came, after a given one.

        Raises:
            DocumentNotFound: There is no document ``after``.
        """
        given = which.parameters(self._stages) | {"after": after, "limit": page_limit(limit)}
        rows = await self._read(listings.matching(self._t), given)
        several = documents.several(self._t)
        if not rows and after is not None and not await self._read(several, {"ids": [after]}):
            raise DocumentNotFound(after)
        return [to_document(row) for row in rows]

    async def groups(self, which: Which, by: GroupKey) -> Groups:
        """Return how many match, by kind."""
        states = ((state, self._stages.awaited_at(state)) for state in self._stages.graph.states)
        served = leading((state, awaited[0]) for state, awaited in states if awaited)
        given = which.parameters(self._stages) | served | {"most": MOST_COUNTED}
        rows = await self._read(listings.groups(self._t, by=by), given)
        found = tuple(Group(key=row.key, count=row._mapping["count"]) for row in rows)
        return Groups(groups=found, is_capped=sum(one.count for one in found) >= MOST_COUNTED)

    async def _read(self, statement: Any, values: dict[str, Any]) -> Any:
        with answering("reading documents"):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, values)).all()
