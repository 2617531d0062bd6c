"""Real child processes that crash, hang, hog, forge and outlive, and a pool that stands it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import child_functions as functions
import pytest
from fix_pipelines import leap

from statemachine_pipeline.adapters.parsers import DocumentParser
from statemachine_pipeline.hooks import Reject, Retry, StageFault
from statemachine_pipeline.limits import LEAST_MEMORY_BYTES, ProcessLimits
from statemachine_pipeline.records import ParsedText, Source, Span
from statemachine_pipeline.runner import offspring
from statemachine_pipeline.runner.children import (
    ChildCrashed,
    Children,
    ChildTimedOut,
    ChildUnavailable,
    HookRaised,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

LONG = 60.0
LEAK_ROUNDS = int(os.environ.get("SMP_LEAK_ROUNDS", "10"))
DOCUMENTS = Path(__file__).parents[2] / "examples" / "documents"


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a process, a zombie or a folder of a child behind."""
    mark = f"SMP_TEST_MARK={os.urandom(8).hex()}"
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    until = time.monotonic() + LONG
    while marked(mark) and time.monotonic() < until:
        time.sleep(0.01)  # what was killed is not gone in the same moment
    assert marked(mark) == []
    assert zombies() == []
    assert list(tmp_path.glob("smp-child-*")) == []


def marked(mark: str) -> list[str]:
    """Return the command lines of processes that have a variable in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


def zombies() -> list[int]:
    """Return children of this process that ended and were not collected."""
    return [one for one in offspring.descendants(os.getpid()) if offspring.has_ended(one)]


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    """A pool of one, so that every call meets what the one before left."""
    limits = ProcessLimits(memory_bytes=400 * 1024 * 1024, cpu_seconds=20)
    async with Children(1, limits) as pool:
        yield pool


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    """A named pipe: reading waits for the writer, and the other way round."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


def has_ended(process_id: int) -> bool:
    """Wait until a process is gone; False if it is still there after a minute."""
    try:
        descriptor = os.pidfd_open(process_id)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(LONG * 1_000))
    finally:
        os.close(descriptor)


async def read(fifo: str) -> list[int]:
    """Return the numbers that a child writes, once it does."""
    text = await asyncio.to_thread(Path(fifo).read_text, encoding="ascii")
    return [int(number) for number in text.split()]


async def test_results_keep_their_types(children: Children) -> None:
    """Returns what it returned: texts, chunks and products of them."""
    assert await children.call(functions.parsed, timeout_seconds=LONG) == ParsedText(
        "é\x01", (Span(page=1, start=0, end=2),), ("lost",)
    )


async def test_a_parser_runs_in_a_child(children: Children) -> None:
    """A bound method of a picklable object."""
    path = DOCUMENTS / "annual-report-2024.pdf"
    source = Source(name="a", media_type="application/pdf", size_bytes=1, path=path)
    parser = DocumentParser()
    assert await children.call(parser.parse, source, timeout_seconds=LONG) == parser.parse(source)


async def test_a_child_imports_only_what_its_calls_need(children: Children) -> None:
    """It imports next to nothing until a call names what it needs."""
    modules = set(await children.call(functions.loaded, timeout_seconds=LONG))
    assert not modules & {"sqlalchemy", "psycopg", "statemachine", "numpy", "httpx"}


async def test_large_payloads_pass_both_ways(children: Children) -> None:
    """With data as bytes through the pipe."""
    data = bytes(30_000_000)
    source = Source(name="a", media_type=None, size_bytes=len(data), data=data)
    assert await children.call(functions.length, source, timeout_seconds=LONG) == len(data)
    assert len(await children.call(functions.large, 10_000_000, timeout_seconds=LONG)) == 10_000_000


