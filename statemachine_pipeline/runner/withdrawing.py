"""Calls publishers to take documents away again, until it has worked."""

from __future__ import annotations

import asyncio
import contextlib
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from statemachine_pipeline.decide import Crashed, Failed, Postponed, Succeeded
from statemachine_pipeline.errors import DatabaseUnavailable
from statemachine_pipeline.hooks import Done, Product, Retry
from statemachine_pipeline.observability import instruments, log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.runner.calling import call_user, deadline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.database.withdrawals import Withdrawals
    from statemachine_pipeline.hooks import Claim
    from statemachine_pipeline.observability.metrics import Metrics
    from statemachine_pipeline.stages import Bound


class Withdrawing:
    """Withdraws documents from the stores of the publishers that a runner serves.

    Args:
        withdrawals: Which documents have to go.
        served: The stages of the runner.
        metrics: Where it is counted how many did not work.
    """

    def __init__(self, withdrawals: Withdrawals, served: Sequence[Bound], metrics: Metrics) -> None:
        self._withdrawals, self._metrics = withdrawals, metrics
        # Who asks whether anything is left waits for what is under way.
        self._turn = asyncio.Lock()
        self._publishers = [bound for bound in served if bound.stage.stores_elsewhere]

    async def withdraw(self, worker: int) -> int:
        """Try what is due now, once each; return how many were tried.

        Raises:
            DatabaseUnavailable: What is not finished is taken again once its lease has run out.
        """
        tried = 0
        async with self._turn:
            for bound in self._publishers:
                claims = await self._withdrawals.take(bound, worker)
                # All end under the lock, whatever one of them raises.
                ends = await asyncio.gather(
                    *(self._withdraw(claim, bound) for claim in claims), return_exceptions=True
                )
                _raise_first(ends)
                tried += len(claims)
        return tried

    async def _withdraw(self, claim: Claim, bound: Bound) -> None:
        try:
            outcome = await call_user(bound.stage, self._call, claim, bound)
            if isinstance(outcome, Succeeded):
                outcome = await call_user(bound.stage, self._finish, claim, outcome.product)
        except asyncio.CancelledError:
            with contextlib.suppress(DatabaseUnavailable):
                await self._withdrawals.give_back(claim, timedelta(0), "its worker stopped")
            raise
        if not isinstance(outcome, Succeeded):
            await self._give_back(claim, bound, outcome)

    async def _call(self, claim: Claim, bound: Bound) -> Done:
        async with deadline(bound.stage.deadline):
            return Done(await bound.stage.hook.withdraw(claim))

    async def _finish(self, claim: Claim, product: object) -> Done:
        if product is not None and not isinstance(product, Product):
            found = type(product).__name__
            raise Retry(f"withdraw returned a {found}; it may return a product or None")
        await self._withdrawals.finish(claim, product)
        return Done()

    async def _give_back(
        self, claim: Claim, bound: Bound, outcome: Failed | Postponed | Crashed
    ) -> None:
        after = None if isinstance(outcome, Crashed) else outcome.after
        draw = random.random()  # noqa: S311 - jitter, not a secret
        pause = max(
            bound.stage.policy.delay(attempt=claim.attempt, draw=draw), after or timedelta(0)
        )
        self._metrics.add(instruments.WITHDRAWALS_FAILED, stage=claim.stage)
        note(
            log_events.WITHDRAWAL_FAILED,
            "{} was not withdrawn by the publisher of {} at try {}: {}",
            *(claim.document.id, claim.stage, claim.attempt, outcome.reason),
            document_id=str(claim.document.id),
            error_code=outcome.code,
        )
        # Without the detail: it may quote a document that is deleted.
        await self._withdrawals.give_back(claim, pause, outcome.reason)


def _raise_first(ends: Sequence[BaseException | None]) -> None:
    for raised in ends:
        if raised is not None:
            raise raised
