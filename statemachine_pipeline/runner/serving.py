"""What a child process does all its life: reads calls, makes them, answers."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from typing import BinaryIO

from statemachine_pipeline.hooks import StageFault
from statemachine_pipeline.redaction import type_name
from statemachine_pipeline.runner import keeper, offspring, wire
from statemachine_pipeline.runner.errands import Errand
from statemachine_pipeline.runner.telling import Teller


def serve(requests: BinaryIO, answers: int, cpu_seconds: int) -> None:
    """Serve calls until the parent closes the pipe; end what each call left behind."""
    teller = Teller(answers)
    os.write(answers, wire.READY)
    while content := _read(requests):
        _limit_cpu(cpu_seconds)
        answer = _serve(teller, content)
        # Before it answers: what the call left behind would be seen by the next.
        if keeper.IS_POSSIBLE and not offspring.end_all(keeper.PATIENCE_SECONDS):
            sys.exit("a process that a call left behind does not end")
        teller.answer(answer)


def tell_limit(answers: int, passed: wire.Limit) -> None:
    """Say in place of an answer which limit a call went over."""
    Teller(answers).answer(wire.encode_stopped(passed))


def _serve(teller: Teller, content: bytes) -> bytes:
    try:
        function, arguments, errand = wire.decode_call(content)
        with teller.during(errand or Errand()):
            return _encoded(function(*arguments))
    except Exception as error:  # noqa: BLE001 - the border of a user's code: told to the parent
        return wire.encode_failure(error)


def _encoded(returned: object) -> bytes:
    try:
        return wire.encode_result(returned)
    except (TypeError, ValueError) as error:
        # As where no child is between: a wrong value is the stage's fault, not the document's.
        kind = type_name(type(returned))
        raise StageFault(f"the hook returned {kind}, which a child cannot send: {error}") from None


def _read(requests: BinaryIO) -> bytes:
    """Return the next call, or nothing when the parent has closed the pipe or died."""
    header = requests.read(wire.LENGTH.size)
    if len(header) < wire.LENGTH.size:
        return b""
    (length,) = wire.LENGTH.unpack(header)
    content = requests.read(length)
    return content if len(content) == length else b""


def _limit_cpu(cpu_seconds: int) -> None:
    """Grant the next call its time; the kernel kills a process that spends more."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time()) + cpu_seconds
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
