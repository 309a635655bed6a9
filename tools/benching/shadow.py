"""What a shadow costs the line: live latency with and without one, round by round in turn, and its memory."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import onnx

from tests.helpers.broker import wait_for
from tools.benching.journey import SETTLE_SECONDS, arrivals_at, drop, pss_mib, running
from tools.benching.spreads import percentile
from tools.exporter.progress import progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.helpers.box import Box
    from tools.benching.journey import Arrivals

EVERY = 4.0  # times what the model takes: so often a strip comes, and the shadow has time in between
SHORTEST_INTERVAL_SECONDS = 0.1
FEWEST = 20  # strips in a round: less have no 95th percentile
WRITTEN_SECONDS = 7.0  # after so long it is in the ledger what the shadow has compared
VERSION = "strip_agent.version"


@dataclass(slots=True)
class Rounds:
    """By round: milliseconds from a complete file (after the settle time) to its message, of the model in it; MiB."""

    latency: list[list[float]] = field(default_factory=list)
    model: list[list[float]] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)  # PSS of all workers, at the end of each round


@dataclass(slots=True)
class Shadowed:
    """Rounds without a shadow and with one, which compared so many of the strips that came meanwhile."""

    without: Rounds = field(default_factory=Rounds)
    with_one: Rounds = field(default_factory=Rounds)
    compared: int = 0
    each: int = 0  # strips in a round
    interval_seconds: float = 0.0


def shadowed(
    folder: Path, strips: Mapping[str, bytes], model: Path, *, rounds: int, each: int, most_seconds: float
) -> Shadowed:
    """Let strips come at a steady rate, `each` in a round; in every other round the same model is the shadow.

    Where the model is so slow that all rounds would take longer than `most_seconds`, a round has fewer strips.
    """
    found = Shadowed()
    with running(folder, model) as (box, broker), arrivals_at(broker) as arrivals:
        first = _active(box)
        _push_again(folder, model, box)
        wait_for(lambda: _active(box) != first, "the same model under another version is active", 300)
        warm = Rounds()
        _round(box, arrivals, strips, "warm", 20, 0.5, warm)
        found.interval_seconds = max(SHORTEST_INTERVAL_SECONDS, EVERY * percentile(warm.model[0], 0.5) / 1e3)
        found.each = each = fitting(each, rounds, found.interval_seconds, most_seconds)
        for number in progress(range(rounds), "rounds"):
            _round(box, arrivals, strips, f"{number}-without", each, found.interval_seconds, found.without)
            box.ask("set_shadow", digest=first)
            wait_for(lambda: _is_there(box), "the shadow's worker is there", 60)
            _round(box, arrivals, strips, f"{number}-with", each, found.interval_seconds, found.with_one)
            time.sleep(WRITTEN_SECONDS)
            found.compared = _compared(box)  # of this model in the slot, the rounds before included
            box.ask("set_shadow")
            wait_for(lambda: not _is_there(box), "the shadow has gone", 60)
    return found


def fitting(each: int, rounds: int, interval_seconds: float, most_seconds: float) -> int:
    """Give the strips of a round so that `rounds` without and as many with a shadow end in time; at least FEWEST."""
    in_time = most_seconds / (2 * rounds * interval_seconds)
    return each if each <= in_time else max(min(each, FEWEST), int(in_time))


def _round(
    box: Box, arrivals: Arrivals, strips: Mapping[str, bytes], name: str, each: int, interval: float, into: Rounds
) -> None:
    """Drop strips at a steady rate, whatever becomes of them meanwhile."""
    contents, dropped = cycle(strips.values()), {}
    began = time.monotonic()
    for number in range(each):
        time.sleep(max(0.0, began + number * interval - time.monotonic()))
        file = f"{name}-{number:04}.tif"
        dropped[file] = drop(box.camera("camera0"), file, next(contents))
    results = [(at, *arrivals.wait_for(file, 300)) for file, at in dropped.items()]
    into.latency.append([(arrived - at - SETTLE_SECONDS) * 1e3 for at, arrived, _ in results])
    into.model.append([float(result["inference_ms"]) for _, _, result in results])
    into.workers.append(sum(pss_mib(worker.pid) for worker in box.workers()))


def _push_again(folder: Path, model: Path, box: Box) -> None:
    """Push the same model under the next version: the one before stays in the store."""
    again = onnx.load(model)
    for entry in again.metadata_props:
        if entry.key == VERSION:
            entry.value = str(int(entry.value) + 1)
    onnx.save(again, folder / "again.onnx")
    (folder / "again.onnx").rename(box.inbox / "again.onnx")


def _active(box: Box) -> str:
    return str(box.ask("status")["models"]["default"]["active_sha256"])


def _compared(box: Box) -> int:
    return int(box.ask("shadow", limit=0)["comparison"]["compared"])


def _is_there(box: Box) -> bool:
    """Whether a worker runs that takes only what is left of the processor."""
    return any(os.sched_getscheduler(worker.pid) == os.SCHED_IDLE for worker in box.workers())
