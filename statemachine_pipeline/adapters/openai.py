"""The embedder that asks a service over HTTP: OpenAI's, Ollama's or TEI's protocol.

What a service answers becomes vectors or one of the signals that hooks raise; which of them decides
who pays for a failure: nobody, the stage, or the document.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import httpx

from statemachine_pipeline.adapters.complaints import Complaint, complaint
from statemachine_pipeline.adapters.connections import Connections
from statemachine_pipeline.adapters.embedding_apis import APIS
from statemachine_pipeline.batching import Limits, estimated_tokens
from statemachine_pipeline.hooks import RateLimited, Reject, Retry, StageFault
from statemachine_pipeline.observability.outbound import correlation_headers
from statemachine_pipeline.providers import report
from statemachine_pipeline.waits import asked_wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from statemachine_pipeline.adapters.tokens import TokenCounter

__all__ = ["Limits", "OpenAIEmbedder", "Purpose", "Timeouts"]

_UNTOLD_WAIT: Final = timedelta(seconds=10)
_HARMLESS: Final = "a"
_REFUSED_INPUT: Final = {400, 413, 422}
# 424 is what TEI says when its backend failed.
_PASSING: Final = {408, 409, 424, 425}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long one request may take, in seconds.

    Attributes:
        connect: Until the connection stands.
        read: Between two pieces of the answer, the first of which comes when all is computed.
        total: The whole request; must be less than the deadline of its stage.
    """

    connect: float = 5.0
    read: float = 60.0
    total: float = 90.0

    def __post_init__(self) -> None:
        if not 0 < self.connect <= self.total or not 0 < self.read <= self.total:
            raise ValueError(f"connect and read must be above zero, at most total; got {self}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """How a model is told what a text is for, where it wants to know.

    Attributes:
        prefix: Put before each text, such as ``query: ``.
        fields: Added to the request, such as ``{"input_type": "query"}``.
    """

    prefix: str = ""
    fields: Mapping[str, Any] = dataclasses.field(default_factory=lambda: MappingProxyType({}))


class OpenAIEmbedder:
    """Asks an embedding service, and tells its failures apart.

    * 429 is ``RateLimited`` for as long as the answer's headers say; timeouts, lost connections,
      5xx and answers that are no JSON are ``Retry``; a wrong key, an unknown model and JSON of
      another shape are ``StageFault``: no document is charged.
    * A request that is refused (400, 413, 422) is ``Reject``, so that the runner finds the text
      that is to blame. For a single text only if the service takes a harmless word meanwhile; if it
      refuses that too, the stage is at fault.
    * A text is never cut short in silence: one that is over the model's limit is rejected.

    Each request says for which documents it is made: ``X-Correlation-ID`` and ``traceparent``.

    It keeps its connections as long as it is entered (``async with``), which a runner does; it may
    be entered more than once.

    Args:
        model: As the service calls it. Part of the fingerprint, as are ``api``, ``dimensions`` and
            ``passage``: another one embeds everything anew.
        dimensions: Length of the model's vectors.
        api: The protocol. ``openai`` is spoken by many: vLLM, LM Studio, llama.cpp, LiteLLM.
            ``ollama`` and ``tei`` are the native ones of these two, which can be told not to cut.
        base_url: Where the service is, without the path of the request; by default OpenAI's, or
            where Ollama and TEI listen on this machine.
        key_name: Environment variable that holds the key, read at each request and never kept. By
            default ``OPENAI_API_KEY`` for OpenAI itself, and no key for any other address.
        send_dimensions: Ask for vectors of that length, of models that can shorten them.
        passage: How passages are sent.
        query: How questions are sent.
        limits: What goes into one request; what the ``api`` usually takes when None.
        timeouts: How long one request may take.
        tokens: Counts tokens as the model does, so that a text over its limit is never sent. By
            default it is the service that finds out which text is too long.

    Raises:
        ValueError: ``base_url`` is no address, or holds a password or a query; a number is not
            above zero.

    Attributes:
        limits: What goes into one request.
        batch_size: Most texts in one request.
        call_timeout: Longest that one request takes.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int,
        api: Literal["openai", "ollama", "tei"] = "openai",
        base_url: str | None = None,
        key_name: str | None = None,
        send_dimensions: bool = False,
        passage: Purpose = Purpose(),
        query: Purpose = Purpose(),
        limits: Limits | None = None,
        timeouts: Timeouts = Timeouts(),
        tokens: TokenCounter | None = None,
    ) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions must be above zero, got {dimensions}")
        self._name, self._api = api, APIS[api]
        self.model, self.dimensions = model, dimensions
        self._url = _address(base_url or self._api.base_url, self._api.path)
        self._place = self._url.netloc.decode("ascii")
        # OpenAI's key goes to OpenAI: an address of your own gets it only by name.
        self._key_name = key_name or (None if base_url else self._api.key_name)
        self._asked = dimensions if send_dimensions else None
        self._passage, self._query = passage, query
        self.limits = limits or self._api.limits
        self._tokens = tokens
        self._timeouts = timeouts
        self._connections = Connections(httpx.Timeout(timeouts.read, connect=timeouts.connect))
        self.batch_size = self.limits.inputs
        self.call_timeout = timedelta(seconds=timeouts.total)

    @property
    def fingerprint(self) -> str:
        """Identity of what it returns for a passage: the key, the address and limits are none."""
        told = {"prefix": self._passage.prefix} if self._passage.prefix else {}
        told |= self._passage.fields
        purpose = f",{json.dumps(told, sort_keys=True)}" if told else ""
        return f"{self._name}/1:{self.model},{self.dimensions}{purpose}"

    def __repr__(self) -> str:
        return (
            f"OpenAIEmbedder({self.model!r}, dimensions={self.dimensions}, api={self._name!r}, "
            f"base_url={str(self._url).removesuffix(self._api.path)!r})"
        )

    async def __aenter__(self) -> Self:
        self._connections.take()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connections.give_back()

    def count_tokens(self, text: str) -> int:
        """Return what a passage counts for in a request: a quarter of its bytes, or its tokens.

        OpenAI takes the former for the limit of one request; by the larger of the two it is too
        large for neither reading of that limit.

        Raises:
            Reject: It is over the model's limit, and ``tokens`` counts as the model does.
        """
        sent = self._passage.prefix + text
        estimate, most = estimated_tokens(sent), self.limits.tokens_per_input
        if self._tokens is None:
            return estimate
        count = self._tokens.count(sent)
        if count > most:
            raise Reject(
                f"it has {count:,} tokens, and {self.model} takes {most:,}: cut the text into "
                "smaller chunks",
                "too_many_tokens",
            )
        return max(count, estimate)

    async def embed(self, texts: Sequence[str]) -> list[Any]:
        """Embed passages, in one request.

        Returns:
            One vector for each text, in their order.

        Raises:
            Reject: The service refuses one of them, or all of them as too much.
            RateLimited: It asked to wait.
            Retry: It could not be reached, was too slow, or failed.
            StageFault: It refuses the key, the model or every text, or speaks another protocol.
        """
        if not texts:
            return []
        return await self._embed([self._passage.prefix + text for text in texts], "passage")

    async def embed_query(self, text: str) -> Any:
        """Embed one question in the way of ``query``; raises what ``embed`` does."""
        return (await self._embed([self._query.prefix + text], "question"))[0]

    async def _embed(self, texts: Sequence[str], what: str) -> list[Any]:
        try:
            return await self._ask(texts, what)
        except _Refused as refused:
            if len(texts) == 1:
                raise await self._verdict(refused.complaint, texts[0], what) from None
            # What it says may quote any of the texts.
            said = f"refuses {len(texts)} texts: {refused.complaint.status}"
            raise Reject(self._told(said), "input_refused") from None

    async def _verdict(self, refusal: Complaint, text: str, what: str) -> Reject | StageFault:
        """Ask for a harmless word before a document is charged for a wrong setting."""
        try:
            await self._ask([_HARMLESS], what)
        except _Refused as again:
            return self._fault(again.complaint, "refuses every text")
        size = f"{len(text.encode('utf-8', 'surrogatepass')):,} bytes"
        return Reject(
            self._told(f"refuses a {what} of {size}: {refusal.about(text)}"), "input_refused"
        )

    async def _ask(self, texts: Sequence[str], what: str) -> list[Any]:
        """Make one request and return its vectors, one for each text."""
        purpose = self._passage if what == "passage" else self._query
        body = {**self._api.body(self.model, texts, self._asked), **purpose.fields}
        response = await self._post(body)
        if response.status_code != httpx.codes.OK:
            report(headers=response.headers)
            raise self._signal(response)
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            report(headers=response.headers)
            raise Retry(f"{self._place} answered with something that is no JSON") from None
        report(tokens=_counted(answer), headers=response.headers)
        try:
            vectors = self._api.vectors(answer)
        except (LookupError, TypeError, ValueError) as error:
            raise StageFault(
                f"{self._url} answered, but not as {self._name!r} services do "
                f"({type(error).__name__}: {error}); check api= and base_url="
            ) from None
        if len(vectors) != len(texts):
            raise StageFault(f"{self._url} returned {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    async def _post(self, body: Mapping[str, Any]) -> httpx.Response:
        place, headers = self._place, self._headers()
        try:
            async with (
                self._connections.lend() as client,
                asyncio.timeout(self._timeouts.total),
            ):
                return await client.post(self._url, json=body, headers=headers)
        except httpx.ConnectTimeout:
            raise Retry(f"{place} took no connection for {self._timeouts.connect:g} s") from None
        except httpx.TimeoutException:
            raise Retry(f"{place} said nothing for {self._timeouts.read:g} s") from None
        except TimeoutError:
            raise Retry(f"{place} did not finish in {self._timeouts.total:g} s") from None
        except httpx.DecodingError:
            raise Retry(f"{place} answered with something that cannot be unpacked") from None
        except httpx.TransportError as error:
            name = type(error).__name__
            raise Retry(f"{place} could not be reached, or broke off: {name}") from None

    def _headers(self) -> dict[str, str]:
        headers = correlation_headers()
        if self._key_name is None:
            return headers
        key = os.environ.get(self._key_name, "").strip()
        if not key:
            raise StageFault(
                f"{self._key_name} is not set: {self._place} wants a key; "
                "set it where the worker runs"
            )
        if not (key.isascii() and key.isprintable()):
            # httpx would quote it in its complaint.
            raise StageFault(f"{self._key_name} holds characters that no key has")
        return headers | {"Authorization": f"Bearer {key}"}

    def _signal(self, response: httpx.Response) -> Exception:
        """Return what an answer other than 200 means."""
        said, code = complaint(response), response.status_code
        wait = asked_wait(response.headers, datetime.now(UTC))
        if said.is_about_input or (code in _REFUSED_INPUT and not said.names_a_setting):
            return _Refused(said)
        if code == httpx.codes.TOO_MANY_REQUESTS and said.code != "insufficient_quota":
            return RateLimited(wait or _UNTOLD_WAIT)
        if code >= httpx.codes.INTERNAL_SERVER_ERROR or code in _PASSING:
            return Retry(f"{self._place} failed: {said.status}", after=wait)
        if code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            # What it says may quote the key.
            wanted = f"the key in {self._key_name}" if self._key_name else "a request without key"
            return StageFault(f"{self._place} refuses {wanted}: {said.status}")
        if response.is_redirect:
            return self._fault(said, "sends the request elsewhere, so base_url is not its address")
        return self._fault(said, f"refuses the request for model {self.model!r}")

    def _fault(self, said: Complaint, what: str) -> StageFault:
        return StageFault(self._told(f"{what}: {said.about()}"))

    def _told(self, sentence: str) -> str:
        """Name the service in front of a sentence that quotes it, and take the key out."""
        key = os.environ.get(self._key_name or "", "").strip()
        return f"{self._url} {sentence.replace(key, '***') if key else sentence}"


class _Refused(Exception):
    """One of the texts of a request is to blame, or what is said about all of them."""

    def __init__(self, complaint: Complaint) -> None:
        self.complaint = complaint
        super().__init__(complaint.status)


def _counted(answer: Any) -> int | None:
    """Return how many tokens the service says it read; None when it does not."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) else None


def _address(base_url: str, path: str) -> httpx.URL:
    url = httpx.URL(base_url.rstrip("/") + path)
    if url.userinfo or url.query or url.fragment:  # before any of it is shown
        told = "put a key into a variable and name it by key_name"
        raise ValueError(f"base_url must hold no password and nothing after a ? or #; {told}")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"base_url must be an address like http://host:port, got {url}")
    return url