async def test_an_answer_that_cannot_be_sent_is_the_fault_of_the_stage(children: Children) -> None:
    """As one that may not be returned is elsewhere: the document is not charged."""
    with pytest.raises(StageFault, match="the hook returned set, which a child cannot send"):
        await children.call(functions.set_of_numbers, timeout_seconds=LONG)


async def test_signals_are_raised_again(children: Children) -> None:
    """Raises Signal: The function raised it."""
    with pytest.raises(Reject) as rejected:
        await children.call(functions.reject, timeout_seconds=LONG)
    assert (rejected.value.reason, rejected.value.code) == ("no pages", "empty")
    with pytest.raises(Retry) as retried:
        await children.call(functions.retry, timeout_seconds=LONG)
    assert retried.value.after == timedelta(seconds=7)


async def test_other_exceptions_are_told(children: Children) -> None:
    """Raises HookRaised: The function raised anything else."""
    with pytest.raises(HookRaised) as caught:
        await children.call(functions.fail, timeout_seconds=LONG)
    symptoms = caught.value.symptoms
    assert symptoms.types[:2] == ("KeyError", "LookupError")
    assert caught.value.message == "'missing'"
    assert caught.value.trace.splitlines()[-1].startswith("  child_functions:")
    assert "missing" not in caught.value.trace


CRASHES: list[tuple[Any, str, int]] = [
    (functions.abort, "the child process died of SIGABRT", -signal.SIGABRT),
    (functions.fault, "the child process died of SIGSEGV", -signal.SIGSEGV),
    (functions.leave, "the child process exited with code 3 in the middle of a call", 3),
]


@pytest.mark.parametrize(("function", "message", "exit_code"), CRASHES)
async def test_a_crash_is_told_and_the_next_call_gets_another_child(
    children: Children, function: Any, message: str, exit_code: int
) -> None:
    """Raises ChildCrashed: The child died."""
    before = await children.call(functions.process_id, timeout_seconds=LONG)
    with pytest.raises(ChildCrashed) as caught:
        await children.call(function, timeout_seconds=LONG)
    assert str(caught.value) == message
    assert caught.value.exit_code == exit_code
    assert ("last words" in caught.value.stderr) == (function is functions.abort)
    assert await children.call(functions.process_id, timeout_seconds=LONG) != before


async def test_what_a_crashed_child_started_ends_with_it(children: Children, fifo: str) -> None:
    """A process group of its own that is killed whole."""
    reading = asyncio.create_task(read(fifo))
    with pytest.raises(ChildCrashed):
        await children.call(functions.tell_and_abort, fifo, timeout_seconds=LONG)
    (grandchild,) = await reading
    assert has_ended(grandchild)


async def test_a_child_over_its_memory_is_replaced(children: Children) -> None:
    """memory_bytes: One process that asks for more gets none."""
    with pytest.raises(ChildCrashed, match="went over its limit of 419,430,400 bytes of memory"):
        await children.call(functions.take_memory, 1_000_000_000, timeout_seconds=LONG)
    assert await children.call(functions.take_memory, 100_000, timeout_seconds=LONG) == 100_000


async def test_processor_time_is_limited_for_each_call() -> None:
    """cpu_seconds: Most processor time of each of its processes in one call."""
    async with Children(1, ProcessLimits(cpu_seconds=1)) as pool:
        with pytest.raises(ChildCrashed, match="used more than 1 seconds of processor time"):
            await pool.call(functions.spin, timeout_seconds=LONG)


async def test_prints_and_reads_of_a_hook_disturb_nothing(children: Children) -> None:
    """The pipes are moved away from where a hook that prints or reads would disturb them."""
    assert await children.call(functions.disturb, timeout_seconds=LONG) == "heard ''"


async def test_a_child_taken_over_is_not_believed(children: Children) -> None:
    """Answers are rebuilt field by field, never unpickled."""
    with pytest.raises(ChildCrashed, match="answered nonsense"):
        await children.call(functions.forge, timeout_seconds=LONG)


