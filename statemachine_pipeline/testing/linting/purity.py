"""Whether a guard is a pure function of its facts: by its compiled code, and by asking it again.

The code is looked into, not the source, so that it works for every function; functions of the
guard's own package that it calls are looked into too. What only an instance knows (a client handed
in by a closure) is not seen: asking again may still show it.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import inspect
import re
import sys
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from statemachine_pipeline.testing.linting.witnesses import sample

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


def is_opaque(guard: Guard) -> bool:
    """Tell whether a guard compares by what its code does not show, such as a pattern.

    Then facts that it agrees to may exist without being found.
    """
    asked = guard.function
    if not isinstance(asked, FunctionType):
        return True
    values = (value for one in _own(asked) for _, value in _used(one))
    return any(
        isinstance(value, re.Pattern)
        or (inspect.isroutine(value) and not _is_own(value, asked) and not _is_builtin(value))
        for value in values
    )


def computes(guard: Guard) -> bool:
    """Tell whether a guard does more than compare; else no counts make it raise."""
    if not isinstance(guard.function, FunctionType):
        return True
    return any(one.opname.startswith(("BINARY", "CALL")) for one in _instructions(guard.function))


def _told(guard: FunctionType) -> Iterator[str]:
    for function in _own(guard):
        yield from _stores(function)
        for name, value in _used(function):
            yield from _judged(name, value)


def _own(guard: FunctionType) -> list[FunctionType]:
    """Return a guard and the functions of its package that it calls, directly or not."""
    functions = [guard]
    for function in functions:
        called = (value for _, value in _used(function) if _is_own(value, guard))
        functions += [value for value in dict.fromkeys(called) if value not in functions]
    return functions


def _is_builtin(value: Any) -> bool:
    return getattr(value, "__module__", None) == "builtins"


def _is_own(value: Any, guard: FunctionType) -> bool:
    """Tell whether something is a function of the guard's own package."""
    if not isinstance(value, FunctionType):
        return False
    return value.__module__.partition(".")[0] == guard.__module__.partition(".")[0]


def _stores(function: FunctionType) -> Iterator[str]:
    outer = set(function.__code__.co_freevars)
    for one in _instructions(function):
        is_outer = one.opname == "STORE_DEREF" and one.argval in outer
        if is_outer or one.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
            yield f"changes the variable {one.argval} outside of it"


def _used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield each thing from outside that code names, with what is reached through its dots."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    outer = {name: cell.cell_contents for name, cell in cells}
    local: dict[str, Any] = {}
    value = module = _ABSENT
    for one in _instructions(function):
        name = str(one.argval)
        if one.opname == "STORE_FAST":
            local[name], value = value, _ABSENT
            continue
        if one.opname == "LOAD_GLOBAL":
            value = function.__globals__.get(name, getattr(builtins, name, _ABSENT))
        elif one.opname == "LOAD_DEREF":
            value = outer.get(name, _ABSENT)
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


def _instructions(function: FunctionType) -> Iterator[dis.Instruction]:
    """Walk the code of a function and of those written inside of it."""
    waiting = [function.__code__]
    for code in waiting:
        yield from dis.get_instructions(code)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


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
