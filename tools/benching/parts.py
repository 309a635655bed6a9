"""The benchmarks' tables: each function measures one of them and says on which machine."""

from __future__ import annotations

import statistics
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from agent.worker.model import load_model
from tools.benching import journey, reload
from tools.benching.machine import describe, measure_limit
from tools.benching.page import Chart, Part
from tools.benching.scale import Grown, cameras, folders, ledgers, outbox
from tools.benching.shadow import shadowed
from tools.benching.spreads import Spread, differences, percentile
from tools.benching.stages import stages
from tools.exporter.session import cores
from tools.exporter.work import count_work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PERCENTILES = ("p50", "p95", "p99")
IN_A_ROUND = (0.5, 0.95)


def agent_parts(
    folder: Path | None, strips: Mapping[str, bytes], model: Path, *, rounds: int, at_once: int
) -> list[Part]:
    """Measure from a closed file to its message, beside the plain script, stage by stage, and in a burst."""
    machine, limit, content = describe(), measure_limit(cores()), model.read_bytes()
    facts = load_model(content, threads=None, unlabelled_input_scale="auto").facts
    work = count_work(content, (facts.height, facts.width))
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        found = journey.compare(Path(temporary), strips, model, rounds)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        inside = stages(Path(temporary), strips, model, rounds)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        burst = journey.burst(Path(temporary), at_once)
    rows = [
        percentiles("agent: file closed -> message at a subscriber", found.agent),
        percentiles(f"- settle ({journey.SETTLE_SECONDS * 1e3:.0f} of them are configured)", found.settle),
        percentiles("- wait, judge and commit, without the model", found.judge),
        *(percentiles(f"-- {stage}", times) for stage, times in inside.items()),
        percentiles("- the model", found.model),
        percentiles("- publish: committed -> message at a subscriber", found.publish),
        percentiles("agent, beside settle time and model", found.beside),
        percentiles("plain script: file closed -> message", found.plain),
        percentiles("limit of the disk: a flush of 4 KiB", found.flush),
        ["limit of the processor: the model's multiplications", f"{limit.seconds(work) * 1e3:.1f}", "", ""],
    ]
    fast = [
        ["agent", f"{burst.agent_per_second:.1f}", f"{burst.supervisor_ms + burst.worker_ms:.1f}"],
        ["plain script, which keeps and flushes nothing", f"{burst.plain_per_second:.1f}", ""],
    ]
    return [
        Part(
            "A strip's way",
            machine,
            ["milliseconds", *PERCENTILES],
            rows,
            "One strip at a time, for the agent and for the script that people write today (watchdog, onnxruntime, "
            "paho) in turn. What stands behind -- was measured apart, by the worker's and the ledger's own code with "
            "nothing in between.",
        ),
        Part(f"{at_once} strips at once, trivial model", machine, ["", "strips/s", "processor ms a strip"], fast),
    ]


def idle_part(folder: Path | None, *, number: int, seconds: float) -> Part:
    """Measure what a box costs that nothing arrives at."""
    machine = describe()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        found = journey.idle(Path(temporary), number, seconds)
    rows = [
        ["supervisor", f"{found.supervisor_percent:.2f} % of a core"],
        ["worker", f"{found.workers_percent:.2f} % of a core"],
        ["wakeups", f"{found.wakeups_per_second:.1f} a second"],
        ["memory", found.memory],
    ]
    return Part(f"Idle, {number} cameras", machine, ["", ""], rows)


def scale_part(folder: Path | None, *, quick: bool) -> Part:
    """Measure what grows with the ledger, the folders, the cameras and the outbox."""
    machine = describe()
    rows, files, waiting = (
        ((0, 20_000), (1_000, 10_000), 10_000)
        if quick
        else ((0, 100_000, 2_000_000), (1_000, 10_000, 100_000), 100_000)
    )
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        place = Path(temporary)
        found = [*ledgers(place, rows), *folders(place, files), *outbox(place, (1_000, waiting))]
        found += cameras(place, (1, 4) if quick else (1, 4, 16), 40 if quick else 160)
    return Part(
        "Scale",
        machine,
        ["", "from", "ms", "to", "ms"],
        _grown(found),
        "Ledger: finished strips in it; folder: files in it; outbox: messages that wait. Scans by processor time, the "
        "others by the clock where nothing else is said.",
        Chart("benchmarks-scale.png", "Costs over size", "rows, files, messages", "milliseconds", _lines(found)),
    )


