"""What commands are made of: what they work on, who asks, and what becomes of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import Config
    from agent.control.arguments import Arguments
    from agent.ledger import Ledger
    from agent.messages import Fault
    from agent.models.journey import ModelJourney


class CommandError(Exception):
    """The request cannot be met; the text is for people."""


@dataclass(slots=True)
class Context:
    """What commands work on. `live` tells what only a running service knows; without one it is None.

    Nothing is replaced but `config`, by a reload.
    """

    config: Config
    ledger: Ledger
    models: Mapping[str, ModelJourney]  # empty without a service
    live: Callable[[], dict[str, Any]] | None = None
    ring: Callable[[], None] = lambda: None  # there may be something to do
    rescan: Callable[[str], None] | None = None  # have a camera's folder read as a whole, soon
    reload: Callable[[], dict[str, Any]] | None = None  # take on what the configuration's file says now
    changing: threading.Lock = field(default_factory=threading.Lock)  # held by the command that changes something


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, and how. `id` is the sender's name for the request, "" where nobody repeats requests."""

    by: str
    way: Literal["mqtt", "sparkplug", "command_line"] = "command_line"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command: `result` in plain JSON values, or why not. `row` is the ledger's, 0 without one."""

    fault: Fault | None = None
    detail: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    count: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """A command: what it takes, what it does with that, how many that was, and whether anything is different then.

    `for_page`: the page on the box may ask for it, too.
    """

    arguments: type[Arguments]
    run: Callable[[Context, Any, Who], dict[str, Any]]
    count: Callable[[dict[str, Any]], int] = lambda _: 0
    changes: bool = False
    for_page: bool = False
