"""Asked over real HTTP: shapes, batches, and who pays for which failure."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from statemachine_pipeline.adapters.openai import Limits, OpenAIEmbedder, Purpose, Timeouts
from statemachine_pipeline.hooks import Embedder, RateLimited, Reject, Retry, Signal, StageFault
from statemachine_pipeline.testing import Said, drawn

if TYPE_CHECKING:
    from statemachine_pipeline.testing import EmbeddingServer

KEY = "sk-test-0123456789abcdef"
APIS = {"openai": "/v1", "ollama": "", "tei": ""}
TEXTS = ["one", "two", "three"]


def embedder(service: EmbeddingServer, api: Any = "openai", **own: Any) -> OpenAIEmbedder:
    """Return an embedder that asks ``service``."""
    given = {"dimensions": 8, "base_url": service.address + APIS[api]} | own
    return OpenAIEmbedder("model-1", api=api, **given)


async def signal(service: EmbeddingServer, texts: list[str] | None = None, **own: Any) -> Signal:
    """Return what an embedder raises."""
    with pytest.raises(Signal) as caught:
        await embedder(service, **own).embed(texts or TEXTS)
    return caught.value


def place(service: EmbeddingServer) -> str:
    """Return the host and port that messages name."""
    return service.address.removeprefix("http://")


def near(found: list[Any], texts: list[str]) -> bool:
    """Tell whether vectors are those of texts, but for half the digits of a double."""
    return all(
        math.isclose(a, b, rel_tol=1e-6)
        for one, other in zip(found, drawn(8)(texts), strict=True)
        for a, b in zip(one, other, strict=True)
    )


# Shapes.


@pytest.mark.parametrize("api", APIS)
async def test_every_protocol_gives_the_same_vectors_in_order(
    service: EmbeddingServer, api: str
) -> None:
    """One vector for each text, in their order."""
    asking = embedder(service, api)
    assert isinstance(asking, Embedder)
    assert near(await asking.embed(TEXTS), TEXTS)
    assert near([await asking.embed_query("two")], ["two"])
    assert await asking.embed([]) == []


async def test_what_is_asked_of_openai(service: EmbeddingServer) -> None:
    """``dimensions`` goes out only where asked; vectors come in base64, half the bytes."""
    await embedder(service).embed(["a"])
    await embedder(service, send_dimensions=True).embed(["a"])
    plain, shortened = (asked.body for asked in service.asked)
    assert plain == {"model": "model-1", "input": ["a"], "encoding_format": "base64"}
    assert shortened == {**plain, "dimensions": 8}


async def test_what_is_asked_of_ollama_and_tei(service: EmbeddingServer) -> None:
    """A text is never cut short in silence: both are told not to."""
    await embedder(service, "ollama").embed(["a"])
    await embedder(service, "tei", send_dimensions=True).embed(["a"])
    ollama, tei = (asked.body for asked in service.asked)
    assert ollama == {"model": "model-1", "input": ["a"], "truncate": False}
    assert tei == {"inputs": ["a"], "truncate": False, "dimensions": 8}


async def test_a_server_may_answer_in_numbers(service: EmbeddingServer) -> None:
    """Some servers ignore ``encoding_format``."""
    numbers = drawn(8)(["a"])[0]
    service.says(Said(200, {"data": [{"index": 0, "embedding": numbers}]}))
    assert await embedder(service).embed(["a"]) == [numbers]


async def test_vectors_come_in_the_order_of_their_numbers(service: EmbeddingServer) -> None:
    """``index`` tells which text a vector belongs to."""
    service.mangles(lambda answer: {"data": answer["data"][::-1]})
    assert near(await embedder(service).embed(TEXTS), TEXTS)


async def test_questions_and_passages_are_told_apart(service: EmbeddingServer) -> None:
    """Models that want to know are told by a prefix, or by a field of the request."""
    asking = embedder(
        service,
        passage=Purpose(prefix="passage: ", fields={"input_type": "document"}),
        query=Purpose(prefix="query: ", fields={"input_type": "query"}),
    )
    await asking.embed(["a"])
    await asking.embed_query("b")
    told = [(asked.texts, asked.body["input_type"]) for asked in service.asked]
    assert told == [(["passage: a"], "document"), (["query: b"], "query")]


# Batches.


async def test_a_call_is_one_request(service: EmbeddingServer) -> None:
    """The runner forms requests by ``limits``; a call is sent as it is."""
    asking = embedder(service, limits=Limits(inputs=2))
    assert (asking.limits, asking.batch_size) == (Limits(inputs=2), 2)
    assert near(await asking.embed([*TEXTS, "four", "five"]), [*TEXTS, "four", "five"])
    assert [len(asked.texts) for asked in service.asked] == [5]


def test_a_text_counts_a_quarter_of_its_bytes_with_its_prefix(service: EmbeddingServer) -> None:
    """By OpenAI's own estimate for a request, which needs no tokenizer."""
    asking = embedder(service, passage=Purpose(prefix="p: "))
    assert [asking.count_tokens(text) for text in ("", "a", "ab", "é" * 4)] == [1, 1, 2, 3]


