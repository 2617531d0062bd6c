"""How long a server asks to be left alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from statemachine_pipeline.waits import asked_wait

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"retry-after": "Wed, 25 Nov 2026 12:01:30 GMT"}, 90),
        ({"retry-after": "Wed, 25 Nov 2026 11:00:00 GMT"}, 0.1),
        ({"retry-after": "0"}, 0.1),
        ({"retry-after": "-3"}, 0.1),
        ({"retry-after": "999999"}, 3600),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"x-ratelimit-reset-tokens": "64"}, 64),
        ({"x-ratelimit-reset-tokens": "547ms"}, 0.547),
        ({"x-ratelimit-reset-tokens": "2m52.8s"}, 172.8),
        ({"x-ratelimit-reset-tokens": "1h30m"}, 3600),
        ({"x-ratelimit-reset-tokens": "2026-11-25T12:00:18Z"}, 18),
        # The budget that is used up counts; the later one when the answer does not tell which.
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "8s",
                "x-ratelimit-remaining-tokens": "90",
                "x-ratelimit-reset-tokens": "60s",
            },
            8,
        ),
        ({"x-ratelimit-reset-requests": "8s", "x-ratelimit-reset-tokens": "60s"}, 60),
        ({"retry-after": "later", "x-ratelimit-reset-requests": "4s"}, 4),
    ],
)
def test_the_wait_is_what_the_headers_say(headers: dict[str, str], seconds: float) -> None:
    """Retry-After in seconds or as a date, else x-ratelimit-reset-*; between 0.1 s and an hour."""
    assert asked_wait(httpx.Headers(headers), NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": ""},
        {"Retry-After": "later"},
        {"Retry-After": "9" * 400},
        {"x-ratelimit-reset-tokens": "5 apples"},
        {"x-ratelimit-reset-days": "1s"},
    ],
)
def test_headers_that_do_not_say_are_no_wait(headers: dict[str, str]) -> None:
    """None, so that the caller decides; whatever a server sends raises nothing."""
    assert asked_wait(httpx.Headers(headers), NOW) is None
