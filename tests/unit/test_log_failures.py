"""Where a line cannot be written the work goes on, and nothing is printed in its place."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from typing import TYPE_CHECKING

from fix_logs import Log
from loguru import logger

from statemachine_pipeline import configure_logging
from statemachine_pipeline.cli import output
from statemachine_pipeline.cli.narrating import Narration, narrate
from statemachine_pipeline.observability import log_events
from statemachine_pipeline.observability.noting import note
from statemachine_pipeline.runner.hearsay import retell

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SECRET = "password=hunter2-plum"
SAID = {"level": "INFO", "message": "read", "place": "my.parser", "extra": {}}


def test_a_sink_of_the_applications_that_raises_fails_no_work(
    quiet: None, strays: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """``note`` 'never raises, whatever sinks the application has'; nor does what others log."""

    def full(_: object) -> None:
        raise OSError("no space left on device")

    configure_logging(sink=Log())
    logger.add(full, catch=False)
    note(log_events.WORKER_STARTED, "lost")
    logging.getLogger("lib").warning("lost, with %s", SECRET)
    retell(json.dumps(SAID).encode(), child=7)
    thread = threading.Thread(target=int, args=(SECRET,))
    thread.start()
    thread.join()
    assert capsys.readouterr().err == ""


def test_a_sink_that_fails_where_stderr_is_closed_fails_no_work(
    quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loguru tells of such a sink on stderr, and raises if that is closed."""

    def full(_: object) -> None:
        raise OSError("no space left on device")

    configure_logging(sink=Log())
    logger.add(full)
    monkeypatch.setattr(sys, "stderr", closed())
    note(log_events.WORKER_STARTED, "lost")


def test_what_a_worker_says_is_no_more_to_fail_by(
    quiet: None, strays: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """'As JSON, what the verb says to people becomes lines of the log', which may be lost."""

    def full(_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(output, "_listener", None)
    narrate(Narration(format="json"))
    logger.add(full, catch=False)
    output.say("worker stopped")
    line = json.loads(capsys.readouterr().err)
    assert (line["logger"], line["body"]) == (output.__name__, "worker stopped")


def test_arguments_that_do_not_fit_are_not_printed(
    quiet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """'On every line secrets are masked'; ``logging`` would print such arguments as they are."""
    log = Log()
    configure_logging(sink=log, alone=True)
    logging.getLogger("lib").warning("read %d pages", SECRET)
    (line,) = log.lines
    assert line["body"] == "read %d pages (its arguments do not fit: TypeError)"
    assert capsys.readouterr().err == ""


def test_a_process_without_an_open_stderr_can_be_configured(
    quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """'As they are when a line is written': a daemon may have none, or have closed it."""
    for stderr in (None, closed()):
        monkeypatch.setattr(sys, "stderr", stderr)
        configure_logging(format="text")
        note(log_events.WORKER_STARTED, "lost")


def test_a_file_that_cannot_be_opened_again_now_is_later(quiet: None, tmp_path: Path) -> None:
    """'A file, which is opened again after it was moved away'; until it can be, none is lost."""
    folder, away = tmp_path / "log", tmp_path / "away"
    folder.mkdir()
    configure_logging(sink=folder / "worker.log")
    folder.rename(away)
    note(log_events.WORKER_STARTED, "while there is no folder")
    folder.mkdir()
    note(log_events.WORKER_STARTED, "there is one again")
    lines = [(place / "worker.log").read_text().splitlines() for place in (away, folder)]
    told = [[json.loads(line)["body"] for line in found] for found in lines]
    assert told == [["while there is no folder"], ["there is one again"]]


def test_code_in_no_module_is_logged_as_json_too(log: Log) -> None:
    """'One flat JSON object a line': also of what was given to ``exec``, or made by hand."""
    exec("logger.info('by exec')", {"logger": logger})
    logging.getLogger().handle(
        logging.makeLogRecord({"name": None, "msg": "by hand", "levelno": 20})
    )
    assert [(line["logger"], line["body"]) for line in log.lines] == [
        ("", "by exec"),
        ("", "by hand"),
    ]


def test_a_value_without_a_text_is_told_by_its_type(log: Log) -> None:
    """'Other values become the name of their type': the line is not lost."""

    class Mute(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise ValueError(SECRET)

    logging.getLogger("lib").warning("heard", extra={"word": Mute("x")})
    (line,) = log.lines
    assert line["extra.word"].endswith("Mute")


def closed() -> io.StringIO:
    """Return a stream that was closed."""
    stream = io.StringIO()
    stream.close()
    return stream
