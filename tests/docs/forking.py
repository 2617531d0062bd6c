"""A Python that has imported everything once, and forks for each program: ``python forking.py``.

A page has up to nine programs and commands. Each would import the package for a second and run for
a tenth of one; a fork begins where the import ends. It is a process of its own all the same, with
the folder, variables, arguments and standard streams of whoever asks, and ends as any Python does.

What was imported before could hide an import that a page forgets. It cannot where pages import by
``from ... import``, which ``test_docs`` demands of them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import pkgutil
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE_SECONDS = 180
PACKAGES = (
    *("statemachine_pipeline", "statemachine_pipeline.cli", "statemachine_pipeline.database"),
    "statemachine_pipeline.testing",
)
"""Imported with their modules, one level deep."""
LIBRARIES = (
    *("alembic.command", "alembic.op", "mako.template", "pydantic.type_adapter"),
    *("charset_normalizer", "defusedxml.ElementTree", "httpx", "mammoth", "numpy", "openpyxl"),
    *("pptx", "puremagic", "pypdfium2", "selectolax.lexbor", "semantic_text_splitter", "wordllama"),
)
"""What the package imports when a document needs it, or a schema."""
COMMAND = "from statemachine_pipeline.cli import main; main()"
_MOST_BYTES = 1 << 17
_RELAYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# Python without site-packages starts in a hundredth of a second.
_COMMAND = """#!{python} -IS
import json, os, signal, socket, sys
relayed = {relayed}
signal.pthread_sigmask(signal.SIG_BLOCK, relayed)
asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asking.connect({address!r})
program = dict(code={code!r}, argv=sys.argv, path={path!r})
program.update(folder=os.getcwd(), env=dict(os.environ))
socket.send_fds(asking, [json.dumps(program).encode()], [0, 1, 2])
process = int(asking.recv(64))
for number in relayed:
    signal.signal(number, lambda number, frame: os.kill(process, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, relayed)
code = int(asking.recv(64))
os._exit(code if code >= 0 else 128 - code)
"""


class Forking:
    """The Python that forks, from outside; it ends with whoever started it.

    Args:
        environment: What it imports under; each program has its own.

    Attributes:
        commands: A folder for the front of ``PATH``, in which ``statemachine-pipeline`` is a fork.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # An address has no room for the folders of pytest.
            place = Path(tempfile.mkdtemp(prefix="smp-docs-"))
            stack.callback(shutil.rmtree, place)
            self._address, self.commands = str(place / "asked"), place / "bin"
            self._write_command(self.commands / "statemachine-pipeline")
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                listening.bind(self._address)
                listening.listen(16)
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(listening.fileno())],
                    # Its threads would not live on in a fork.
                    env={**self._environment, "OPENBLAS_NUM_THREADS": "1"},
                    # Pipes, because streams remember whether they began as files.
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=[listening.fileno()],
                )
            stack.enter_context(self._process)  # closes its stdin, which ends it, and waits
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _write_command(self, path: Path) -> None:
        path.parent.mkdir()
        values = {
            "python": sys.executable,
            "relayed": [int(number) for number in _RELAYED],
            "address": self._address,
            "code": COMMAND,
            "path": str(Path(sys.executable).parent),
        }
        path.write_text(_COMMAND.format(**values))
        path.chmod(0o755)

    def run(
        self, code: str, folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Do what ``python -c`` does."""
        program = {
            "code": code,
            "argv": ["-c"],
            "path": "",
            "folder": str(folder),
            "env": dict(environment),
        }
        with contextlib.ExitStack() as stack:
            asking = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            asking.settimeout(PATIENCE_SECONDS)
            asking.connect(self._address)
            nothing = stack.enter_context(Path(os.devnull).open())
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            streams = [one.fileno() for one in (nothing, out, err)]
            socket.send_fds(asking, [json.dumps(program).encode()], streams)
            process = asking.recv(64)
            if not process:
                raise RuntimeError(
                    f"the Python that forks has ended: {self._process.communicate()}"
                )
            try:
                returncode = int(asking.recv(64))
            except TimeoutError:
                os.kill(int(process), signal.SIGKILL)
                raise
            texts = []
            for stream in (out, err):
                stream.seek(0)
                texts.append(stream.read())
        return subprocess.CompletedProcess(["python", "-c", code], returncode, *texts)


def main(listening: socket.socket) -> None:
    """Import, then fork for whoever asks; a fork returns once it has run what was asked for."""
    for package in PACKAGES:
        _import_all(package)
    for library in LIBRARIES:
        importlib.import_module(library)
    # WordLlama sets logging up for everybody when it is imported.
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, f"a fork has one thread, and not {len(threads)}"
    gc.collect()
    gc.freeze()
    _be(_asked(listening))


def _import_all(package: str) -> None:
    found = importlib.import_module(package)
    for module in pkgutil.iter_modules(found.__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _asked(listening: socket.socket) -> Mapping[str, Any]:
    """Return, in a fork, what was asked for; ends when whoever started this is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        asking, _ = listening.accept()
        if os.fork() == 0:
            break
        asking.close()
    listening.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, streams, _, _ = socket.recv_fds(asking, _MOST_BYTES, 3)
    if process := os.fork():
        _wait(process, asking, streams)
    asking.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    program: Mapping[str, Any] = json.loads(message)
    return program


def _wait(process: int, asking: socket.socket, streams: Sequence[int]) -> NoReturn:
    """Tell who is asking the number of the process, and how it ended."""
    for stream in streams:
        os.close(stream)
    with contextlib.suppress(BrokenPipeError):
        asking.send(b"%d" % process)
        _, status = os.waitpid(process, 0)
        asking.send(b"%d" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _be(program: Mapping[str, Any]) -> None:
    """Run a program as Python does at its start."""
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["env"])
    sys.argv, sys.path[0] = program["argv"], program["path"]
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(program["code"], "<string>", "exec"), module.__dict__)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
