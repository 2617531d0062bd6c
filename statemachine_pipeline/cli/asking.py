"""`health --port`: ask the probe port of a worker. The standard library alone, and little of it.

An exec probe starts this every few seconds: typer alone would take ten times as long as all of it.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FAILED, UNREACHABLE = 0, 1, 5
"""As ``ending`` has them, which imports typer."""
HOST = "127.0.0.1"
ANSWER_SECONDS = 10.0
"""Longest wait for a worker, which says itself what does not answer within seven seconds."""
_FLAGS = ("--live", "--ready", "--json")
_OK_LINE = b" 200 "


def asked_for(words: Sequence[str]) -> tuple[str, int, str, bool] | None:
    """Return host, port, path and whether JSON is wanted; None for typer to read, or refuse."""
    if not words or words[0] != "health":
        return None
    host, port, flags = HOST, None, set()
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        if name in {"--port", "--host"}:
            given = value if equals else next(rest, "")
            host, port = (given, port) if name == "--host" else (host, given)
        elif word in _FLAGS:
            flags.add(word)
        else:
            return None
    if port is None or not port.isdecimal() or not host or {"--live", "--ready"} <= flags:
        return None
    path = "/livez" if "--live" in flags else "/readyz"
    return host, int(port), path, "--json" in flags


def ask(host: str, port: int, path: str, as_json: bool) -> NoReturn:
    """Ask a worker, print what it says, and leave: 0 for well, 1 for not, 5 without an answer."""
    try:
        code, body = _get(host, port, path)
    except (OSError, ValueError, OverflowError) as error:
        _give_up(f"nobody answers at {host} port {port}: {error}", as_json)
    try:
        found = json.loads(body)
        status, components = found["status"], found["components"]
    except (ValueError, LookupError, TypeError):
        _give_up(
            f"no worker answers at {host} port {port}: {path} is no page of health there", as_json
        )
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for one in components:
            if one["status"] != "ok":
                cure = f"; {one['fix']}" if one["fix"] else ""
                _tell(f"{one['name']} is {one['status']}: {one['says']}{cure}")
        sys.stdout.write(status + "\n")
    raise SystemExit(OK if code == OK else FAILED)


def _give_up(says: str, as_json: bool) -> NoReturn:
    """Leave without an answer; whoever reads JSON gets the form that an answer has."""
    if as_json:
        worker = {"name": "worker", "status": "failed", "says": says, "fix": ""}
        sys.stdout.write(json.dumps({"status": "failed", "components": [worker]}) + "\n")
    _tell(says)
    raise SystemExit(UNREACHABLE)


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Return whether a page is well, as an exit code, and its body.

    By hand: http.client would bring in all of email.
    """
    with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except TimeoutError:
            silence = f"it took the request and said nothing for {ANSWER_SECONDS:g} s"
            raise TimeoutError(f"{silence}, as a process does that is frozen") from None
    head, _, body = received.partition(b"\r\n\r\n")
    is_well = _OK_LINE in head.split(b"\r\n", 1)[0]
    return (OK if is_well else FAILED), body


def _tell(text: str) -> None:
    sys.stderr.write("".join(c if c.isprintable() else "?" for c in text) + "\n")