async def test_a_call_out_of_time_is_killed_with_all_it_started(
    children: Children, fifo: str
) -> None:
    """A call that timed out kills its child with everything that it started."""
    call = asyncio.create_task(children.call(functions.tell_and_pause, fifo, timeout_seconds=LONG))
    process_ids = await read(fifo)
    leap(LONG)
    with pytest.raises(ChildTimedOut, match="no answer within 60 s"):
        await call
    for process_id in process_ids:
        assert has_ended(process_id)


async def test_a_cancelled_call_kills_its_child_and_frees_its_slot(
    children: Children, fifo: str
) -> None:
    """A call that is cancelled kills its child with everything that it started."""
    call = asyncio.create_task(children.call(functions.tell_and_pause, fifo, timeout_seconds=LONG))
    process_ids = await read(fifo)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    other = await children.call(functions.process_id, timeout_seconds=LONG)
    assert other not in process_ids
    for process_id in process_ids:
        assert has_ended(process_id)


async def test_a_call_waits_for_a_free_child(children: Children, fifo: str) -> None:
    """Most children at one time; a call that is done, or cancelled, makes room for the next."""
    first = asyncio.create_task(children.call(functions.tell_and_pause, fifo, timeout_seconds=LONG))
    process_ids = await read(fifo)
    second = asyncio.create_task(children.call(functions.process_id, timeout_seconds=LONG))
    first.cancel()
    assert await second not in process_ids
    assert first.cancelled()


async def test_calls_run_at_the_same_time_up_to_the_size(fifo: str) -> None:
    """size: Most children at one time."""
    async with Children(2) as pool:
        results = await asyncio.gather(
            pool.call(functions.send, fifo, timeout_seconds=LONG),
            pool.call(functions.receive, fifo, timeout_seconds=LONG),
        )
    assert list(results) == ["sent", "hello"]


async def test_children_are_reused_and_replaced_in_time() -> None:
    """recycle_after: Calls after which a child is replaced, so that leaks end with it."""
    async with Children(1, ProcessLimits(recycle_after=2)) as pool:
        seen = [await pool.call(functions.process_id, timeout_seconds=LONG) for _ in range(4)]
    assert seen[0] == seen[1] != seen[2] == seen[3]


async def test_a_child_that_died_while_idle_is_nobodys_failure(children: Children) -> None:
    """Each call gets a child that has not been seen dead."""
    process_id = await children.call(functions.process_id, timeout_seconds=LONG)
    os.kill(process_id, signal.SIGKILL)
    assert await children._idle[0].wait() == -signal.SIGKILL
    assert await children.call(functions.process_id, timeout_seconds=LONG) != process_id


