"""How many tokens a text has, for services that limit requests by tokens."""

from __future__ import annotations

import threading
from typing import Any, Protocol, runtime_checkable

from statemachine_pipeline.errors import MissingExtra


@runtime_checkable
class TokenCounter(Protocol):
    """Counts the tokens of a text exactly as one model does."""

    def count(self, text: str) -> int:
        """Return how many tokens ``text`` has."""


class BpeTokens:
    """Exact counts, by a tokenizer that brings its vocabulary: nothing is downloaded.

    Loaded when first asked: 0.3 s and 33 MB; then 70 million characters a second.

    Args:
        encoding: ``cl100k_base`` is that of OpenAI's embedding models; ``qwen3`` and ``llama3``
            are there too.

    Raises:
        MissingExtra: At the first count, when quicktok is not installed.

    Source: https://github.com/dmatth1/quicktok
    """

    def __init__(self, encoding: str = "cl100k_base") -> None:
        self.encoding = encoding
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def count(self, text: str) -> int:
        """Return how many tokens ``text`` has; names of special tokens count as plain text."""
        return int(self._load().count(text))

    def _load(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                try:
                    import quicktok
                except ImportError as error:
                    raise MissingExtra("quicktok", "tokens") from error
                self._tokenizer = quicktok.get_encoding(self.encoding)
            return self._tokenizer
