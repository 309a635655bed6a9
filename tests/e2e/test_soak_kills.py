"""A hundred kills at random moments: supervisor, worker or both, while strips and broker outages come and go."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.box import Box, drop_file
from tests.broker import MOSQUITTO, PERSISTENT, Broker, Subscriber, describe, wait_for
from tests.e2e.checks import check_every_strip_once, check_named_files, check_processes, in_first_seen_order
from tests.models import difference_model
from tests.soak import share_of

if TYPE_CHECKING:
    from pathlib import Path

KILLS = share_of(100, at_least=20)
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def pids(box: Box, victim: str) -> list[int]:
    """Give the processes to kill: the worker goes first, so that `both` is both."""
    assert box.process is not None
    workers: list[int] = []
    with suppress(psutil.NoSuchProcess):
        workers = [child.pid for child in psutil.Process(box.process.pid).children()]
    return (workers if victim in ("worker", "both") else []) + (
        [box.process.pid] if victim in ("supervisor", "both") else []
    )


@pytest.mark.soak
@pytest.mark.mosquitto
@pytest.mark.skipif(MOSQUITTO is None, reason=f"a session must survive the broker's restart; {describe()}")
def test_a_hundred_kills_at_random_moments(tmp_path: Path, good_strip: Path) -> None:
    """Every strip has exactly one result, which arrived; `seq` has no gap; nothing is left over."""
    sys.stdout.write(f"SOAK_SEED={SEED}\n")
    chance = random.Random(SEED)  # noqa: S311 - no secret
    # The worker is blamed for no strip: two random kills on one strip are no judgement of it.
    inference = {"max_attempts": 10}
    with (
        Broker(tmp_path, PERSISTENT) as broker,
        Box(tmp_path / "box", broker.port, inference=inference, heatmaps={"tiff": "all", "min_free_gib": 0}) as box,
        Subscriber(broker.port, keep_session=True) as subscriber,
    ):
        difference_model(box.inbox / "model.onnx")
        box.start()
        files: list[str] = []
        for kill in range(KILLS):
            for _ in range(chance.randrange(1, 6)):
                files.append(f"strip{len(files):04}.tif")
                drop_file(good_strip, box.camera() / files[-1])
            time.sleep(chance.random() ** 2 * 2.5)  # the random moment: not a wait for anything
            if kill % 20 == 10:
                subscriber.expect_reconnect()
                broker.kill() if kill % 40 == 10 else broker.stop()
            victim = chance.choice(["supervisor", "worker", "both"])
            for pid in pids(box, victim):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if kill % 20 == 15:
                broker.start()
                subscriber.wait_for_subscription()
            if victim == "worker":
                continue
            assert box.process is not None
            assert box.process.wait(10) == -signal.SIGKILL
            wait_for(lambda: not box.workers(), "workers end with their supervisor")
            box.start(wait=False)
        wait_for(box.answers, "the service answers", 30)
        found = check_every_strip_once(box, subscriber, files)
        assert {result["verdict"] for result in found} == {"ok"}
        check_named_files(box, found)
        check_processes(box)
        first_seen = in_first_seen_order(subscriber)
        assert first_seen == sorted(first_seen)
        assert box.stop() == 0
        assert not box.workers()
