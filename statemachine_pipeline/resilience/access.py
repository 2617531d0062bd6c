"""One runner's way to the providers of its stages."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from statemachine_pipeline.providers import under_way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from statemachine_pipeline.providers import Provider


class Access:
    """One runner's way to one provider.

    Args:
        provider: Which one; None for stages that ask nobody.
    """

    def __init__(self, provider: Provider | None) -> None:
        self._provider = provider

    @contextlib.asynccontextmanager
    async def request(self, *, tokens: int = 0) -> AsyncIterator[None]:
        """Wait until the provider may be asked, then run the block as one request to it.

        Args:
            tokens: How many it will count, as far as is known before.
        """
        with under_way(_Request()):
            yield


class Accesses:
    """One runner's ways to all providers of its stages."""

    def __init__(self) -> None:
        self._by_name: dict[str, Access] = {}

    def of(self, provider: Provider | None) -> Access:
        """Return the way to a provider, the same for all stages that name it."""
        if provider is None:
            return Access(None)
        return self._by_name.setdefault(provider.name, Access(provider))


class _Request:
    def report(self, *, tokens: int | None, headers: Mapping[str, str]) -> None:
        """Correct the budget by what the provider counted."""
