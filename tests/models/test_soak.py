"""The long tour: a hundred models in turn, and every bad push, on a line at half of the box's capacity."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from agent.errors import Reason
from tests.helpers.bad_models import BAD_BYTES
from tests.helpers.box import drop_file, unique_results
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import put
from tests.helpers.soak import share_of
from tests.models.line import Line, Plant, check_results, model_events, wait_for_state

if TYPE_CHECKING:
    from tests.helpers.broker import Broker, Subscriber

pytestmark = pytest.mark.soak
MODELS = share_of(100, at_least=10)
WRITE_SECONDS = share_of(60, at_least=10)
GAP_SECONDS = 10.0  # the machine that runs this has other things to do
PATIENCE_SECONDS = 600.0


def show(figures: dict[str, Any]) -> None:
    """Write what was measured where a person sees it (`pytest -s`)."""
    sys.stderr.write(f"{json.dumps(figures)}\n")


def measure_capacity(box: Plant, strips: list[Path], number: int = 60) -> tuple[float, list[str]]:
    """Give the seconds that the box needs for one strip, and the names of those it was measured with."""
    names = [f"capacity{n:03}.tif" for n in range(number)]
    began = time.monotonic()
    for n, name in enumerate(names):
        drop_file(strips[n % len(strips)], box.camera(("top", "side")[n % 2]) / name)
    box.wait_until_published(number)
    return (time.monotonic() - began) / number, names


def gaps_seconds(subscriber: Subscriber, since_ms: int, until_ms: float = math.inf) -> list[float]:
    """Give the times between one commit and the next."""
    times = sorted(result["ts_ms"] for result in unique_results(subscriber).values())
    return [(after - before) / 1000 for before, after in pairwise(ts for ts in times if since_ms <= ts <= until_ms)]


def pss_mib(box: Plant, line: Line) -> dict[str, float]:
    """Sum the proportional memory of the supervisor and all that it has started, at rest after some strips.

    `anonymous` leaves out the libraries, of which more falls on each when other programs that use them end.
    """
    assert box.process is not None
    number = len(line.names)
    wait_for(lambda: len(box.workers()) == 1 and len(line.names) >= number + 30, "one worker at work", PATIENCE_SECONDS)
    line.pause.set()
    wait_for(lambda: box.ask("status")["strips"]["pending"] == 0, "nothing waits", PATIENCE_SECONDS)
    supervisor = psutil.Process(box.process.pid)
    looks = []
    for _ in range(50):
        processes = [supervisor, *supervisor.children(recursive=True)]
        texts = [Path(f"/proc/{process.pid}/smaps_rollup").read_text() for process in processes]
        looks.append({key: sum(_mib(text, key) for text in texts) for key in ("Pss", "Pss_Anon")})
        time.sleep(0.1)  # the worker gives memory back when it has had nothing to do for a while
    line.pause.clear()
    return {"all": min(look["Pss"] for look in looks), "anonymous": min(look["Pss_Anon"] for look in looks)}


def _mib(text: str, key: str) -> float:
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def test_a_hundred_models_in_turn_lose_nothing_and_leave_nothing(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Every strip is scored once, by a model that was active; memory, processes and store stay as they were."""
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side"), models={"keep": 3}) as box:
        box.start()
        box.wait_until_active(put_good(box, 1))
        seconds, names = measure_capacity(box, strips)
        used: dict[int, dict[str, float]] = {}
        since_ms = until_ms = 0
        with Line(box, strips, 2 * seconds) as line:
            for number in range(2, MODELS + 1):
                box.wait_until_active(put_good(box, number))
                (box.inbox / f"{number - 1}.onnx").unlink()
                if number in (5, MODELS):
                    until_ms = time.time_ns() // 1_000_000
                    used[number] = pss_mib(box, line)
                    since_ms = since_ms if number == MODELS else time.time_ns() // 1_000_000
        check_results(box, subscriber, names + line.names)
        gaps = gaps_seconds(subscriber, since_ms, until_ms)
        kept = list((box.state / "store").glob("*.onnx"))
        figures = {
            "strips": len(line.names), "interval_ms": round(2000 * seconds, 1),
            "longest_gap_ms": round(1000 * max(gaps)),
            "gaps_above_twice_the_interval": sum(gap > 4 * seconds for gap in gaps),
            "pss_mib_after_5": used[5], "pss_mib_after_100": used[MODELS], "kept": len(kept),
        }  # fmt: skip
        show(figures)
        assert len(kept) == 3
        assert len(box.workers()) == 1
        assert used[MODELS]["anonymous"] <= 1.05 * used[5]["anonymous"], figures
        assert max(gaps) < GAP_SECONDS, figures
        assert box.stop() == 0
        assert not box.workers()


