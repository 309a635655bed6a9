"""Five hundred kills at random moments, under load: supervisor, worker, both, broker."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.checks import (
    check_messages,
    check_named_files,
    check_nothing_half_done,
    check_processes,
    in_first_seen_order,
)
from tests.faults.judging import strip_of
from tests.faults.reliability import Row, tell
from tests.faults.shift import Cameras, forgotten, judge_after_broker_kills, make_box, wait_for_progress
from tests.helpers.broker import MOSQUITTO, PERSISTENT, Broker, Subscriber, describe, wait_for
from tests.helpers.soak import SHARE, share_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.box import Box

KILLS = share_of(500, at_least=20)
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
VICTIMS = {"supervisor": 3, "worker": 3, "supervisor and worker": 2, "broker": 2}
RATES = {"top": 1.0, "side": 8.0}


def kill_processes(box: Box, victim: str) -> None:
    """Kill the service's processes; the worker goes first, so that both are both."""
    assert box.process is not None
    workers: list[int] = []
    with suppress(psutil.NoSuchProcess):
        workers = [child.pid for child in psutil.Process(box.process.pid).children()]
    for pid in [*(workers if "worker" in victim else []), *([box.process.pid] if "supervisor" in victim else [])]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if "supervisor" in victim:
        assert box.process.wait(10) == -signal.SIGKILL
        wait_for(lambda: not box.workers(), "workers end with their supervisor", 60)
        box.start(wait=False)


def kill_broker(broker: Broker, subscriber: Subscriber, chance: random.Random) -> float:
    """Kill the broker, and start it again a little later; return when it was killed, in Unix milliseconds."""
    subscriber.expect_reconnect()
    broker.kill()
    killed_ms = time.time() * 1000
    time.sleep(chance.uniform(0.0, 0.5))
    broker.start()
    subscriber.wait_for_subscription(60)
    return killed_ms


def wait_for_a_moment(subscriber: Subscriber, chance: random.Random) -> None:
    """Let a random time pass: often during the start, else once it works again."""
    if chance.random() < 3 / 5:
        time.sleep(chance.uniform(0.0, 0.6))
    else:
        wait_for_progress(subscriber)
        time.sleep(chance.uniform(0.0, 0.3))


@pytest.mark.soak
@pytest.mark.mosquitto
@pytest.mark.skipif(MOSQUITTO is None, reason=f"a session must survive the broker's restart; {describe()}")
@pytest.mark.timeout(2400)
def test_five_hundred_kills_at_random_moments(tmp_path: Path) -> None:
    """Every strip has exactly one result, the right one, which arrived; `seq` has no gap; nothing is left over."""
    sys.stdout.write(f"SOAK_SEED={SEED}\n")
    chance = random.Random(SEED)  # noqa: S311 - to be repeated, not to be secret
    killed: Counter[str] = Counter()
    killed_ms: list[float] = []  # the broker
    began = time.monotonic()
    with (
        Broker(tmp_path, f"{PERSISTENT}\nmax_inflight_messages 0") as broker,
        # The worker is blamed for no strip: two random kills on one strip are no judgement of it.
        make_box(
            tmp_path, broker.port, inference={"max_attempts": 10}, heatmaps={"tiff": "all", "min_free_gib": 0}
        ) as box,
        Subscriber(broker.port, keep_session=True) as subscriber,
        Cameras(box, tmp_path, RATES) as cameras,
    ):
        box.config["cameras"][1]["when_done"] = "delete"
        box.write_config()
        box.start()
        while killed.total() < KILLS:
            wait_for_a_moment(subscriber, chance)
            victim = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            killed[victim] += 1
            if victim == "broker":
                killed_ms.append(kill_broker(broker, subscriber, chance))
            else:
                kill_processes(box, victim)
        wait_for(box.answers, "the service answers", 60)
        cameras.stop()
        verdict, missing = judge_after_broker_kills(box, subscriber, cameras.written, killed_ms)
        assert (verdict.anomalous, verdict.invalid) == (len(cameras.anomalous), 0)
        found = {strip_of(result) for result in verdict.results if result["verdict"] == "anomalous"}
        assert found <= cameras.anomalous
        check_messages(subscriber)
        check_nothing_half_done(box)
        check_named_files(box, verdict.results)
        check_processes(box)
        first_seen = in_first_seen_order(subscriber)
        assert first_seen == sorted(first_seen)
        assert box.stop() == 0
        assert not box.workers()
    words = ", ".join(f"{number} of the {victim}" for victim, number in sorted(killed.items()))
    minutes = (time.monotonic() - began) / 60
    tell(
        Row(
            "Processes",
            "kill -9 at random moments, under load",
            "every strip has exactly one result, the right one; sequence numbers without a gap, in order; no process "
            "and no half written file is left",
            f"while {sum(RATES.values()):g} strips a second arrive, most kills during the start, the others at work",
            f"{killed.total()} kills in {minutes:.0f} minutes, seed {SEED}: {words}; {verdict}{forgotten(missing)}",
            run="soak",
            share=SHARE,
        )
    )
