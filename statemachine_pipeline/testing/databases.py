"""A database of its own for each test: a copy of a template that was migrated once.

Synchronous, because fixtures are, so that tests of every kind can use it; a copy takes tens of
milliseconds, a migration most of a second.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Self

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from statemachine_pipeline.adapters.shipped import shipped_hooks
from statemachine_pipeline.database.migrate import migrate
from statemachine_pipeline.lifecycle import DocumentLifecycle
from statemachine_pipeline.stages import Stages, by_hand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from statemachine_pipeline.graph import Graph
    from statemachine_pipeline.lifecycle import Lifecycle

DRIVER = "postgresql+psycopg"
EMPTIED = (
    *("placement", "document", "transition", "text_owner"),
    *("worker", "pause", "breaker", "budget"),
)
"""Tables to empty, in this order and one transaction, so that nothing is left of documents, workers
and providers: what names a document goes before it, its history after it, and the rest with it."""


def connect(url: str | URL) -> psycopg.Connection[psycopg.rows.TupleRow]:
    """Open a plain connection in autocommit, outside any engine; whoever asks closes it."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


class Databases:
    """Databases made for tests, each dropped at the latest when this context manager ends.

    Names never repeat, so processes and machines can share one server.

    Args:
        server: URL of a database on a running server; its role may create databases.
    """

    def __init__(self, server: str) -> None:
        self._server = make_url(server).set(drivername=DRIVER)
        self._prefix = f"smp_test_{secrets.token_hex(6)}"
        self._count = 0
        self._templates: dict[tuple[object, ...], URL] = {}
        self._made: set[str] = set()

    def make(
        self,
        lifecycle: type[Lifecycle] | None = DocumentLifecycle,
        *,
        schema: str = "smp",
        hooks: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the URL of a new database that was migrated for a lifecycle.

        Args:
            lifecycle: The class; its template is made at the first call. None leaves the database
                empty.
            schema: The schema of the pipeline.
            hooks: Those of the pipeline. Needed where triggers are kept ``by_hand``, because the
                database knows them.

        Raises:
            DefinitionError: A hook does not fit the lifecycle, or ``schema`` is no name.
        """
        template = None if lifecycle is None else self._template(lifecycle, schema, hooks or {})
        return self._url(self._create(template))

    def drop(self, url: str) -> None:
        """Drop a database now, whoever is still connected; one that is gone is no error."""
        with connect(self._server) as connection:
            name = make_url(url).database
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._made.discard(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for url in list(self._made):
            self.drop(url)

    def _template(
        self, lifecycle: type[Lifecycle], schema: str, hooks: Mapping[str, Any]
    ) -> str | None:
        # What a hook does is nothing to the database; that there is one, or a person instead, is.
        known = frozenset((t, h if h is None or h is by_hand else ...) for t, h in hooks.items())
        key = lifecycle.graph.fingerprint, schema, known
        if key not in self._templates:
            self._templates[key] = self._migrated(lifecycle.graph, schema, hooks)
        return self._templates[key].database

    def _migrated(self, graph: Graph, schema: str, hooks: Mapping[str, Any]) -> URL:
        shipped = shipped_hooks()
        known = {trigger: shipped.get(trigger) for trigger in graph.forward_triggers()}
        stages = Stages(graph, known | dict(hooks))
        made = self._create()
        engine = sa.create_engine(made, poolclass=sa.NullPool)
        with engine.begin() as connection:
            migrate(connection, schema, graph, stages.kept_by_hand, stages.earned)
        return made

    def _create(self, template: str | None = None) -> URL:
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        source = f' TEMPLATE "{template}"' if template else ""
        with connect(self._server) as connection:
            connection.execute(f'CREATE DATABASE "{name}"{source}')
        made = self._server.set(database=name)
        self._made.add(self._url(made))
        return made

    @staticmethod
    def _url(database: URL) -> str:
        return database.render_as_string(hide_password=False)
