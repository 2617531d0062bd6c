"""What may be told of a failure: texts without secrets, tracebacks without messages. Pure.

Errors end in history, dead letters and logs, which outlive the document and are read by people who
may not see everything. Masking is by shape, so that it needs to know no secret; it rather masks too
much. Nothing here knows where a text goes.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

MASK: Final = "***"
FRAMES: Final = 30
"""Most frames that are told of one exception: the innermost, where it was raised."""
CAUSES: Final = 5
"""Most exceptions that are told of a chain or of a group."""
REASON_CHARS: Final = 2_000
"""Longest sentence of a signal that history keeps; as long as one that a child may tell."""
LONGEST: Final = 20_000
"""Most characters of a message that are looked at. Masking takes a microsecond each, during which
nothing else of the process runs, and an exception may quote a whole document."""

_NAMES: Final = (
    r"passwords?|passwd|passphrase|pwd|secrets?|token|api[_-]?keys?|access[_-]?keys?(?:[_-]?id)?|"
    r"secret[_-]?keys?|private[_-]?key|account[_-]?key|subscription[_-]?key|signature|sig|"
    r"credentials?|cookie"
)
_VALUE: Final = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[^\s"'&,;)}\]]+)"""
_SCHEMES: Final = r"(?:basic|bearer|digest|token|apikey|negotiate)"

_SECRET_NAME: Final = re.compile(rf"(?i)[\w.-]*?(?:{_NAMES}|authorization|jwt)")

# Each with words of which one stands, folded, in whatever the pattern matches: most texts have none
# of them, and to look for these costs a thirtieth.
_SECRETS: Final[tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...]] = (
    (
        ("-----begin",),
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        MASK,
    ),
    (  # Greedy: a password may hold an @, but no slash.
        ("://",),
        re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,200}:)[^\s/]{1,400}@"),
        rf"\1{MASK}@",
    ),
    (("://",), re.compile(r"(?i)\b(https?://)[^\s/:@]{1,400}@"), rf"\1{MASK}@"),
    # A header's value ends at its quote or its line: some schemes have many parts.
    (
        ("authorization",),
        re.compile(
            rf"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?{_SCHEMES}?)[^\r\n\"']+"
        ),
        rf"\1 {MASK}",
    ),
    (("bearer",), re.compile(r"(?i)\b(bearer\s+)[\w.~+/=*-]{6,}"), rf"\1{MASK}"),
    (
        ("basic",),
        re.compile(r"(?i)\b(basic\s+)(?=[a-z]*[0-9=+/])[\w+/=-]{6,}"),
        rf"\1{MASK}",
    ),
    (
        ("pass", "pwd", "secret", "token", "key", "sig", "credential", "cookie"),
        re.compile(rf"(?i)(?<![\w-])([\w-]{{0,40}}?(?:{_NAMES})[\"']?\s*[:=]\s*){_VALUE}"),
        rf"\1{MASK}",
    ),
    (
        ("key=", "code=", "auth=", "jwt="),
        re.compile(r"(?i)([?&](?:key|code|auth|jwt)=)[^\s&\"']+"),
        rf"\1{MASK}",
    ),
    (
        ("sk-", "pk-", "rk-", "gh", "glpat-", "xox", "akia", "asia", "aiza", "hf_", "eyj"),
        re.compile(
            r"\b(?:sk|pk|rk)-[\w*-]{8,}|\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}"
            r"|\bxox[a-z]-[\w-]{10,}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\bhf_\w{16,}"
            r"|\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"
        ),
        MASK,
    ),
)


def redacted(text: str) -> str:
    """Return ``text`` with secrets masked: passwords in URLs, keys, tokens, signatures.

    Headers of authorization, ``name=value`` and ``"name": "value"`` under names of secrets, private
    keys, and tokens that have the shape of a known service's. What is masked twice stays as it is
    after the first time.

    >>> redacted("postgresql://ann:s3cret@db/main refused; api_key=abc123, tokens=512")
    'postgresql://ann:***@db/main refused; api_key=***, tokens=512'
    """
    folded = text.casefold()
    for hints, pattern, masked in _SECRETS:
        for hint in hints:
            if hint in folded:
                text = pattern.sub(masked, text)
                break
    return text


@functools.lru_cache(maxsize=1_000)
def is_secret_name(name: str) -> bool:
    """Tell whether what has this name is a secret, whatever it looks like.

    >>> is_secret_name("openai_api_key"), is_secret_name("tokens")
    (True, False)
    """
    return _SECRET_NAME.fullmatch(name) is not None


def message_of(error: BaseException) -> str:
    """Return the beginning of what an exception says, with secrets masked; never raises.

    It may quote the document, so it belongs where it is erased with it.
    """
    try:
        text = str(error)[:LONGEST]
        if isinstance(error, OSError):  # whose name is told beside it: ENOENT for number 2
            text = text.removeprefix(f"[Errno {error.errno}] ")
        return redacted(text)
    except Exception:  # noqa: BLE001 - an exception of the user's may not even have a text
        return "its message cannot be read"


def storable(text: str) -> str:
    r"""Replace what PostgreSQL's text cannot hold: NUL and lone surrogates.

    >>> storable("a hole \x00")
    'a hole \ufffd'
    """
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def public(said: object) -> str:
    """Return what a hook said in a signal, which people should write and programs may fill."""
    if not isinstance(said, str):
        return repr(type(said))
    return storable(redacted(said[:LONGEST]))[:REASON_CHARS]


def frames(error: BaseException) -> str:
    """Return where an exception was raised, without what it says: that may quote the document.

    Types and frames only: module, line and function, the innermost last; neither messages nor local
    variables nor lines of source. Frames outside the hook, of this package's runner, are left out.
    Causes and members of a group follow, the exception itself comes first.
    """
    return "\n".join(line for one in chain(error) for line in _told(one))


def chain(error: BaseException) -> list[BaseException]:
    """List an exception, what it was raised from or during, and what it groups."""
    found: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting and len(found) < CAUSES:
        one = waiting.pop(0)
        if any(one is known for known in found):
            continue
        found.append(one)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        before = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if before is not None:
            waiting.append(before)
    return found


def _told(error: BaseException) -> Iterator[str]:
    yield type_name(type(error))
    lines = list(_frames(error.__traceback__))
    if len(lines) > FRAMES:
        yield f"  ... {len(lines) - FRAMES} more"
    yield from lines[-FRAMES:]


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        module = _module(trace.tb_frame)
        if not module.startswith("statemachine_pipeline.runner."):
            yield f"  {module}:{trace.tb_lineno} in {trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next


def _module(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) else "?"


def type_name(kind: type) -> str:
    """Return the dotted name of a class; those that are built in have no module.

    >>> type_name(ValueError), type_name(re.Pattern)
    ('ValueError', 're.Pattern')
    """
    module = str(kind.__module__)
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