def reload_part(folder: Path | None, *, switches: int, most_seconds: float) -> Part:
    """Measure what a switch costs the line, and memory over many; over fewer where these take longer than that."""
    machine = describe()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        found = reload.reloads(Path(temporary), switches, most_seconds)
    gaps = [longest - usual for longest, usual in zip(found.longest, found.usual, strict=True)]
    first, last = (statistics.median(part) for part in (found.memory[:5], found.memory[-5:]))
    return Part(
        f"Reload: {len(found.active)} switches while strips go on",
        machine,
        ["", *PERCENTILES],
        [
            percentiles("file in the inbox -> active, ms", found.active),
            percentiles("usual strip: file closed -> message, ms", found.usual),
            percentiles("longest during a switch, ms", found.longest),
            percentiles("gap: how much longer that is, ms", gaps),
            ["PSS of all processes, first five and last five switches, MiB", f"{first:.0f}", f"{last:.0f}", ""],
        ],
        "Trivial models; the trial competes with the strips for the processor, the switch itself lies between two. The "
        f"settle time is {reload.SETTLE_SECONDS * 1e3:.0f} ms here, so that strips come closely and meet the switch.",
        Chart(
            "benchmarks-reload.png", "Memory over switches", "switches", "MiB, all processes",
            {"PSS": [(float(number), value) for number, value in enumerate(found.memory, start=1)]}, logarithmic=False,
        ),
    )  # fmt: skip


def shadow_part(
    folder: Path | None, strips: Mapping[str, bytes], model: Path, *, rounds: int, each: int, most_seconds: float
) -> Part:
    """Measure what a shadow costs the strips of the line, and in memory."""
    machine = describe()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        found = shadowed(Path(temporary), strips, model, rounds=rounds, each=each, most_seconds=most_seconds)
    without, with_one = found.without, found.with_one
    memory = [statistics.median(one.workers) for one in (without, with_one)]
    longer = [differences(with_one.latency, without.latency, share) for share in IN_A_ROUND]
    return Part(
        f"Shadow: {rounds} rounds of {found.each} strips without and with one, in turn",
        machine,
        ["", *PERCENTILES],
        [
            percentiles("complete file -> message without a shadow, ms", [*chain(*without.latency)]),
            percentiles("with one, ms", [*chain(*with_one.latency)]),
            percentiles("- of it the model, without, ms", [*chain(*without.model)]),
            percentiles("- with one, ms", [*chain(*with_one.model)]),
            by_round("single rounds of complete file -> message, without", without.latency),
            by_round("- with one", with_one.latency),
            ["- with one minus without", *(Spread.of(one).tell(1, "+") for one in longer), ""],
            ["- rounds in which it takes longer with one", *(f"{_longer(one)} of {rounds}" for one in longer), ""],
            ["PSS of the workers, without and with one, MiB", f"{memory[0]:.0f}", f"{memory[1]:.0f}", ""],
            ["strips compared of those that came meanwhile", f"{found.compared}", f"of {rounds * found.each}", ""],
        ],
        f"The same model is active and the shadow; a strip comes every {found.interval_seconds * 1e3:.0f} ms. Of "
        "single rounds the median is given, and from the lowest to the highest: how much rounds of the same kind "
        "differ, and whether the difference of two that took turns lies beyond that.",
    )


def percentiles(name: str, values: Sequence[float]) -> list[str]:
    """Give a row: the name, and the 50th, 95th and 99th percentile."""
    return [name, *(f"{percentile(values, share):.1f}" for share in (0.5, 0.95, 0.99))]


def by_round(name: str, rounds: Sequence[Sequence[float]]) -> list[str]:
    """Give a row: the name, and how 50th and 95th percentile spread over rounds, which are too short for more."""
    spreads = [Spread.of([percentile(values, share) for values in rounds]) for share in IN_A_ROUND]
    return [name, *(spread.tell(1) for spread in spreads), ""]


def _longer(found: Sequence[float]) -> int:
    return sum(difference > 0 for difference in found)


def _lines(found: Sequence[Grown]) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        if not one.what.startswith("cameras"):
            lines.setdefault(one.what, []).append((float(one.size), one.ms))
    return lines


def _grown(found: Sequence[Grown]) -> list[list[str]]:
    by_name: dict[str, list[Grown]] = {}
    for one in found:
        by_name.setdefault(one.what, []).append(one)
    return [
        [name, f"{steps[0].size:,}", f"{steps[0].ms:.2f}", f"{steps[-1].size:,}", f"{steps[-1].ms:.2f}"]
        for name, steps in by_name.items()
    ]