async def test_a_child_that_does_not_come_up_is_nobodys_crash(
    children: Children, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has seen nothing of the call: this machine is to blame, and it says for what."""
    broken = tmp_path / "python"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(broken))
        with pytest.raises(ChildUnavailable, match=r"could be started: .*No such file"):
            await children.call(functions.process_id, timeout_seconds=LONG)
        broken.write_text("#!/bin/sh\necho trace >&2\necho no such module >&2\nexit 1\n")
        broken.chmod(0o755)
        with pytest.raises(ChildUnavailable, match="before it took a call: no such module"):
            await children.call(functions.process_id, timeout_seconds=LONG)
    assert await children.call(functions.process_id, timeout_seconds=LONG) > 0


async def test_closing_ends_every_child_and_every_call(fifo: str) -> None:
    """Kill every child and wait until they are gone; calls under way fail."""
    pool = Children(2)
    idle = await pool.call(functions.process_id, timeout_seconds=LONG)
    call = asyncio.create_task(pool.call(functions.tell_and_pause, fifo, timeout_seconds=LONG))
    waiting = asyncio.create_task(pool.call(functions.spin, timeout_seconds=LONG))
    busy = await read(fifo)
    await pool.close()
    for task in (call, waiting):
        with pytest.raises(ChildUnavailable, match=r"the pool (was|is) closed"):
            await task
    assert all(has_ended(process_id) for process_id in (idle, *busy))
    with pytest.raises(ChildUnavailable, match="the pool is closed"):
        await pool.call(functions.process_id, timeout_seconds=LONG)


# What each limit is for: a function that goes over it, in a child that may use little.
TIGHT = ProcessLimits(
    memory_bytes=100 * 1024 * 1024,
    answer_bytes=100_000,
    printed_bytes=200_000,
    file_bytes=100_000,
    processes=10,
)
OVER: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "memory of one": (functions.take_memory, (10**9,), "104,857,600 bytes of memory"),
    "memory that is shared": (functions.take_shared_memory, (120 * 2**20,), "bytes of memory"),
    "memory of many": (functions.take_memory_in_many, (4, 40 * 2**20), "bytes of memory"),
    "processes": (functions.fork_many, (30,), "had more than 10 processes"),
    "file": (functions.write_file, (100_001,), "wrote a file of more than 100,000 bytes"),
    "print": (functions.print_endlessly, (), "printed more than 200,000 bytes"),
    "answer": (functions.large, (100_001,), "answered more than 100,000 bytes"),
}


@pytest.mark.parametrize(("function", "arguments", "said"), OVER.values(), ids=OVER)
async def test_a_call_over_a_limit_is_ended_with_all_it_started(
    function: Any, arguments: tuple[int, ...], said: str
) -> None:
    """Past a limit the child is killed, the next call gets another one."""
    async with Children(1, TIGHT) as pool:
        before = await pool.call(functions.process_id, timeout_seconds=LONG)
        with pytest.raises(ChildCrashed, match=said) as caught:
            await pool.call(function, *arguments, timeout_seconds=LONG)
        assert caught.value.code == "child_over_limit"
        assert await pool.call(functions.process_id, timeout_seconds=LONG) != before


async def test_a_call_within_its_limits_is_left_alone() -> None:
    """Each limit is one, and what processes share counts once."""
    async with Children(1, TIGHT) as pool:
        first = await pool.call(functions.process_id, timeout_seconds=LONG)
        size = 40 * 2**20
        assert await pool.call(functions.share_with_many, 4, size, timeout_seconds=LONG) == size
        assert await pool.call(functions.write_file, 99_999, timeout_seconds=LONG) == 99_999
        for _ in range(2):  # the limit is that of one call
            await pool.call(functions.print_much, 150_000, timeout_seconds=LONG)
        assert await pool.call(functions.process_id, timeout_seconds=LONG) == first


async def test_a_child_starts_with_the_least_memory() -> None:
    """'At least 64 MiB'."""
    limits = ProcessLimits(memory_bytes=LEAST_MEMORY_BYTES)
    async with Children(1, limits) as pool:
        assert await pool.call(functions.length, _source(b"abc"), timeout_seconds=LONG) == 3


async def test_what_a_call_left_behind_is_gone_when_it_returns(children: Children) -> None:
    """Whatever it started ends with it, daemons too."""
    for function in (functions.leave_process, functions.leave_daemon):
        left = await children.call(function, timeout_seconds=LONG)
        with pytest.raises(ProcessLookupError):
            os.kill(left, 0)


async def test_a_daemon_does_not_outlive_the_child_that_died(children: Children, fifo: str) -> None:
    """What left its process group, its parent and its environment is found all the same."""
    reading = asyncio.create_task(read(fifo))
    with pytest.raises(ChildCrashed, match="died of SIGSEGV"):
        await children.call(functions.tell_and_fault, fifo, timeout_seconds=LONG)
    for process_id in await reading:
        assert has_ended(process_id)


async def test_a_daemon_does_not_outlive_a_call_that_was_cancelled(
    children: Children, fifo: str
) -> None:
    """A call that is cancelled is killed with everything that it started."""
    slow = functions.tell_daemon_and_pause
    call = asyncio.create_task(children.call(slow, fifo, timeout_seconds=LONG))
    process_ids = await read(fifo)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    for process_id in process_ids:
        assert has_ended(process_id)


async def test_a_child_ends_with_its_keeper(children: Children, fifo: str) -> None:
    """Should a hook kill the process that watches it, it dies too, and a crash is told."""
    reading = asyncio.create_task(read(fifo))
    with pytest.raises(ChildCrashed, match="died of SIGKILL: out of memory"):
        await children.call(functions.kill_keeper, fifo, timeout_seconds=LONG)
    for process_id in await reading:
        assert has_ended(process_id)


async def test_an_answer_in_advance_is_not_told_to_the_next_call(children: Children) -> None:
    """A child that said what nobody asked for is not asked again."""
    assert await children.call(functions.answer_in_advance, timeout_seconds=LONG) == "forged"
    assert await children.call(functions.length, _source(b"abc"), timeout_seconds=LONG) == 3


def _source(data: bytes) -> Source:
    return Source(name="a", media_type=None, size_bytes=len(data), data=data)


async def test_temporary_files_are_removed_with_their_child(children: Children) -> None:
    """Each child has a temporary folder of its own."""
    path = Path(await children.call(functions.temporary_file, timeout_seconds=LONG))
    assert path.exists()
    with pytest.raises(ChildCrashed):
        await children.call(functions.leave, timeout_seconds=LONG)
    await children.close()
    assert not path.parent.exists()


async def test_crashes_leak_nothing(children: Children) -> None:
    """Neither descriptors nor processes, however often children die."""
    await _crash_and_collect(children)
    gc.collect()  # what earlier tests left open is closed now, and not in between
    # This process may have started servers for other tests.
    before, others = descriptors(), offspring.descendants(os.getpid())
    for _ in range(LEAK_ROUNDS):
        await _crash_and_collect(children)
    assert descriptors() <= before
    assert set(offspring.descendants(os.getpid())) <= set(others)


def descriptors() -> set[str]:
    """Return which files this process has open."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def _crash_and_collect(children: Children) -> None:
    with pytest.raises(ChildCrashed):
        await children.call(functions.fault, timeout_seconds=LONG)
    while children._reaping:
        await asyncio.wait(children._reaping)


def test_processes_are_found_on_kernels_that_do_not_list_children() -> None:
    """By reading all of /proc, which says the same."""
    with subprocess.Popen(["sh", "-c", "sleep 1000 & wait"], start_new_session=True) as shell:
        try:
            me = os.getpid()
            # This process may have started servers for other tests too.
            while len(offspring.descendants(shell.pid)) < 1:
                time.sleep(0.01)
            listed = offspring.descendants(me)
            assert sorted(offspring._below(me, offspring.scanned())) == sorted(listed)
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


SCRIPT = """
import asyncio, sys
from statemachine_pipeline.runner.children import Children
import child_functions

async def main():
    async with Children(1) as pool:
        slow = child_functions.tell_daemon_and_pause
        await pool.call(slow, sys.argv[1], timeout_seconds=1000)

asyncio.run(main())
"""


def start_parent(fifo: str) -> subprocess.Popen[bytes]:
    """Start a process that has a child of its own at work."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), fifo],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": tempfile.gettempdir(),
        },
    )


async def test_no_child_outlives_a_parent_that_was_killed(fifo: str) -> None:
    """A child dies with its parent, with all it started, even within a long call into C."""
    parent = start_parent(fifo)
    process_ids = await read(fifo)
    keeper = offspring._parent(process_ids[0])
    (folder,) = Path(tempfile.gettempdir()).glob("smp-child-*")
    parent.kill()
    parent.wait()
    for process_id in (*process_ids, keeper):
        assert has_ended(process_id)
    assert not folder.exists()
