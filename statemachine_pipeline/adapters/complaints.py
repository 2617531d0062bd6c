"""What a service says went wrong, in the shapes of OpenAI, Ollama and TEI. Pure."""

from __future__ import annotations

import dataclasses
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx

_SHOWN_CHARS: Final = 300
_QUOTE_CHARS: Final = 16
"""As many characters in a row of a document count as quoting it."""

_TOO_LONG: Final = ("context length", "context size", "too large to process")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An answer that is not 200.

    Attributes:
        status: Code and its name.
        code: The service's word for it; empty if it has none.
        setting: The part of the request that it names; empty if it names none.
        message: Its sentence, at most 300 characters; may quote what was sent.
    """

    status: str
    code: str = ""
    setting: str = ""
    message: str = ""

    @property
    def names_a_setting(self) -> bool:
        """Whether it is about something else in the request than the texts."""
        return bool(self.setting) and "input" not in self.setting

    @property
    def is_about_input(self) -> bool:
        """Whether a text is too long, whatever the status: Ollama and llama.cpp say so with 500."""
        return any(phrase in self.message.lower() for phrase in _TOO_LONG)

    def about(self, text: str | None = None) -> str:
        """Return status and message; without the message if it quotes ``text``."""
        said = self.message
        if text is not None and (text in said or _share(said, text)):
            said = self.code
        return f"{self.status}, {said}" if said else self.status


def complaint(response: httpx.Response) -> Complaint:
    """Read an answer that is not 200; one of an unknown shape has only its status."""
    code = response.status_code
    known = code in {status.value for status in HTTPStatus}
    status = f"{code} {HTTPStatus(code).phrase}" if known else str(code)
    try:
        body = response.json()
    except ValueError:
        return Complaint(status=status)
    fields = body if isinstance(body, dict) else {}
    # OpenAI nests them, TEI's and Ollama's "error" is the sentence itself.
    inner = fields.get("error")
    if isinstance(inner, dict):
        fields = inner
    return Complaint(
        status=status,
        code=_word(fields.get("code") or fields.get("type") or fields.get("error_type")),
        setting=_word(fields.get("param")),
        message=_word(inner if isinstance(inner, str) else fields.get("message")),
    )


def _share(one: str, other: str) -> bool:
    ends = range(_QUOTE_CHARS, len(one) + 1)
    return any(one[end - _QUOTE_CHARS : end] in other for end in ends)


def _word(value: Any) -> str:
    return " ".join(value.split())[:_SHOWN_CHARS] if isinstance(value, str) else ""
