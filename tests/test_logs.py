"""The log: what people, programs and the journal read."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import subprocess
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import LogSection
from agent.logs import MAX_REMEMBERED, HumanFormatter, JsonFormatter, Repeats, event, goes_to_journal, setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = logging.getLogger("agent.test_logs")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Put the process's logging back after each test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def record(message: str = "something", level: int = logging.WARNING, name: str = "agent", **extra: Any) -> Any:
    """Make a record as a logger would."""
    return logging.makeLogRecord({"msg": message, "levelno": level, "levelname": "WARNING", "name": name, **extra})


def written(form: str, level: str = "info") -> io.StringIO:
    """Set logging up for a stream of our own."""
    stream = io.StringIO()
    setup(LogSection.model_validate({"format": form, "level": level}), {}, stream)
    return stream


def test_for_people_an_event_is_one_readable_line() -> None:
    """Time, level, sentence, fields; no colour where there is no terminal."""
    stream = written("human")
    event(LOG, logging.INFO, "strip", "top/1.tif ok", score=0.123456789, file="a b", empty="", none=None)
    line = stream.getvalue()
    assert line.endswith(' info     top/1.tif ok score=0.123457 file="a b" empty="" none=None\n')
    assert "\x1b" not in line


def test_colour_is_for_terminals_that_want_it() -> None:
    """Only the level is coloured."""
    line = HumanFormatter(colour=True).format(record())
    assert line.count("\x1b[33mwarning ") == 1
    assert line.count("\x1b") == 2


def test_json_is_one_object_for_each_line() -> None:
    """Each line parses alone; numbers that JSON does not have are null, the record's own keys cannot be overwritten."""
    stream = written("json")
    event(LOG, logging.INFO, "strip", "two\nlines", score=float("nan"), level=3, path=os.fsdecode(b"\xff"), s={1})
    try:
        raise ValueError("broken")  # noqa: TRY301 - an exception is what is tested
    except ValueError:
        LOG.exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["code"], first["message"]) == ("info", "strip", "two\nlines")
    assert (first["score"], first["path"], first["s"], first["logger"]) == (None, "\\xff", [1], "agent.test_logs")
    assert "ValueError: broken" in second["exception"]
    assert first["ts"].endswith("Z")


def test_the_journal_gets_the_priority_in_front() -> None:
    """`<N>` is what journald turns into PRIORITY; the rest is the same JSON."""
    stream = written("journal", "debug")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        LOG.log(level, "x")
    lines = stream.getvalue().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert json.loads(lines[0][3:])["message"] == "x"


