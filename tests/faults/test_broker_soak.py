"""A day without a broker, a broker that is killed again and again, a link with every fault at random."""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import time
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.e2e.checks import validators
from tests.faults.broker_line import BASE, Line, first_seen
from tests.faults.judging import judge, strip_of
from tests.faults.packets import UnderWay
from tests.faults.reliability import Row, tell
from tests.helpers.box import unique_results
from tests.helpers.broker import MOSQUITTO, PERSISTENT, Broker, Subscriber, describe, free_port, wait_for
from tests.helpers.soak import SHARE, share_of
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1200),
    pytest.mark.mosquitto,
    pytest.mark.skipif(MOSQUITTO is None, reason=f"only mosquitto loses nothing of its own; {describe()}"),
]

WINDOW = 16
DAY_SECONDS = 86400
MEMORY_MIB = 48
"""What the supervisor may grow by while a day's results leave: far less than they are."""


def test_a_day_of_results_waits_for_the_broker(tmp_path: Path) -> None:
    """Drained in order, a window at a time, over a cut; live strips are shown meanwhile; memory is bounded."""
    number = share_of(100_000, at_least=10_000)
    line = Line(tmp_path, free_port())
    line.since -= timedelta(seconds=DAY_SECONDS)
    _fill(line, number)
    with line.box, Broker(tmp_path) as broker:
        line.box.start()
        assert line.box.process is not None
        supervisor = psutil.Process(line.box.process.pid)
        line.wait_for_health(alarm="broker_unreachable")
        assert line.box.log.count("No connection to") <= 2, "the log is flooded"
        waiting = line.audit()
        assert waiting["strips"]["pending"] == len(line.written)
        assert len(waiting["unpublished"]) + waiting["unpublished_not_named"] == len(line.written)
        before_mib = supervisor.memory_info().rss / 2**20
        shown_seconds: list[float] = []
        status_seconds: list[float] = []
        memory_mib, waited = [before_mib], []
        with (
            Subscriber(broker.port, f"{BASE}/event/#") as subscriber,
            Subscriber(broker.port, f"{BASE}/state/#") as screen,
            TcpProxy(broker.port, line.box.config["mqtt"]["port"]) as proxy,
        ):
            under_way = UnderWay()
            proxy.watch = under_way
            wait_for(lambda: subscriber.payloads("/event/strip/"), "the first arrive")
            began, cut = time.monotonic(), 0
            while (depth := _asked(line, status_seconds)["outbox_depth"]) > 0:
                waited.append(depth)
                assert time.monotonic() - began < 600, f"{depth} messages still wait"
                if not cut and depth < number / 2:
                    cut = proxy.accepted
                    proxy.cut()
                shown_seconds.append(_show_live_strip(line, screen))
                memory_mib.append(supervisor.memory_info().rss / 2**20)
            seconds = time.monotonic() - began
            verdict = line.judge(subscriber)
            assert first_seen(subscriber) == list(range(1, len(line.written) + 1))
            assert verdict.repeated <= WINDOW * cut
            assert under_way.most <= WINDOW
            assert len(waited) > 2, "live strips waited until all else was sent"
            assert max(memory_mib) - before_mib < MEMORY_MIB
            _check_some_messages(subscriber)
            line.wait_for_health(alarms="", outbox_depth=0)
        assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "24 hours' worth of results wait when the broker comes back",
            "drained oldest first, at most 16 unanswered at a time, also over a cut; live strips are scored and shown "
            "in state/last_strip meanwhile, their events follow in order; the supervisor's memory is bounded",
            "results put into the ledger by SQL, broker_unreachable raised, then the broker; one cut half way",
            f"{verdict}; {len(line.written) / seconds:.0f} a second, {seconds:.0f} s; at most {under_way.most} "
            f"unanswered; {len(shown_seconds)} live strips of each camera shown after "
            f"{statistics.median(shown_seconds):.1f} s ({max(shown_seconds):.1f} s at most), status answered within "
            f"{max(status_seconds):.2f} s; supervisor {before_mib:.0f} MiB before, {max(memory_mib):.0f} MiB at most",
            "soak",
            share=SHARE,
        )
    )


