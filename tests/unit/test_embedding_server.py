"""A provider that fails as told: what a client sees of each trouble, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from statemachine_pipeline.testing import EmbeddingServer, Said, Trouble, drawn, services

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client(service: EmbeddingServer) -> Iterator[httpx.Client]:
    """A client that trusts no proxy of this machine."""
    with httpx.Client(base_url=service.address, trust_env=False) as made:
        yield made


def embed(client: httpx.Client, *texts: str) -> httpx.Response:
    """Ask for vectors as OpenAI's clients do."""
    return client.post("/v1/embeddings", json={"model": "any", "input": list(texts)})


def vectors(answer: httpx.Response) -> list[list[float]]:
    """Return what a good answer holds."""
    return [entry["embedding"] for entry in answer.json()["data"]]


def test_the_same_text_has_the_same_vector(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Its vectors mean nothing and are the same for the same text'."""
    assert vectors(embed(client, "one", "two")) == drawn(8)(["one", "two"])
    assert service.embedded == {"one": 1, "two": 1}


def test_what_it_was_asked_is_known(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Every request, in order of arrival', those that met trouble too."""
    embed(client, "one")
    service.ails(services.SAYS_500)
    embed(client, "two")
    assert service.texts == ["one", "two"]
    assert [asked.path for asked in service.asked] == ["/v1/embeddings"] * 2
    assert service.embedded == {"one": 1}


def test_a_limit_says_when_to_come_back(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Too many requests, with what OpenAI's headers say of it'."""
    service.says(services.SAYS_429)
    refused = embed(client, "one")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert embed(client, "one").status_code == 200


def test_trouble_lasts_until_it_recovers(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Treat every request so, until ``recovers``'."""
    service.ails(services.SAYS_500)
    assert [embed(client, "one").status_code for _ in range(3)] == [500] * 3
    service.recovers()
    assert embed(client, "one").status_code == 200


def test_nonsense_is_no_json(service: EmbeddingServer, client: httpx.Client) -> None:
    """It answers with 200 and with what nobody asked for."""
    service.says(services.TALKS_NONSENSE)
    with pytest.raises(json.JSONDecodeError):
        embed(client, "one").json()


def test_half_a_body_breaks_off(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Half of the body is sent, then the connection ends'."""
    service.says(services.BREAKS_OFF)
    with pytest.raises(httpx.RemoteProtocolError):
        embed(client, "one")


def test_a_slow_answer_outlasts_patience(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Nobody gets it before the trouble has passed'."""
    service.ails(Trouble(Said(503), late=True))
    # To connect may take longer: only the answer is late.
    client.timeout = httpx.Timeout(20, read=0.05)
    with pytest.raises(httpx.ReadTimeout):
        embed(client, "one")


def test_dimensions_may_be_wrong(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Another one may make some of wrong dimensions'."""
    service.vectorise = drawn(3)
    assert [len(vector) for vector in vectors(embed(client, "one"))] == [3]


def test_it_goes_down_and_comes_up(service: EmbeddingServer, client: httpx.Client) -> None:
    """'Refuse connections, and break those that are kept', at the same address afterwards."""
    assert embed(client, "one").status_code == 200
    service.goes_down()
    with pytest.raises(httpx.TransportError):
        embed(client, "one")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", client.base_url.port))
    service.comes_up()
    assert embed(client, "one").status_code == 200


def test_threads_may_ask_at_once(service: EmbeddingServer) -> None:
    """'May be told things meanwhile': every text is counted, and every order given once."""
    service.says(*[services.SAYS_500] * 5)
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=service.address, trust_env=False) as own:
            statuses.extend(embed(own, "one").status_code for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 35 + [500] * 5
    assert service.embedded == {"one": 35}