def test_exact_tokens_count_where_they_are_more_and_refuse_early(
    service: EmbeddingServer,
) -> None:
    """By a tokenizer that brings its vocabulary: a text over the limit is never sent."""
    pytest.importorskip("quicktok")
    from statemachine_pipeline.adapters.tokens import BpeTokens

    limits = Limits(inputs=100, tokens_per_input=7)
    asking = embedder(service, limits=limits, tokens=BpeTokens())
    # Estimated as 5, 3 and 3; counted as 4, 2 and 7.
    counts = [asking.count_tokens(t) for t in ("four tokens are here", "two words", "[1,2],[3]")]
    assert counts == [5, 3, 7]
    with pytest.raises(Reject) as caught:
        asking.count_tokens("one word after the other in a row")
    assert caught.value.code == "too_many_tokens"
    assert "it has 8 tokens, and model-1 takes 7: cut the text" in caught.value.reason
    assert service.asked == []


# Who pays: nobody.


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({}, 10),
    ],
)
async def test_a_rate_limit_waits_as_long_as_told(
    service: EmbeddingServer, headers: dict[str, str], seconds: float
) -> None:
    """429 -> RateLimited, as Retry-After or x-ratelimit-* say."""
    service.says(Said(429, {"error": {"message": "slow down"}}, headers))
    found = await signal(service)
    assert isinstance(found, RateLimited)
    assert found.after == timedelta(seconds=seconds)


@pytest.mark.parametrize("status", [500, 502, 503, 424, 408])
async def test_a_service_that_fails_is_asked_again(service: EmbeddingServer, status: int) -> None:
    """5xx -> Retry, after as long as it says."""
    service.says(Said(status, "<html>oh no</html>", {"Retry-After": "3"}))
    found = await signal(service)
    assert isinstance(found, Retry)
    assert found.reason.startswith(f"{place(service)} failed: {status} ")
    assert found.after == timedelta(seconds=3)


async def test_a_slow_answer_is_given_up(service: EmbeddingServer) -> None:
    """Timeouts, below the deadline, -> Retry."""
    service.block()
    found = await signal(service, timeouts=Timeouts(connect=20, read=0.1, total=20))
    assert isinstance(found, Retry)
    assert found.reason == f"{place(service)} said nothing for 0.1 s"
    found = await signal(service, timeouts=Timeouts(connect=0.2, read=0.2, total=0.2))
    assert isinstance(found, Retry)
    assert "0.2 s" in found.reason


