"""The feed of events: history of all documents, in an order that nothing is inserted into later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine_pipeline.database.mapping import answering, page_limit, to_transition
from statemachine_pipeline.database.statements import feed
from statemachine_pipeline.errors import HistoryAhead
from statemachine_pipeline.events import Event, Place, name_of, place_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.graph import Graph


class Feed:
    """Reads events of one schema.

    Args:
        engine: An async engine.
        t: The pipeline's tables.
        graph: Tells which states are ends.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, graph: Graph) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._t, self._graph = t, graph

    async def page(self, after: str | None, limit: int) -> list[Event]:
        """Return the events after a cursor, as far as nothing can come before them any more.

        Raises:
            HistoryAhead: History was restored from another server, and ``migrate`` not run since.
        """
        given = place_of(after)._asdict() | {"limit": page_limit(limit)}
        with answering("reading events"):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(feed.events(self._t), given)).all()
        if not rows:
            await self.horizon()
        events = []
        for row in rows:
            transition = to_transition(row)
            place = Place(row.xact, transition.document_id, transition.version)
            name = name_of(self._graph, transition)
            events.append(Event(name=name, transition=transition, cursor=str(place)))
        return events

    async def horizon(self) -> str:
        """Return a cursor before every transaction that runs now or later.

        Raises:
            HistoryAhead: As above.
        """
        with answering("reading events"):
            async with self._engine.connect() as connection:
                row = (await connection.execute(feed.horizon(self._t))).one()
        if row.is_ahead:
            raise HistoryAhead(self._t.schema)
        return str(Place(row.xact, place_of(None).document, 0))
