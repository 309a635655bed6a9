"""The edge where text reaches a terminal: whatever it came from, it is printable from here on."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from agent.errors import ExitCode
from agent.printable import json_text, printable, printable_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config.file import Problem


def say(facts: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str], indent: int | None = 1) -> None:
    """Print facts: for programs as JSON, for people as `text` makes it of them."""
    try:
        print(json_text(facts, indent) if as_json else text(printable_values(facts)), flush=True)
    except BrokenPipeError:  # whoever reads has read enough
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the rest is tried again at the exit
        fail(f"the answer cannot be written: {error.strerror}")


def complain(sentence: str) -> None:
    """Say on stderr, in one line, what is wrong."""
    print(f"strip-agent: {printable(sentence)}", file=sys.stderr)


def fail(sentence: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Say what is wrong and end with this exit code."""
    complain(sentence)
    sys.exit(code)


def in_file(file: Path | None, problem: Problem) -> str:
    """Write a problem of the configuration file as one line that begins with the file."""
    about_all = file is not None and problem.where == str(file)
    text = str(replace(problem, where="") if about_all else problem)
    return text if file is None else f"{file}: {text}"
