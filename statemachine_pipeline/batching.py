"""How much goes into one request of an embedder, and how long texts wait for company. Pure."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any, Final

_BYTES_PER_TOKEN: Final = 4


def estimated_tokens(text: str) -> int:
    """Return a quarter of a text's length in UTF-8, rounded up.

    So OpenAI counts for the limit of one request, which costs it no tokenizer. True counts differ:
    English has 3.8 bytes a token in the middle and source code 1.4.
    """
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much an embedder takes in one request.

    Attributes:
        inputs: Most texts.
        tokens: Most tokens together, as the embedder counts them; a text that has more goes alone.
        tokens_per_input: Most tokens of one text, by the model's own count.
    """

    inputs: int
    tokens: int = 300_000
    tokens_per_input: int = 8_192

    def used(self, inputs: int, tokens: int) -> float:
        """Return which share of a request is full, by texts or tokens, whichever is nearer."""
        return max(inputs / self.inputs, tokens / self.tokens)

    def __post_init__(self) -> None:
        if min(self.inputs, self.tokens, self.tokens_per_input) < 1:
            raise ValueError(f"limits must be above zero, got {self}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How one runner forms the requests of an embedder, from the texts of all documents in hand.

    Attributes:
        inputs: Most texts of a request; what the embedder takes when None.
        tokens: Most tokens of a request; what the embedder takes when None.
        age: How long a text may wait for others before a request goes that is not full.
        requests: Most requests under way at the same time.
    """

    inputs: int | None = None
    tokens: int | None = None
    age: timedelta = timedelta(milliseconds=50)
    requests: int = 4

    def __post_init__(self) -> None:
        given = [n for n in (self.inputs, self.tokens, self.requests) if n is not None]
        if min(given) < 1 or self.age < timedelta(0):
            raise ValueError(f"numbers must be above zero, and age not below it; got {self}")

    def within(self, limits: Limits) -> Limits:
        """Return the limits of a request.

        Raises:
            ValueError: More is asked for than the embedder takes.
        """
        inputs, tokens = self.inputs or limits.inputs, self.tokens or limits.tokens
        if inputs > limits.inputs or tokens > limits.tokens:
            raise ValueError(
                f"its embedder takes {limits.inputs:,} inputs and {limits.tokens:,} tokens in one "
                f"request, and its batches may have {inputs:,} and {tokens:,}"
            )
        return dataclasses.replace(limits, inputs=inputs, tokens=tokens)


def limits_of(embedder: Any) -> Limits:
    """Return an embedder's own ``limits``, or those that follow from its ``batch_size``.

    Raises:
        ValueError: It has ``limits`` that are none, or takes no text at all.
    """
    own = getattr(embedder, "limits", None)
    if own is not None and not isinstance(own, Limits):
        raise ValueError(f"its embedder's limits must be a Limits, found {type(own).__name__}")
    return own or Limits(inputs=embedder.batch_size)
