"""What embedding services expect and answer: three shapes of JSON, as data. No I/O."""

from __future__ import annotations

import base64
import dataclasses
import struct
from typing import TYPE_CHECKING, Any, Final

from statemachine_pipeline.batching import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_FLOAT_BYTES: Final = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One shape of requests and answers.

    Attributes:
        base_url: Where it is by default.
        path: What is added to the base URL.
        key_name: Environment variable of the key at the default base URL; None if it wants none.
        limits: What its services take by default.
        body: Model, texts, and dimensions to ask for or None, as a request's JSON.
        vectors: An answer's JSON as vectors in the order of the texts; raises KeyError, IndexError,
            TypeError or ValueError when the answer has another shape.
    """

    base_url: str
    path: str
    key_name: str | None
    limits: Limits
    body: Callable[[str, Sequence[str], int | None], dict[str, Any]]
    vectors: Callable[[Any], list[Any]]


def _to_openai(model: str, texts: Sequence[str], dimensions: int | None) -> dict[str, Any]:
    body = {"model": model, "input": list(texts), "encoding_format": "base64"}
    return body | _asked(dimensions)


def _from_openai(answer: Any) -> list[Any]:
    entries = sorted(answer["data"], key=lambda entry: entry["index"])
    if [entry["index"] for entry in entries] != list(range(len(entries))):
        raise ValueError("the numbers of the vectors have gaps or repeat")
    return [_numbers(entry["embedding"]) for entry in entries]


def _numbers(embedding: Any) -> Any:
    """Decode float32 in base64, less than half as long as JSON; some servers ignore the wish."""
    if not isinstance(embedding, str):
        return embedding
    data = base64.b64decode(embedding, validate=True)
    if len(data) % _FLOAT_BYTES:
        raise ValueError(f"{len(data):,} bytes are no numbers of {_FLOAT_BYTES} bytes each")
    # Little-endian whatever machine this is.
    return struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data)


def _to_ollama(model: str, texts: Sequence[str], dimensions: int | None) -> dict[str, Any]:
    return {"model": model, "input": list(texts), "truncate": False} | _asked(dimensions)


def _from_ollama(answer: Any) -> list[Any]:
    return list(answer["embeddings"])


def _to_tei(_: str, texts: Sequence[str], dimensions: int | None) -> dict[str, Any]:
    return {"inputs": list(texts), "truncate": False} | _asked(dimensions)


def _from_tei(answer: Any) -> list[Any]:
    if not isinstance(answer, list):
        raise TypeError("a list of vectors was expected")
    return answer


def _asked(dimensions: int | None) -> dict[str, int]:
    return {} if dimensions is None else {"dimensions": dimensions}


APIS: Final[Mapping[str, Api]] = {
    # At most 2,048 inputs, 8,192 tokens each, 300,000 together. Less inputs, so that what a crash
    # in the middle of a request loses stays small.
    # https://platform.openai.com/docs/api-reference/embeddings/create
    "openai": Api(
        base_url="https://api.openai.com/v1",
        path="/embeddings",
        key_name="OPENAI_API_KEY",
        limits=Limits(inputs=256),
        body=_to_openai,
        vectors=_from_openai,
    ),
    # Its OpenAI-like endpoint cuts long inputs short and does not say so; this one can be told not
    # to. https://docs.ollama.com/api/embed
    "ollama": Api(
        base_url="http://localhost:11434",
        path="/api/embed",
        key_name=None,
        limits=Limits(inputs=32),
        body=_to_ollama,
        vectors=_from_ollama,
    ),
    # Takes 32 inputs unless told otherwise (--max-client-batch-size); its OpenAI-like endpoint cuts
    # as --auto-truncate says. https://huggingface.github.io/text-embeddings-inference
    "tei": Api(
        base_url="http://localhost:8080",
        path="/embed",
        key_name=None,
        limits=Limits(inputs=32),
        body=_to_tei,
        vectors=_from_tei,
    ),
}