async def test_an_answer_that_trickles_is_given_up() -> None:
    """The whole request has a limit of its own: a byte now and then keeps no read from ending."""
    stop = threading.Event()

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            # Until nobody reads it any more, which may be a moment before it is told to stop.
            with contextlib.suppress(OSError):
                while not stop.wait(0.02):
                    connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, args=[listener])
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # As long as all together, each of them: a busy machine may keep a byte waiting.
        limits = Timeouts(connect=1.5, read=1.5, total=1.5)
        asking = OpenAIEmbedder("m", dimensions=8, base_url=url, timeouts=limits)
        with pytest.raises(Retry, match=r"did not finish in 1\.5 s"):
            await asking.embed(["a"])
        stop.set()
        thread.join()


async def test_a_refused_connection_is_tried_again() -> None:
    """Connection refused -> Retry."""
    # Held all the while, or another process might listen there.
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{mute.getsockname()[1]}"
        reason = f"{place} could not be reached, or broke off: ConnectError"
        with pytest.raises(Retry, match=reason):
            await OpenAIEmbedder("m", dimensions=8, base_url=f"http://{place}").embed(["a"])


async def test_half_an_answer_is_tried_again(service: EmbeddingServer) -> None:
    """A page of a proxy in place of JSON says nothing of the service behind it."""
    service.says(Said(200, '{"data": [{"ind'))
    found = await signal(service)
    assert isinstance(found, Retry)
    assert found.reason == f"{place(service)} answered with something that is no JSON"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Said(200, "{}", {"Content-Encoding": "gzip"}), "cannot be unpacked"),
        (Said(200, "[" * 100_000), "is no JSON"),
    ],
)
async def test_an_answer_that_was_mangled_on_the_way_is_tried_again(
    service: EmbeddingServer, answer: Said, reason: str
) -> None:
    """Packed otherwise than its headers say, or nested without end -> Retry."""
    service.says(answer)
    found = await signal(service)
    assert isinstance(found, Retry)
    assert reason in found.reason


# Who pays: the stage.


async def test_a_missing_key_is_the_stages_fault(
    service: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is named; nothing is sent."""
    monkeypatch.delenv("MY_KEY", raising=False)
    found = await signal(service, key_name="MY_KEY")
    assert isinstance(found, StageFault)
    assert found.reason == (
        f"MY_KEY is not set: {place(service)} wants a key; set it where the worker runs"
    )
    monkeypatch.setenv("MY_KEY", "sk-\nabc")
    assert "holds characters that no key has" in str(await signal(service, key_name="MY_KEY"))
    assert service.asked == []


async def test_the_key_is_sent_and_never_told(
    service: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never in repr, errors or fingerprint, even if the service quotes it."""
    monkeypatch.setenv("MY_KEY", KEY)
    service.key = KEY
    asking = embedder(service, key_name="MY_KEY")
    assert near(await asking.embed(TEXTS), TEXTS)
    service.key = "another"
    found = await signal(service, key_name="MY_KEY")
    assert isinstance(found, StageFault)
    assert found.reason == f"{place(service)} refuses the key in MY_KEY: 401 Unauthorized"
    service.says(Said(404, {"error": f"no model for {KEY}"}))
    told = f"{await signal(service, key_name='MY_KEY')}{asking!r}{vars(asking)}{asking.fingerprint}"
    assert "no model for ***" in told
    assert KEY not in told


async def test_the_key_of_openai_goes_to_openai_only(
    service: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address of one's own gets a key only by name."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    await embedder(service).embed(["a"])
    await embedder(service, key_name="OPENAI_API_KEY").embed(["a"])
    sent = [asked.headers.get("Authorization") for asked in service.asked]
    assert sent == [None, f"Bearer {KEY}"]
    assert OpenAIEmbedder("m", dimensions=8)._key_name == "OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, {"error": "no"}, " refuses a request without key: 403 Forbidden"),
        (
            404,
            {"error": 'model "model-1" not found, try pulling it first'},
            "model 'model-1': 404 Not Found, model \"model-1\" not found, try pulling it first",
        ),
        (405, "", "refuses the request for model 'model-1': 405 Method Not Allowed"),
        (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, "429 Too Many Re"),
        (400, {"error": {"param": "dimensions", "message": "not 8"}}, "400 Bad Request, not 8"),
    ],
)
async def test_a_service_that_takes_nothing_is_the_stages_fault(
    service: EmbeddingServer, status: int, body: Any, reason: str
) -> None:
    """401, 403, 404, an empty account or a wrong setting: no document is charged."""
    service.says(Said(status, body))
    found = await signal(service)
    assert isinstance(found, StageFault)
    assert reason in found.reason
    assert len(service.asked) == 1


