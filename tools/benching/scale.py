"""How the box's costs grow: with the ledger's rows, a folder's files, the cameras, and what waits for the broker."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.sections import Camera
from agent.ledger import open_ledger
from agent.names import StripNames
from agent.watching.scan import Scan
from tests.helpers.large_ledger import fill_ledger, measure_ledger
from tests.helpers.strips import encode
from tools.benching.journey import SETTLE_SECONDS, arrivals_at, cpu_seconds, drawn_pixels, drop, running

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRIES_AT_ONCE = 1000
SCANS = 3
SENT_AT_ONCE = 20  # messages that wait for the broker's answer together


@dataclass(frozen=True, slots=True)
class Grown:
    """One quantity at one size: its name, the size, milliseconds."""

    what: str
    size: int
    ms: float


def ledgers(folder: Path, sizes: Sequence[int]) -> list[Grown]:
    """Open ledgers of so many finished strips, audit them, and do in each what every strip needs."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary) / "ledger.db"
            fill_ledger(path, size)
            began = time.perf_counter()
            ledger = open_ledger(path)
            found.append(Grown("open the ledger", size, (time.perf_counter() - began) * 1e3))
            began = time.perf_counter()
            ledger.report.audit()
            found.append(Grown("audit", size, (time.perf_counter() - began) * 1e3))
            found += [Grown(what, size, ms) for what, ms in measure_ledger(ledger, Path(temporary)).items()]
            ledger.database.close()
    return found


def folders(folder: Path, sizes: Sequence[int]) -> list[Grown]:
    """Look through folders of so many files, as each scan does; processor time, the median of a few scans."""
    defaults = Camera(name="top", folder=folder)
    names = StripNames.of(defaults.patterns, defaults.ignore)
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            for number in range(size):
                (Path(temporary) / f"{number:07}.tif").touch()
            times = []
            for _ in range(SCANS):
                worked, files = time.process_time(), 0
                scan = Scan(temporary, "", names, lambda _: True)
                while not scan.done:
                    files += len(scan.read(ENTRIES_AT_ONCE))
                assert files == size, "the scan found another number of files"  # noqa: S101 - else nothing was measured
                times.append((time.process_time() - worked) * 1e3)
            found.append(Grown("scan a folder", size, statistics.median(times)))
    return found


def outbox(folder: Path, sizes: Sequence[int]) -> list[Grown]:
    """Take the next messages from outboxes of so many and acknowledge them, as the publisher does."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary) / "ledger.db"
            fill_ledger(path, size)
            ledger = open_ledger(path)
            with ledger.database.transaction() as db:
                db.execute("UPDATE outbox SET state = 'pending'")
            times = []
            for _ in range(SCANS):
                began = time.perf_counter()
                messages = ledger.outbox.next_outbox_messages(0, SENT_AT_ONCE)
                ledger.outbox.acknowledge([message.row for message in messages])
                times.append((time.perf_counter() - began) * 1e3)
            found.append(Grown(f"send and acknowledge {SENT_AT_ONCE} messages", size, statistics.median(times)))
            ledger.database.close()
    return found


def cameras(folder: Path, numbers: Sequence[int], strips: int) -> list[Grown]:
    """Drop `strips` strips over so many cameras, with a trivial model; processor time of all processes for a strip."""
    data = encode(drawn_pixels(0).round().astype("uint8"))
    found = []
    for number in numbers:
        with (
            tempfile.TemporaryDirectory(dir=folder) as temporary,
            running(Path(temporary), None, cameras=number) as (box, broker),
            arrivals_at(broker) as arrivals,
        ):
            before, began = sum(cpu_seconds(box)), time.monotonic()
            for place in range(strips):
                drop(box.camera(f"camera{place % number}"), f"{place:06}.tif", data)
            for place in range(strips):
                arrivals.wait_for(f"{place:06}.tif", 300)
            passed = time.monotonic() - began - SETTLE_SECONDS
            worked = sum(cpu_seconds(box)) - before
            found.append(Grown("cameras: processor time of a strip", number, worked * 1e3 / strips))
            found.append(Grown("cameras: time of a strip in a burst", number, passed * 1e3 / strips))
    return found
