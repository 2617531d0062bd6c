"""Texts without secrets, and tracebacks without messages."""

from __future__ import annotations

import doctest
import time

import pytest

from statemachine_pipeline import redaction
from statemachine_pipeline.redaction import FRAMES, LONGEST, frames, message_of, redacted

KEY = "Zq8vPw3nLd5tRx"
MASKED = [
    ("Authorization: Bearer {}", "Authorization: Bearer ***"),
    ("{{'Authorization': 'Bearer {}', 'x': 1}}", "{{'Authorization': 'Bearer ***', 'x': 1}}"),
    ("authorization=Basic {}==", "authorization=Basic ***"),
    ("Proxy-Authorization: Digest username=ann, nonce={}", "Proxy-Authorization: Digest ***"),
    ("refused Bearer {}", "refused Bearer ***"),
    ("postgresql://ann:{}@db:5432/main", "postgresql://ann:***@db:5432/main"),
    ("postgresql+psycopg://ann:p@{}@db/main", "postgresql+psycopg://ann:***@db/main"),
    ("redis://:{}@cache/0", "redis://:***@cache/0"),
    ("https://{}@example.org/repository", "https://***@example.org/repository"),
    ("host=db password={} user=ann", "host=db password=*** user=ann"),
    ("password='{} with blanks' x", "password=*** x"),
    ('{{"api_key": "{}", "model": "m"}}', '{{"api_key": ***, "model": "m"}}'),
    ("OPENAI_API_KEY={}", "OPENAI_API_KEY=***"),
    ("client-secret: {}; next", "client-secret: ***; next"),
    ("/v1?key={}&model=m", "/v1?key=***&model=m"),
    ("/blob?sv=1&sig={}&se=2", "/blob?sv=1&sig=***&se=2"),
    ("?X-Amz-Signature={}&X-Amz-Date=1", "?X-Amz-Signature=***&X-Amz-Date=1"),
    ("Incorrect API key provided: sk-proj-{}.", "Incorrect API key provided: ***."),
    ("a ghp_{}abcdefgh b", "a *** b"),
    ("a hf_{}abcdefgh b", "a *** b"),
    ("a eyJhbGciOiJI.{}.sig b", "a *** b"),
    (
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY----- b",
        "*** b",
    ),
    ("-----BEGIN PRIVATE KEY-----\n{} cut", "***"),
]


@pytest.mark.parametrize(("text", "masked"), MASKED, ids=[f"{n}" for n in range(len(MASKED))])
def test_secrets_are_masked_by_their_shape(text: str, masked: str) -> None:
    """'Passwords in URLs, keys, tokens, signatures', and nothing around them."""
    whole = redacted(text.format(KEY))
    assert KEY not in whole
    assert whole == masked.replace("{{", "{").replace("}}", "}")
    assert redacted(whole) == whole


PLAIN = [
    "no text on 12 pages: a scan?",
    "the key was refused",
    "max_tokens=300 is over the limit; tokens: 512",
    "Basic information about bearers",
    "https://example.org:8080/a?page=2#part",
    "worker 7 died; the author: ann",
    "postgresql://ann@db/main",
    'relation "secret_plans" does not exist',
]


@pytest.mark.parametrize("text", PLAIN, ids=[f"{n}" for n in range(len(PLAIN))])
def test_what_is_no_secret_stays(text: str) -> None:
    """A mask everywhere would tell people nothing."""
    assert redacted(text) == text


def test_the_examples_in_the_docstrings_are_true() -> None:
    """The doctests run, and there are some."""
    failed, tried = doctest.testmod(redaction)
    assert (failed, tried) == (0, 4)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_message_is_masked_and_may_be_unreadable() -> None:
    """'Returns what an exception says, with secrets masked; never raises'."""
    assert message_of(ValueError(f"api_key={KEY}")) == "api_key=***"
    assert message_of(Mute()) == "its message cannot be read"
    gone = FileNotFoundError(2, "No such file or directory", "a.txt")
    assert message_of(gone) == "No such file or directory: 'a.txt'"


def test_of_a_message_that_quotes_a_document_the_beginning_is_looked_at() -> None:
    """Masking all of it would stop everything else of the process, its heartbeat too."""
    begun = time.process_time()
    found = message_of(ValueError("A sentence of a book. " * 1_000_000))
    assert time.process_time() - begun < 1
    assert len(found) == LONGEST


def _fail(secret: str) -> None:
    local = f"quotes the document: {secret}"
    raise KeyError(local)


def _fail_again(secret: str) -> None:
    try:
        _fail(secret)
    except KeyError as error:
        raise ValueError(f"because of {secret}") from error


def _raised(secret: str = "hush") -> BaseException:
    try:
        _fail_again(secret)
    except ValueError as error:
        return error
    raise AssertionError


def test_frames_tell_where_and_not_what() -> None:
    """'Types and frames only: neither messages nor local variables nor lines of source'."""
    told = frames(_raised())
    assert "hush" not in told
    assert "quotes" not in told
    lines = told.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["ValueError", "KeyError"]
    assert lines[1].startswith(f"  {__name__}:")
    assert lines[1].endswith(" in _raised")
    assert lines[-1].endswith(" in _fail")


def test_frames_of_a_group_tell_its_members() -> None:
    """'Causes and members of a group follow'."""
    told = frames(ExceptionGroup("hush", [_raised(), OSError("hush")]))
    heads = [line for line in told.splitlines() if not line.startswith(" ")]
    assert heads == ["ExceptionGroup", "ValueError", "OSError", "KeyError"]


def _deep(depth: int) -> None:
    if depth == 0:
        raise ValueError
    _deep(depth - 1)


def test_frames_are_bounded_and_the_innermost_are_kept() -> None:
    """A recursion of a thousand frames is told in thirty."""
    try:
        _deep(200)
    except ValueError as error:
        lines = frames(error).splitlines()
    assert lines[1] == "  ... 172 more"
    assert len(lines) == FRAMES + 2
