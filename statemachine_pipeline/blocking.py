"""Submit, look and apply without an event loop, in a transaction of yours: ``pipeline.blocking``.

For applications on synchronous sessions. Everything else, running above all, is asynchronous only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.arrivals import prepare
from statemachine_pipeline.database.borrowed import at_once, borrowing
from statemachine_pipeline.database.documents import Documents
from statemachine_pipeline.errors import DefinitionError
from statemachine_pipeline.records import Incoming

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from statemachine_pipeline.database.borrowed import Borrowed, Lent
    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.records import (
        Applied,
        Document,
        Explanation,
        Submitted,
        Transition,
    )
    from statemachine_pipeline.stages import Stages


class Blocking:
    """The Pipeline's methods of these names, on a connection that you lend.

    That is a synchronous SQLAlchemy Session or Connection, a psycopg 3 connection, or Django's
    ``connection``. What is written commits or vanishes with its transaction; nothing is committed
    here, but on a psycopg or Django connection in autocommit, where each call is a transaction.

    Made by ``Pipeline.blocking``.
    """

    def __init__(self, t: Tables, stages: Stages, *, has_store: bool) -> None:
        self._t, self._stages, self._has_store = t, stages, has_store

    def submit(
        self,
        connection: Lent,
        source: str | Path | bytes,
        *,
        source_uri: str | None = None,
        name: str | None = None,
        tenant: str = "default",
        metadata: Mapping[str, Any] | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> Submitted:
        """Hand over a document; see ``Pipeline.submit``.

        Raises:
            SourceRefused: It cannot be read or stored; nothing was written.
            DefinitionError: The pipeline keeps bytes in an object store, which takes an event loop.
        """
        if self._has_store:
            raise DefinitionError(
                "this pipeline keeps bytes in an object store, which only the asynchronous submit "
                "can reach; use Pipeline.submit, or a pipeline without blobs="
            )
        incoming = Incoming(
            source,
            source_uri=source_uri,
            name=name,
            metadata=metadata,
            priority=priority,
            not_before=not_before,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        submission = prepare(incoming, tenant)
        with borrowing(connection, writes=True) as borrowed:
            return at_once(self._documents(borrowed).submit(submission))

    def get(self, connection: Lent, document: UUID) -> Document:
        """Return one document as it stands.

        Raises:
            DocumentNotFound: There is none.
        """
        with borrowing(connection) as borrowed:
            return at_once(self._documents(borrowed).get(document))

    def history(self, connection: Lent, document: UUID) -> list[Transition]:
        """Return every transition of one document, oldest first.

        Raises:
            DocumentNotFound: There is none.
        """
        with borrowing(connection) as borrowed:
            return at_once(self._documents(borrowed).history(document))

    def explain(self, connection: Lent, document: UUID) -> Explanation:
        """Say why a document stands where it stands, what it waits for and what can be done.

        Raises:
            DocumentNotFound: There is none.
        """
        with borrowing(connection) as borrowed:
            return at_once(self._documents(borrowed).explain(document))

    def apply(
        self,
        connection: Lent,
        trigger: str,
        *documents: UUID,
        state: str | None = None,
        tenant: str | None = None,
        reason: str,
        by: str = "application",
        dry_run: bool = False,
    ) -> Applied:
        """Move documents by hand, all in one transaction; see ``Pipeline.apply``.

        Raises:
            DocumentNotFound: One of ``documents`` is not there; nothing was written.
            ValueError: Neither ids nor a state, or both.
        """
        with borrowing(connection, writes=True) as borrowed:
            return at_once(
                self._documents(borrowed).apply(
                    trigger,
                    documents,
                    state=state,
                    tenant=tenant,
                    by=by,
                    reason=reason,
                    dry_run=dry_run,
                )
            )

    def _documents(self, borrowed: Borrowed) -> Documents:
        lent: Any = borrowed
        return Documents(lent, self._t, self._stages)
