"""An asynchronous session or connection that somebody lends, so that writes are part of theirs."""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session

from statemachine_pipeline.database.timeouts import commits_by_itself
from statemachine_pipeline.errors import PipelineError

Session: TypeAlias = AsyncSession | async_scoped_session[AsyncSession] | AsyncConnection


async def connection_of(session: Session | None) -> AsyncConnection | None:
    """Return the connection that a session works on.

    Raises:
        TypeError: It is not one of SQLAlchemy's asynchronous ones.
        PipelineError: It is in autocommit.
    """
    if isinstance(session, AsyncSession | async_scoped_session):
        session = await session.connection()
    if session is None:
        return None
    if isinstance(session, AsyncConnection):
        if await commits_by_itself(session):
            raise PipelineError(
                "this connection commits every statement by itself, and a document is written by "
                "several; give one without AUTOCOMMIT, or the AsyncSession"
            )
        return session
    raise TypeError(
        f"session= wants an AsyncSession or AsyncConnection, got a {type(session).__name__}; "
        "on a synchronous one use pipeline.blocking"
    )
