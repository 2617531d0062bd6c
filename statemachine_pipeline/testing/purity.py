"""Whether a guard is a pure function of its facts: by its compiled code, and by asking it again.

The code is looked into, not the source, so that it works for every function; functions of the
guard's own package that it calls are looked into too. What only an instance knows (a client handed
in by a closure) is not seen: asking again may still show it.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import sys
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.testing.witnesses import sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from statemachine_pipeline.graph import Guard
    from statemachine_pipeline.records import Facts

_OUTSIDE = MappingProxyType(
    {
        "time.": "the clock",
        "datetime.datetime.now": "the clock",
        "datetime.datetime.utcnow": "the clock",
        "datetime.datetime.today": "the clock",
        "datetime.date.today": "the clock",
        "random.": "chance",
        "secrets.": "chance",
        "uuid.uuid1": "chance",
        "uuid.uuid4": "chance",
        "numpy.random.": "chance",
        "builtins.hash": "a hash that differs between processes",
        "builtins.id": "an address that differs between processes",
        "builtins.input": "the terminal",
        "builtins.print": "the terminal",
        "os.": "the environment",
        "posix.": "the operating system",
        "nt.": "the operating system",
        "genericpath.": "files",
        "_io.": "files",
        "io.": "files",
        "tempfile.": "files",
        "shutil.": "files",
        "subprocess.": "other programs",
        "socket.": "the network",
        "urllib.request.": "the network",
        "http.client.": "the network",
        "httpx.": "the network",
        "requests.": "the network",
        "psycopg.": "a database",
        "sqlalchemy.": "a database",
        "sqlite3.": "a database",
        "logging.": "the log",
        "loguru.": "the log",
    }
)
_FILE_METHODS = frozenset({"read_text", "read_bytes", "write_text", "write_bytes"})
_MUTABLE = (list, dict, set, bytearray)
_TIMES = 64
"""A guard that tosses a coin is asked as often; one that reads much is asked twice on each."""
_ABSENT = object()


def impurities(guard: Guard) -> tuple[str, ...]:
    """Say what a guard does besides comparing its facts, in words that follow its name."""
    if not isinstance(guard.function, FunctionType):
        return ()
    return tuple(dict.fromkeys(_told(guard.function)))


def wavering(guard: Guard) -> tuple[str, Facts] | None:
    """Ask a guard again; return what was wrong and on which facts, if anything was."""
    tried = sample([guard])
    times = max(2, _TIMES // len(tried))
    for facts in tried:
        # Of its own, because the basis is shared.
        own = dataclasses.replace(facts, reported=dict(facts.reported))
        verdicts = {guard.judge(own).holds for _ in range(times)}
        if own.reported != facts.reported:
            return "changes facts.reported", facts
        if len(verdicts) > 1:
            return "says yes and no to the same facts", facts
    return None


def _told(guard: FunctionType) -> Iterator[str]:
    package = guard.__module__.partition(".")[0]
    waiting, seen = [guard], {guard}
    while waiting:
        function = waiting.pop()
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        known = {name: cell.cell_contents for name, cell in cells.items()}
        for code in _codes(function.__code__):
            yield from _stores(code, set(cells))
            for name, value in _used(code, function.__globals__, known):
                yield from _judged(name, value)
                is_function = isinstance(value, FunctionType) and value not in seen
                if is_function and value.__module__.partition(".")[0] == package:
                    seen.add(value)
                    waiting.append(value)


def _stores(code: CodeType, outer: set[str]) -> Iterator[str]:
    for one in dis.get_instructions(code):
        is_outer = one.opname == "STORE_DEREF" and one.argval in outer
        if one.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"} or is_outer:
            yield f"changes the variable {one.argval} outside of it"


def _used(
    code: CodeType, variables: dict[str, Any], known: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield each thing from outside that code names, with what is reached through its dots."""
    local: dict[str, Any] = {}
    value = module = _ABSENT
    for one in dis.get_instructions(code):
        name = str(one.argval)
        if one.opname == "STORE_FAST":
            local[name], value = value, _ABSENT
            continue
        if one.opname == "LOAD_GLOBAL":
            value = variables.get(name, getattr(builtins, name, _ABSENT))
        elif one.opname == "LOAD_DEREF":
            value = known.get(name, _ABSENT)
        elif one.opname.startswith("LOAD_FAST"):
            value = local.get(name, _ABSENT)
        elif one.opname == "IMPORT_NAME":
            value = module = sys.modules.get(name, _ABSENT)
        elif one.opname == "IMPORT_FROM":
            value = getattr(module, name, _ABSENT)
        elif one.opname in {"LOAD_ATTR", "LOAD_METHOD"}:
            is_namespace = isinstance(value, ModuleType | type)
            value = getattr(value, name, _ABSENT) if is_namespace else _ABSENT
        else:
            value = _ABSENT
            continue
        yield name, value


def _judged(name: str, value: Any) -> Iterator[str]:
    if value is _ABSENT:
        if name in _FILE_METHODS:
            yield f"reads files ({name})"
        return
    if isinstance(value, _MUTABLE):
        yield f"reads {name}, a {type(value).__name__} that may be changed while it runs"
        return
    dotted = _dotted(value)
    about = next((what for start, what in _OUTSIDE.items() if dotted.startswith(start)), None)
    if about is not None and not isinstance(value, ModuleType):
        yield f"reads {about} ({name})"


def _dotted(value: Any) -> str:
    """Return where a thing comes from and what it is called there."""
    owner = getattr(value, "__self__", None)
    if isinstance(owner, type):
        home = owner.__module__
    else:
        home = getattr(value, "__module__", None) or type(owner).__module__
    return f"{home}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