def put_good(box: Plant, number: int) -> str:
    """Push a good model of this version."""
    digests: list[str] = []
    put(box.inbox / f"{number}.onnx", lambda path: digests.append(difference_model(path, version=number, salt=number)))
    return digests[0]


def test_bad_pushes_delay_no_strip_noticeably(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """The longest time between two results while each bad model is tried; strips come at half of the capacity."""
    models = {"trial": {"seconds": 20.0, "memory_mib": 512}, "probation": {"max_latency_ratio": 5.0, "strips": 0}}
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side"), models=models) as box:
        box.start()
        good = put_good(box, 1)
        box.wait_until_active(good)
        seconds, names = measure_capacity(box, strips)
        longest: dict[str, float] = {}
        usual: list[float] = []
        with Line(box, strips, 2 * seconds) as line:
            for number, (kind, (reason, write)) in enumerate(BAD_BYTES.items()):
                if reason is Reason.MODEL_TOO_LARGE:
                    continue
                since_ms = time.time_ns() // 1_000_000
                name = f"bad{number}.onnx"
                put(box.inbox / name, write)
                wait_for_state(subscriber, f"{kind} is refused", PATIENCE_SECONDS, last_refused_file=name)
                assert box.active() == good
                gaps = gaps_seconds(subscriber, since_ms)
                longest[kind] = max(gaps, default=0.0)
                usual += gaps
        figures = {
            "interval_ms": round(2000 * seconds, 1), "median_gap_ms": round(1000 * statistics.median(usual), 1),
            "gaps": len(usual), "gaps_above_twice_the_interval": sum(gap > 4 * seconds for gap in usual),
            "longest_ms": {kind: round(1000 * gap) for kind, gap in longest.items()},
        }  # fmt: skip
        show(figures)
        assert max(longest.values()) < GAP_SECONDS, figures
        found = check_results(box, subscriber, names + line.names)
        assert {result["model_sha256"] for result in found} == {good}


def test_a_model_that_is_written_for_a_minute_is_left_alone_until_it_is_whole(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """Nothing is told of it before its last byte; then it goes live, and the line has felt nothing."""
    source = tmp_path / "source.onnx"
    digest = difference_model(source, version=2)
    data = source.read_bytes()
    models = {"settle_seconds": 4.0}  # a writer that is held up for a moment has not ended
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side"), models=models) as box:
        box.start()
        first = put_good(box, 1)
        box.wait_until_active(first)
        seconds, names = measure_capacity(box, strips)
        with Line(box, strips, 2 * seconds) as line:
            with (box.inbox / "slow.onnx").open("wb") as file:
                size = len(data) // (WRITE_SECONDS * 20) + 1
                for start in range(0, len(data), size):
                    file.write(data[start : start + size])
                    file.flush()
                    time.sleep(0.05)  # the pace of a slow upload
                assert box.active() == first
            box.wait_until_active(digest)
        assert [event["event"] for event in model_events(subscriber) if event["file"] == "slow.onnx"] == ["activated"]
        check_results(box, subscriber, names + line.names)
