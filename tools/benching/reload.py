"""What a pushed model costs the line: the gap between results at a switch, the time to active, memory over many."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import encode
from tools.benching.journey import HEIGHT, WIDTH, arrivals_at, drawn_pixels, drop, processes, pss_mib, running
from tools.exporter.progress import in_time

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.box import Box

FEWEST = 20  # switches
STRIPS = 4  # of the line, one after the other, before and during each switch
SETTLE_SECONDS = 0.1  # a strip waits for the one before it: the shorter this is, the more of them meet the switch


@dataclass(frozen=True, slots=True)
class Reloads:
    """Milliseconds; MiB of all processes. The gap is what the strip that met the switch waited longer than others."""

    usual: list[float]  # from a closed file to its message, while nothing is switched
    longest: list[float]  # the longest of those during each switch
    active: list[float]  # from the file in the inbox to active
    memory: list[float]  # after each switch


def reloads(folder: Path, switches: int, most_seconds: float = math.inf) -> Reloads:
    """Push one trivial model after the other while strips go on; fewer of them once `most_seconds` have passed."""
    found = Reloads([], [], [], [])
    data = encode(drawn_pixels(0).round().astype("uint8"))
    with running(folder, None, settle_seconds=SETTLE_SECONDS) as (box, broker), arrivals_at(broker) as arrivals:

        def judge(name: str) -> float:
            closed = drop(box.camera("camera0"), name, data)
            return (arrivals.wait_for(name, 300)[0] - closed) * 1e3

        for number in in_time(range(switches), "switches", most_seconds=most_seconds, fewest=FEWEST):
            found.usual.append(statistics.median(judge(f"before-{number}-{place}.tif") for place in range(STRIPS)))
            hidden = folder / "pushed.onnx"
            difference_model(hidden, version=number + 2, salt=number + 2, height=HEIGHT, width=WIDTH)
            pushed = time.monotonic()
            hidden.rename(box.inbox / "model.onnx")
            longest, place = 0.0, 0
            while _version(box) != number + 2:
                longest = max(longest, judge(f"during-{number}-{place}.tif"))
                place += 1
            found.active.append((time.monotonic() - pushed) * 1e3)
            found.longest.append(max(longest, judge(f"after-{number}.tif")))
            wait_for(lambda: len(processes(box)) == 2, "the old worker has ended", 120)  # noqa: PLR2004 - and the supervisor
            found.memory.append(sum(pss_mib(process) for process in processes(box)))
    return found


def _version(box: Box) -> int:
    slot: dict[str, Any] = box.ask("status")["models"]["default"]
    return int(slot["active_version"])
