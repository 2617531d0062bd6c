"""What the command line prints can be read by terminals and by programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

import pytest

from statemachine_pipeline.cli import output
from statemachine_pipeline.records import Option, Verdict


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one\n  two\tthree", "one two three"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07", "bell\\x07"),
        ("csi\x9b2J", "csi\\x9b2J"),
        ("left\u202eright", "left\\u202eright"),
        ("half \udcff", "half \\udcff"),
        ("Grüße, 日本", "Grüße, 日本"),
    ],
)
def test_no_text_can_command_a_terminal(text: str, shown: str) -> None:
    """Control characters, marks that reorder text and broken ones are shown as escapes."""
    assert output.plain(text) == shown


def test_records_become_plain_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Ids are text, times ISO 8601, records objects; control characters are escaped."""
    output.emit(
        {
            "id": UUID(int=1),
            "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            "metadata": MappingProxyType({"tags": ("a", "b")}),
            "option": Option(
                trigger="go", to_state="there", verdicts=(Verdict(guard="g", holds=True),)
            ),
            "text": "\x9b\u202e",
        }
    )
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-01-02T03:04:05+00:00",
        "metadata": {"tags": ["a", "b"]},
        "option": {
            "trigger": "go",
            "to_state": "there",
            "verdicts": [{"guard": "g", "holds": True, "error": None}],
        },
        "text": "\x9b\u202e",
    }


def test_columns_line_up_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped tables are plain lines: words to the left, numbers to the right, no colour."""
    output.table(("STATE", "N"), [("complete", 9), ("a\x1bb", 10)], state=0)
    assert capsys.readouterr().out == "STATE      N\ncomplete   9\na\\x1bb    10\n"