async def test_a_redirect_is_not_followed(service: EmbeddingServer) -> None:
    """Neither texts nor the key go to an address that nobody named."""
    service.says(Said(307, "", {"Location": f"{service.address}/embed"}))
    found = await signal(service)
    assert isinstance(found, StageFault)
    assert found.reason.endswith("base_url is not its address: 307 Temporary Redirect")
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda answer: {"data": answer["data"][:2]}, "returned 2 vectors for 3 texts"),
        (lambda answer: {"data": answer["data"][1:]}, "have gaps or repeat"),
        (lambda answer: {"data": [{"index": 0}] * 3}, "have gaps or repeat"),
        (lambda answer: {"data": [{"embedding": [1]}]}, "KeyError: 'index'"),
        (lambda answer: {"error": "strange"}, "KeyError: 'data'"),
        (lambda answer: [], "TypeError"),
        (lambda answer: {"data": [{"index": 0, "embedding": "!"}]}, "Error"),
        (lambda answer: {"data": [{"index": 0, "embedding": "AAAAAAA="}]}, "5 bytes are no"),
    ],
)
async def test_an_answer_of_another_shape_is_the_stages_fault(
    service: EmbeddingServer, change: Any, reason: str
) -> None:
    """Malformed answers: wrong count, gaps in the order, missing data."""
    service.mangles(change)
    found = await signal(service)
    assert isinstance(found, StageFault)
    assert reason in found.reason


@pytest.mark.parametrize("api", ["ollama", "tei"])
async def test_another_protocol_than_said_is_the_stages_fault(
    service: EmbeddingServer, api: str
) -> None:
    """The sentence names what to check."""
    service.says(Said(200, {"data": []}))
    found = await signal(service, api=api)
    assert isinstance(found, StageFault)
    assert f"not as {api!r} services do" in found.reason


async def test_a_service_that_refuses_every_text_is_at_fault_itself(
    service: EmbeddingServer,
) -> None:
    """400 for each: before a document is charged, a harmless word is tried."""
    service.bad = ""
    found = await signal(service, texts=["harmless"])
    assert isinstance(found, StageFault)
    assert found.reason.endswith("refuses every text: 400 Bad Request, bad input")
    assert service.asked[-1].texts == ["a"]


# Who pays: the document.


@pytest.mark.parametrize("message", ["bad input", "cannot embed 'text with poison' at all"])
async def test_a_refused_request_of_many_texts_is_rejected_at_once(
    service: EmbeddingServer, message: str
) -> None:
    """The runner halves it; what the service says may quote a document, so it is not told."""
    service.says(Said(400, {"error": {"message": message}}))
    found = await signal(service, texts=["one", "text with poison"])
    assert isinstance(found, Reject)
    assert found.code == "input_refused"
    assert found.reason.endswith("/embeddings refuses 2 texts: 400 Bad Request")
    assert len(service.asked) == 1


async def test_a_request_that_is_too_large_for_the_server_is_rejected(
    service: EmbeddingServer,
) -> None:
    """TEI takes 32 inputs unless told otherwise, and says 413."""
    service.most_inputs = 2
    found = await signal(service, api="tei")
    assert isinstance(found, Reject)
    assert "refuses 3 texts: 413 " in found.reason


