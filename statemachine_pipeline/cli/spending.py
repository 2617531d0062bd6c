"""`usage`: the tokens that requests were charged for, and what they cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.ending import OK, UsageError
from statemachine_pipeline.cli.opening import opened
from statemachine_pipeline.cli.times import time_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from statemachine_pipeline.cli.opening import Target
    from statemachine_pipeline.database.usage import UsageKey


async def usage(
    target: Target,
    *,
    by: UsageKey,
    since: str | None,
    tenant: str | None,
    prices: Sequence[str],
    limit: int,
    as_json: bool,
) -> int:
    """Print tokens by tenant, day, stage or document, the most first."""
    when = None if since is None else time_of(since, datetime.now(UTC))
    given = dict(map(_price, prices))
    async with opened(target, "stored") as pipeline:
        ask = pipeline.operations.oversight.usage
        try:
            # One more than wanted tells whether there are more.
            found = await ask(by=by, since=when, tenant=tenant, prices=given, limit=limit + 1)
        except ValueError as error:
            raise UsageError(f"--price: {error}") from error
    shown, more = found[:limit], len(found) > limit
    if as_json:
        for one in shown:
            output.emit({"by": by} | output.jsonable(one))
    else:
        rows = [(one.key, one.tokens, _cost(one.cost)) for one in shown]
        if not more:
            costs = [one.cost for one in shown if one.cost is not None]
            total = sum(one.tokens for one in shown)
            rows.append(("total", total, _cost(sum(costs) if costs else None)))
        output.table((by.upper(), "TOKENS", "COST"), rows)
    if more:
        output.say(f"there are more than these {limit}; --limit shows them")
    return OK


def _cost(cost: float | None) -> str:
    return "-" if cost is None else f"{cost:.6f}"


def _price(given: str) -> tuple[str, float]:
    """Read STAGE=PRICE."""
    stage, _, price = given.partition("=")
    try:
        number = float(price)
    except ValueError:
        number = -1.0
    if not stage or not 0 <= number < float("inf"):
        raise UsageError(
            f"--price wants STAGE=NUMBER, the price of a million tokens; got {given!r}"
        )
    return stage, number
