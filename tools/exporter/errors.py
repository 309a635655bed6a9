"""The one error of the exporter: a sentence that says what is wrong and what to do."""

from __future__ import annotations

import re

from agent.printable import printable

LONGEST_NAME = 80
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class ExportError(Exception):
    """Refused; the message is shown to the person and the command exits with 1.

    What came out of a file may hold anything: control characters are escaped, so that a terminal shows them only.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(printable(line) for line in message.split("\n")))


def short(name: object, longest: int = LONGEST_NAME) -> str:
    """Show a name out of a file on one line, cut where it is too long."""
    text = printable(str(name))
    return text if len(text) <= longest else f"{text[:longest]}..."


def reason_of(error: BaseException, longest: int = 160) -> str:
    """Give the first line of what a library's error says, without its colours, or its kind when it says nothing."""
    return short((COLOURS.sub("", str(error)).strip().splitlines() or [type(error).__name__])[0], longest)


def told_apart(found: float, allowed: float) -> tuple[str, str]:
    """Write two numbers that differ with as many digits as show it."""
    digits = 2
    while f"{found:.{digits}g}" == f"{allowed:.{digits}g}" and digits < 17:  # noqa: PLR2004 - then they are equal
        digits += 1
    return f"{found:.{digits}g}", f"{allowed:.{digits}g}"
