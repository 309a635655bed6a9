"""The log: for people, as JSON, or for the journal; repeated warnings are summed up.

`human` is one readable line with fields as key=value. `json` is one object for each line. `journal` is the same object
behind `<N>`, from which the journal takes the priority. Whatever a file name contains, a record stays one line (for
people a traceback follows, indented) and cannot send commands to a terminal.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from agent.printable import escape, json_text, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config import LogSection

REPEAT_SECONDS = 60.0
MAX_REMEMBERED = 1000
JOURNAL_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
COLOURS = {logging.DEBUG: "2", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "1;31"}
WRITTEN = ("name", "levelno", "levelname", "code", "fields")  # of a record, beside its text and its time
TALKATIVE = ("amqtt", "asyncio", "paho", "transitions")  # their debug lines are about themselves


def event(logger: logging.Logger, level: int, code: str, message: str, /, **fields: Any) -> None:
    """Log a sentence with a code that programs can look for, and with fields."""
    logger.log(level, "%s", message, extra={"code": code, "fields": fields}, stacklevel=2)


def setup(section: LogSection, environ: Mapping[str, str] = os.environ, stream: TextIO | None = None) -> None:
    """Send everything that is logged in this process to `stream` (stderr), in the configured format.

    Python's own warnings go the same way. Called again, it replaces what it did before.
    """
    stream = stream or sys.stderr
    form = section.format
    if form == "auto":
        form = "journal" if goes_to_journal(stream, environ) else "human"
    colour = form == "human" and stream.isatty() and not environ.get("NO_COLOR")
    output = _Output(stream)
    output.setFormatter(HumanFormatter(colour=colour) if form == "human" else JsonFormatter(priority=form == "journal"))
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Output)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(output)
    root.setLevel(section.level.upper())
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(capture=True)


def goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether `stream` is what systemd connected to the journal, not something put in its place later."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class HumanFormatter(logging.Formatter):
    """Local time, level, sentence, fields; colour of the level only."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, and the traceback below it if there is one."""
        when = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        level = f"{record.levelname.lower():8}"
        if self._colour and record.levelno in COLOURS:
            level = f"\x1b[{COLOURS[record.levelno]}m{level}\x1b[0m"
        fields = "".join(f" {printable(key)}={_short(value)}" for key, value in _fields(record).items())
        traceback = "".join(f"\n    {printable(line)}" for line in self._traceback(record).splitlines())
        return f"{when} {level} {printable(record.getMessage())}{fields}{traceback}"

    def _traceback(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        return "\n".join([*parts, *([self.formatStack(record.stack_info)] if record.stack_info else [])])


class JsonFormatter(logging.Formatter):
    """One JSON object in ASCII for each record; numbers that JSON does not have become null."""

    def __init__(self, *, priority: bool) -> None:
        super().__init__()
        self._priority = priority

    def format(self, record: logging.LogRecord) -> str:
        """Write one line. The record's own keys win over fields of the same name."""
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "code": getattr(record, "code", ""),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line |= {key: value for key, value in _fields(record).items() if key not in line}
        prefix = f"<{JOURNAL_PRIORITIES.get(record.levelno, 6)}>" if self._priority else ""
        return prefix + json_text(_plain(line))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", {})
    return fields if isinstance(fields, dict) else {"fields": fields}


def _plain(value: Any) -> Any:
    """Reduce a field to what JSON has."""
    if isinstance(value, dict):
        return {_plain_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else _plain_text(str(value))


def _plain_text(text: str) -> str:
    # JSON escapes control characters by itself, but readers stumble over half of a surrogate pair.
    if text.isascii():
        return text
    return "".join(escape(char) if "\ud800" <= char <= "\udfff" else char for char in text)


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return printable(text) if text and not any(char in ' "=' for char in text) else printable(f'"{text}"')


@dataclass(slots=True)
class _Repeated:
    """One warning: when it was last written, and how often it was held back since."""

    written: float  # monotonic seconds
    facts: dict[str, Any]  # of its record: only what is written of it
    held_back: int = 0


class Repeats:
    """Holds repeated warnings back: the first is written, then once a minute how many more there were."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, str], _Repeated] = {}

    def written_for(self, record: logging.LogRecord, now: float) -> list[logging.LogRecord]:
        """Return what is to be written now that `record` has come; `now` is in monotonic seconds."""
        lines = self.due(now)
        if record.levelno < logging.WARNING:
            return [*lines, record]
        key = (record.name, record.levelno, record.getMessage())
        known = self._known.get(key)
        if known is not None:
            known.held_back += 1
            return lines
        if len(self._known) >= MAX_REMEMBERED:
            oldest = self._known.pop(next(iter(self._known)))
            lines += [_summary(oldest, now)] if oldest.held_back else []
        self._known[key] = _Repeated(now, _facts(record, key[-1]))
        return [*lines, record]

    def due(self, now: float, after_seconds: float = REPEAT_SECONDS) -> list[logging.LogRecord]:
        """Return the summaries whose minute is over; what did not come again is forgotten."""
        over = [(key, known) for key, known in self._known.items() if now - known.written >= after_seconds]
        lines = []
        for key, known in over:
            del self._known[key]
            if known.held_back:
                lines.append(_summary(known, now))
                self._known[key] = _Repeated(now, known.facts)
        return lines


def _facts(record: logging.LogRecord, message: str) -> dict[str, Any]:
    """Return what a summary needs; an error among the arguments would hold all that its frames had in hand."""
    return {key: record.__dict__[key] for key in WRITTEN if key in record.__dict__} | {"msg": message}


def _summary(known: _Repeated, now: float) -> logging.LogRecord:
    text = f"{known.facts['msg']} ({known.held_back} more in {now - known.written:.0f} s)"
    return logging.makeLogRecord(known.facts | {"msg": text})


class _Output(logging.StreamHandler[TextIO]):
    """Writes to the stream what `Repeats` lets through."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless it is held back, and the summaries that are due."""
        for line in self._repeats.written_for(record, time.monotonic()):
            super().emit(line)

    def close(self) -> None:
        """Write what is still held back."""
        for line in self._repeats.due(time.monotonic(), after_seconds=0):
            super().emit(line)
        super().close()