def test_auto_is_the_journal_only_when_stderr_really_goes_there(tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited by children whose stderr went elsewhere; device and inode decide."""
    with (tmp_path / "stderr").open("w") as stream:
        found = os.fstat(stream.fileno())
        matching = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert goes_to_journal(stream, matching)
        assert not goes_to_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not goes_to_journal(stream, {})
        setup(LogSection(), matching, stream)
        LOG.warning("x")
    assert (tmp_path / "stderr").read_text().startswith("<4>{")
    assert not goes_to_journal(io.StringIO(), matching)


@given(st.text(max_size=20), st.text(max_size=20))
def test_no_text_makes_a_second_line_or_a_terminal_command(message: str, value: str) -> None:
    """File names are hostile: newlines, escapes, halves of surrogate pairs, bidi marks."""
    one = record("%s", args=(message,), fields={"file": value}, code="x")
    for line in (HumanFormatter(colour=False).format(one), JsonFormatter(priority=True).format(one)):
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        line.encode()


def test_a_traceback_for_people_is_indented_and_escaped() -> None:
    """A line that begins with a time is always a record."""
    stream = written("human")
    try:
        raise ValueError("first\nsecond \x1b[2J")  # noqa: TRY301 - an exception is what is tested
    except ValueError:
        LOG.exception("failed")
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("    ") for line in lines[1:])
    assert "\x1b" not in stream.getvalue()
    assert lines[-1] == "    second \\x1b[2J"


def test_the_level_is_the_configured_one_and_libraries_keep_their_debug_lines() -> None:
    """`debug` shows our own details, not those of every library."""
    stream = written("human", "debug")
    LOG.debug("ours")
    logging.getLogger("paho.mqtt").debug("theirs")
    logging.getLogger("paho.mqtt").warning("their warning")
    text = stream.getvalue()
    assert ("ours" in text, "theirs" in text, "their warning" in text) == (True, False, True)
    stream = written("human", "error")
    LOG.warning("hidden")
    assert stream.getvalue() == ""


def test_setting_up_again_writes_nothing_twice() -> None:
    """The last set-up is the only one."""
    first, second = written("human"), written("human")
    LOG.warning("once")
    assert (first.getvalue(), second.getvalue().count("once")) == ("", 1)


def test_warnings_of_python_go_to_the_log() -> None:
    """In the journal they are records, not loose lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = written("json")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "old" in json.loads(stream.getvalue())["message"]


# Repeated warnings


def test_a_repeated_warning_is_written_once_and_then_counted_each_minute() -> None:
    """A share that is away for a night makes a line each minute, not ten each second."""
    repeats = Repeats()
    lines = []
    for tenth in range(1300):
        lines += [(tenth // 10, line.getMessage()) for line in repeats.written_for(record("gone"), tenth / 10)]
    assert lines == [(0, "gone"), (60, "gone (599 more in 60 s)"), (120, "gone (600 more in 60 s)")]


def test_the_count_comes_with_the_next_line_of_any_kind() -> None:
    """A warning that stops coming is still summed up, and after a quiet minute it is written in full again."""
    repeats = Repeats()
    warning, strip = record("gone"), record("strip", logging.INFO)
    assert repeats.written_for(warning, 0.0) == [warning]
    assert repeats.written_for(warning, 1.0) == []
    assert repeats.written_for(strip, 2.0) == [strip]
    summary, after = repeats.written_for(strip, 60.0)
    assert (summary.getMessage(), after) == ("gone (1 more in 60 s)", strip)
    assert repeats.written_for(strip, 120.0) == [strip]
    assert repeats.written_for(warning, 121.0) == [warning]


def test_different_warnings_and_all_information_pass() -> None:
    """Another text, another level or another logger is another warning; strips' lines are never held back."""
    repeats = Repeats()
    different = [record("a"), record("b"), record("a", logging.ERROR), record("a", name="other")]
    different += [record("a", logging.INFO), record("a", logging.INFO)]
    assert [line for one in different for line in repeats.written_for(one, 0.0)] == different


def test_the_memory_for_warnings_is_bounded_and_loses_no_count() -> None:
    """A warning with a number in its text, for ever, costs no memory."""
    repeats = Repeats()
    repeats.written_for(record("first"), 0.0)
    repeats.written_for(record("first"), 0.0)
    lines = [line.getMessage() for n in range(MAX_REMEMBERED) for line in repeats.written_for(record(f"{n}"), 1.0)]
    assert len(repeats._known) == MAX_REMEMBERED
    assert "first (1 more in 1 s)" in lines


def test_a_warning_that_is_remembered_keeps_nothing_alive_but_its_text() -> None:
    """An error holds the frames that it came through, and all that they had in hand: rows, files, messages."""

    class InHand:
        """What a frame held when it failed."""

    repeats = Repeats()

    def fail() -> weakref.ref[InHand]:
        in_hand = InHand()
        try:
            int("x")
        except ValueError as error:
            failed = record("bad: %s", args=(error,), exc_info=sys.exc_info())
            assert repeats.written_for(failed, 0.0) == [failed]
        return weakref.ref(in_hand)

    held = fail()
    gc.collect()
    assert held() is None
    text = "bad: invalid literal for int() with base 10: 'x'"
    assert repeats.written_for(record(text), 1.0) == []
    assert [line.getMessage() for line in repeats.due(60.0)] == [f"{text} (1 more in 60 s)"]


def test_what_is_held_back_is_written_at_the_end_of_the_process() -> None:
    """The last minute of a process is not lost."""
    script = (
        "import logging\nfrom agent.config import LogSection\nfrom agent.logs import setup\n"
        "setup(LogSection(format='human'))\nfor _ in range(5): logging.warning('gone')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert "gone (4 more in 0 s)" in done.stderr
    assert done.stderr.count("\n") == 2