def _asked(line: Line, seconds: list[float]) -> dict[str, Any]:
    began = time.monotonic()
    health: dict[str, Any] = line.box.ask("status")["health"]
    seconds.append(time.monotonic() - began)
    return health


def _show_live_strip(line: Line, screen: Subscriber) -> float:
    """Let each camera write a strip; return after how many seconds an HMI shows both."""
    began = time.monotonic()
    new = line.write(1)

    def shown() -> bool:
        return new <= {strip_of(json.loads(payload)) for payload in screen.payloads("/state/last_strip/")[-20:]}

    wait_for(shown, "live strips are shown")
    return time.monotonic() - began


def _check_some_messages(subscriber: Subscriber) -> None:
    payloads = subscriber.payloads("/event/strip/")
    for payload in payloads[:: max(1, len(payloads) // 200)]:
        result = json.loads(payload)
        validators()[result["schema"]].validate(result)


def _fill(line: Line, number: int) -> None:
    """Let the box score a few strips without a broker, then repeat one of the results until it has a day's worth."""
    with line.box:
        line.box.start()
        line.write(2)
        line.wait_until_judged()
        assert line.box.stop() == 0
    with closing(sqlite3.connect(line.box.state / "ledger.db")) as db:
        seq, row, template = db.execute(
            "SELECT r.seq, r.strip, o.payload FROM results AS r JOIN outbox AS o ON o.seq = r.seq "
            "WHERE r.verdict = 'ok' ORDER BY r.seq DESC LIMIT 1"
        ).fetchone()
        last = db.execute("SELECT max(seq) FROM results").fetchone()[0]
        strips, results, messages = [], [], []
        result = json.loads(template)
        first_ms = int(line.since.timestamp() * 1000)
        for count in range(1, number + 1):
            camera, name = ("top", "side")[count % 2], f"{count:06d}-old.tif"
            at_ms = first_ms + count * DAY_SECONDS * 1000 // number
            changed = {
                "msg_id": f"{result['stream']}-{last + count}",
                "seq": last + count,
                "camera": camera,
                "strip_id": f"{count:016x}",
                "file": name,
                "ts_ms": at_ms,
                "captured_ts_ms": at_ms,
            }
            payload = json.dumps(result | changed, separators=(",", ":")).encode()
            strips.append((1000 + count, changed["strip_id"], camera, name.encode(), at_ms * 10**6, at_ms, row))
            results.append((last + count, 1000 + count, camera, at_ms, at_ms, seq))
            messages.append((f"event/strip/{camera}", payload, last + count, at_ms))
            line.written.add((camera, name))
        with db:
            db.executemany(
                "INSERT INTO strips (id, strip_id, camera, path, mtime_ns, seen_ms, size_bytes, ctime_ns, occurrence, "
                "lane, state) SELECT ?, ?, ?, ?, ?, ?, size_bytes, ctime_ns, 0, 0, 'judged' FROM strips WHERE id = ?",
                strips,
            )
            db.executemany(
                "INSERT INTO results (seq, strip, camera, committed_ms, captured_ts_ms, revision, verdict, reason, "
                "score, model_sha256, heatmap_bytes) SELECT ?, ?, ?, ?, ?, 1, verdict, reason, score, model_sha256, 0 "
                "FROM results WHERE seq = ?",
                results,
            )
            db.executemany("INSERT INTO outbox (topic, payload, seq, queued_ms) VALUES (?, ?, ?, ?)", messages)
            db.execute("UPDATE counters SET n = n + ? WHERE kind = 'seq'", (number,))


def test_killed_again_and_again_under_load(tmp_path: Path) -> None:
    """Only what a killed broker had acknowledged itself can be missing behind it; all else arrives, in order."""
    kills = share_of(12, at_least=3)
    # All it acknowledges is in the subscriber's socket before: then a kill forgets as little as a broker can forget.
    config = f"{PERSISTENT}\nmax_inflight_messages 0"
    with Broker(tmp_path, config) as broker, Subscriber(broker.port, keep_session=True) as subscriber:
        line = Line(tmp_path, broker.port)
        with line.box:
            line.box.start()
            acknowledged: set[tuple[str, str]] = set()
            with line.writing(strips_per_second=30):
                for _ in range(kills):
                    arrived = len(unique_results(subscriber))
                    wait_for(lambda: len(unique_results(subscriber)) >= arrived + 10, "some arrive")  # noqa: B023 - used at once
                    subscriber.expect_reconnect()
                    broker.kill()
                    line.wait_for_health(broker_connected=False)
                    listed = line.box.ask("strips_list", state="acknowledged", limit=100_000)["strips"]
                    acknowledged |= {strip_of(item) for item in listed}
                    broker.start()
                    subscriber.wait_for_subscription()
            verdict = judge(line.box, subscriber, line.written, messages_arrived=False)

            def missing() -> set[tuple[str, str]]:
                return line.written - {strip_of(result) for result in unique_results(subscriber).values()}

            wait_for(lambda: missing() <= acknowledged, "all that no broker had acknowledged before arrives")
            seen = first_seen(subscriber)
            assert seen == sorted(seen)
            forgotten = len(missing())
            if not forgotten:
                line.judge(subscriber)
            assert line.box.stop() == 0
    tell(
        Row(
            "Broker",
            "killed with -9 under load",
            "nothing that a broker has not acknowledged is lost; what a killed broker forgets behind its own "
            "acknowledgement shows as a gap in seq",
            f"SIGKILL {kills} times while two cameras write 30 strips a second, persistence on",
            f"{verdict}; {forgotten} forgotten by the broker itself",
            "soak",
            share=SHARE,
        )
    )


def test_every_fault_of_the_link_at_random(tmp_path: Path) -> None:
    """Whatever the link does for minutes while strips arrive: nothing lost, in order, repeats bounded by the cuts."""
    seconds = share_of(180, at_least=30)
    rng = random.Random(seed := 5)  # noqa: S311 - the same faults each time
    with Broker(tmp_path) as broker, TcpProxy(broker.port) as proxy, Subscriber(broker.port) as subscriber:
        under_way = UnderWay()
        proxy.watch = under_way
        line = Line(tmp_path, proxy.port, mqtt={"keepalive_seconds": 5})
        with line.box:
            line.box.start()
            line.write(2)
            line.wait_until_arrived(subscriber)
            faults: dict[str, int] = {}
            deadline = time.monotonic() + seconds
            with line.writing(strips_per_second=10):
                while time.monotonic() < deadline:
                    name = rng.choice(list(_FAULTS))
                    faults[name] = faults.get(name, 0) + 1
                    with _fault(proxy, name):
                        time.sleep(rng.uniform(0.2, 10 if name == "half-open" else 2))
                    time.sleep(rng.uniform(0, 3))
            verdict = line.judge(subscriber, 120)
            seen = first_seen(subscriber)
            assert seen == sorted(seen)
            assert under_way.most <= WINDOW
            assert verdict.repeated <= WINDOW * proxy.accepted
            assert line.box.stop() == 0
    told = ", ".join(f"{number} x {name}" for name, number in sorted(faults.items()))
    tell(
        Row(
            "Broker",
            "every fault of the link at random",
            "nothing lost, first deliveries in order, at most 16 unanswered at a time and repeated for each cut",
            f"a proxy between them, {seconds} s with 10 strips a second; {told} (seed {seed})",
            f"{verdict}; {proxy.accepted} connections",
            "soak",
            share=SHARE,
        )
    )


_FAULTS: dict[str, dict[str, Any]] = {
    "half-open": {"frozen": True},
    "answers lost": {"answers_dropped": True},
    "answers late": {"answers_held": True},
    "byte at a time": {"chunk_bytes": 1},
    "refused": {"refuse": True},
    "cut": {},
}


@contextmanager
def _fault(proxy: TcpProxy, name: str) -> Iterator[None]:
    """Let the link have this fault for a while."""
    well = {key: getattr(proxy, key) for key in _FAULTS[name]}
    for key, value in _FAULTS[name].items():
        setattr(proxy, key, value)
    if name in {"refused", "cut"}:
        proxy.cut()
    yield
    if name == "answers lost":
        proxy.cut()  # what is lost within a connection TCP itself would send again
    for key, value in well.items():
        setattr(proxy, key, value)
