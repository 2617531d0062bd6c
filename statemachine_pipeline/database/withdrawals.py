"""Documents in stores outside this database: noted before they get there, withdrawn once they must.

A row of ``placement`` says that a document may stand in a publisher's store. It is written before
the publisher is called, so that a crash cannot leave anything there that nobody knows of, and goes
when the withdrawal succeeded. Deleting only marks it, in the transaction that deletes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.database.mapping import answering, to_document
from statemachine_pipeline.database.statements import placements
from statemachine_pipeline.errors import StaleClaim
from statemachine_pipeline.hooks import Claim

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy.ext.asyncio import AsyncEngine

    from statemachine_pipeline.database.tables import Tables
    from statemachine_pipeline.hooks import Product, Reader
    from statemachine_pipeline.stages import Bound


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Documents of one stage's publisher that still have to go from its store.

    Attributes:
        stage: The trigger that the publisher earns.
        documents: How many.
        since: Since when the one that waits longest has to go (UTC).
        last_error: Why a try failed, if one did.
    """

    stage: str
    documents: int
    since: datetime
    last_error: str | None


class Withdrawals:
    """The placements of one pipeline.

    Args:
        engine: An engine on psycopg 3.
        t: The pipeline's tables.
        reader: Put into claims.
    """

    def __init__(self, engine: AsyncEngine, t: Tables, reader: Reader) -> None:
        self._engine, self._t, self._reader = engine, t, reader
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def place(self, claim: Claim) -> bool:
        """Note that a claim's publisher is about to write; False when a withdrawal comes first.

        Raises:
            StaleClaim: The claim is no longer held, so nothing may be published.
        """
        given = _key(claim) | {"until": claim.deadline_at}
        with answering("noting where a document is published"):
            async with self._autocommit.connect() as connection:
                found = (await connection.execute(placements.place(self._t), given)).one()
        if not found.held:
            raise StaleClaim(claim.document.id, claim.stage, claim.sequence)
        return bool(found.placed)

    async def take(self, bound: Bound, worker: int) -> list[Claim]:
        """Take documents that are to be withdrawn now, at most as many as the stage has slots.

        Each is given back when its claim is neither finished nor given back by its deadline.
        """
        given = {
            "trigger": bound.trigger,
            "limit": bound.stage.slots,
            "lease": bound.stage.deadline.total_seconds(),
        }
        with answering("taking withdrawals"):
            async with self._autocommit.connect() as connection:
                rows = (await connection.execute(placements.take(self._t), given)).all()
        return [self._to_claim(row, bound, worker) for row in rows]

    def _to_claim(self, row: Any, bound: Bound, worker: int) -> Claim:
        return Claim(
            document=to_document(row),
            stage=bound.trigger,
            sequence=row.claim_seq,
            attempt=row.attempts,
            crashes=0,
            worker=worker,
            due_at=row.withdraw_at,
            deadline_at=row.run_at,
            entered_at=row.withdraw_at,
            fingerprint=bound.fingerprint,
            reader=self._reader,
        )

    async def finish(self, claim: Claim, product: Product | None) -> None:
        """Forget a document that has gone from its store, and write what its publisher returned."""
        with answering("finishing a withdrawal"):
            async with self._engine.begin() as connection:
                found = await connection.execute(placements.forget(self._t), _key(claim))
                if found.first() is not None and product is not None:
                    await product.write(connection, claim)

    async def give_back(self, claim: Claim, after: timedelta, error: str) -> None:
        """Have a withdrawal tried again, after a pause, by whoever comes first."""
        given = _key(claim) | {"after": after.total_seconds(), "error": error}
        with answering("giving a withdrawal back"):
            async with self._autocommit.connect() as connection:
                await connection.execute(placements.try_again(self._t), given)

    async def waiting(self) -> list[Backlog]:
        """Return what still has to go, a stage each; empty when nothing has."""
        with answering("looking at withdrawals"):
            async with self._autocommit.connect() as connection:
                rows = (await connection.execute(placements.waiting(self._t))).all()
        return [Backlog(**row._mapping) for row in rows]


def _key(claim: Claim) -> dict[str, Any]:
    # No name of a column: SQLAlchemy would set it.
    return {"document": claim.document.id, "trigger": claim.stage, "seq": claim.sequence}