@pytest.mark.parametrize(
    "message",
    [
        "the input length exceeds the context length",
        "input (999 tokens) is too large to process. increase the physical batch size",
    ],
)
async def test_a_text_that_is_too_long_is_rejected_whatever_the_status(
    service: EmbeddingServer, message: str
) -> None:
    """Ollama and llama.cpp answer 500 to a text that is too long; trying again never helps."""
    service.says(Said(500, {"error": message}))
    found = await signal(service, texts=["long " * 99], api="ollama")
    assert isinstance(found, Reject)
    assert found.reason.endswith(f"500 Internal Server Error, {message}")


@pytest.mark.parametrize("text", ["a confidential sentence of the document", "secret"])
async def test_a_reason_never_quotes_the_document(service: EmbeddingServer, text: str) -> None:
    """History outlives a deleted document, so reasons hold no document text."""
    body = {"message": f"cannot embed '{text[:30]}' at all", "error_type": "Validation"}
    service.says(Said(422, body))
    found = await signal(service, texts=[text])
    assert isinstance(found, Reject)
    assert found.reason.endswith("422 Unprocessable Content, Validation") or found.reason.endswith(
        "422 Unprocessable Entity, Validation"
    )


# Connections.


async def test_one_connection_serves_many_requests_while_entered(
    service: EmbeddingServer,
) -> None:
    """Opened once per runner; entered twice, it closes after the last."""
    asking = embedder(service)
    async with asking:
        async with asking:
            await asking.embed(["a"])
        await asking.embed(["b"])
        await asking.embed_query("c")
    assert service.connections == 1
    assert asking._connections._lent == {}


async def test_a_question_outside_leaks_nothing(service: EmbeddingServer) -> None:
    """Without having been entered, each call opens and closes its own."""
    asking = embedder(service)
    await asyncio.gather(asking.embed_query("a"), asking.embed_query("b"))
    await asking.embed_query("c")
    assert asking._connections._lent == {}


async def test_event_loops_share_nothing(service: EmbeddingServer) -> None:
    """A client belongs to the loop it was opened on."""
    asking = embedder(service)
    async with asking:
        await asking.embed(["a"])
        vector = await asyncio.to_thread(lambda: asyncio.run(asking.embed_query("b")))
        assert near([vector], ["b"])
        assert near(await asking.embed(["c"]), ["c"])


# What it is.


def test_the_fingerprint_is_what_changes_the_vectors_of_passages() -> None:
    """Address, key, limits and the way of questions change no passage's vector."""
    plain = OpenAIEmbedder("m", dimensions=8)
    same = OpenAIEmbedder(
        "m",
        dimensions=8,
        base_url="http://elsewhere",
        key_name="K",
        limits=Limits(inputs=1),
        query=Purpose(prefix="query: "),
    )
    told = OpenAIEmbedder("m", dimensions=8, passage=Purpose(prefix="p: ", fields={"a": 1}))
    assert plain.fingerprint == same.fingerprint == "openai/1:m,8"
    assert told.fingerprint == 'openai/1:m,8,{"a": 1, "prefix": "p: "}'
    assert OpenAIEmbedder("m", dimensions=8, api="tei").fingerprint == "tei/1:m,8"
    assert repr(plain) == (
        "OpenAIEmbedder('m', dimensions=8, api='openai', base_url='https://api.openai.com/v1')"
    )


@pytest.mark.parametrize(
    "url",
    [
        *("localhost:8080", "ftp://host", "http://", "http://u:secret@host"),
        *("ftp://u:secret@host", "http://host/v1?key=secret", "http://host/#secret"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """At once, and without quoting a password or a key."""
    with pytest.raises(ValueError, match="base_url must") as caught:
        OpenAIEmbedder("m", dimensions=8, base_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Timeouts(connect=0),
        lambda: Timeouts(read=9, total=8),
        lambda: Limits(inputs=0),
        lambda: OpenAIEmbedder("m", dimensions=0),
    ],
)
def test_numbers_that_let_nothing_through_are_refused(make: Any) -> None:
    """At once, not at the first document."""
    with pytest.raises(ValueError, match="must be above zero"):
        make()
