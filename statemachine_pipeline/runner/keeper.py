"""Keeps one child: a small process beside it that watches it and cleans up behind it.

A child forks while it is one thread that has imported next to nothing. The copy runs the hooks; the
keeper outlives whatever they do to it, sees how much they use, and kills everything that descends
from it when it dies, when it uses too much, when the worker says so (SIGTERM) and when the worker
dies. It runs nothing of a document, and imports little: what is loaded before the fork is held
twice in the end. Linux only: elsewhere a child has no keeper.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from statemachine_pipeline.runner import offspring

if TYPE_CHECKING:
    from statemachine_pipeline.runner import wire

IS_POSSIBLE: Final = sys.platform == "linux"
LOOK_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 5.0
_AWAITED: Final = {signal.SIGCHLD, signal.SIGTERM}


def go_on_kept(
    parent_id: int,
    memory_bytes: int,
    processes: int,
    folder: str,
    answers: int,
) -> None:
    """Return in a copy of this process, which becomes the keeper of that copy.

    Args:
        parent_id: The worker.
        memory_bytes: Most memory of the copy with all it starts.
        processes: Most processes at a time, the copy included.
        folder: What is removed in the end: the worker may not live to do it.
        answers: Where the worker is told which limit was passed, in place of an answer.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    offspring.die_with(parent_id, signal.SIGTERM)
    offspring.adopt()
    keeper_id = os.getpid()
    child_id = os.fork()
    if child_id == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        offspring.die_with(keeper_id, signal.SIGKILL)
        offspring.adopt()
        return
    status = 0
    try:
        passed, status = _watch(child_id, memory_bytes, processes)
        offspring.end_all(PATIENCE_SECONDS)
        _remove(folder)
        if passed:
            from statemachine_pipeline.runner import serving

            serving.tell_limit(answers, passed)
    finally:
        _end_as(status)


def _watch(child_id: int, memory_bytes: int, processes: int) -> tuple[wire.Limit | None, int]:
    """Wait until the child is to be cleaned up behind; return why, and how it ended by itself."""
    while True:
        heard = signal.sigtimedwait(_AWAITED, LOOK_SECONDS)
        ended, status = os.waitpid(child_id, os.WNOHANG)
        if ended:
            return None, status
        if heard is not None and heard.si_signo == signal.SIGTERM:
            return None, signal.SIGKILL
        passed = _passed(memory_bytes, processes)
        if passed:
            return passed, signal.SIGKILL


def _passed(memory_bytes: int, processes: int) -> wire.Limit | None:
    alive = [one for one in offspring.descendants(os.getpid()) if not offspring.has_ended(one)]
    if len(alive) > processes:
        return "processes"
    if offspring.memory_bytes(alive, memory_bytes) > memory_bytes:
        return "memory_bytes"
    return None


def _remove(folder: str) -> None:
    try:
        Path(folder).rmdir()
    except OSError:
        import shutil  # takes milliseconds, and most folders are empty

        shutil.rmtree(folder, ignore_errors=True)


def _end_as(status: int) -> NoReturn:
    """End with the exit code or by the signal that the child ended with."""
    if os.WIFSIGNALED(status):
        death = os.WTERMSIG(status)
        if death != signal.SIGKILL:
            signal.signal(death, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {death})
        os.kill(os.getpid(), death)
    os._exit(os.waitstatus_to_exitcode(status))
