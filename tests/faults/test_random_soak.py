"""Half an hour of everything at random: the books balance in the end, and the supervisor has not grown."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.faults.disks import Share, remote_share
from tests.faults.judging import Verdict, strip_of
from tests.faults.reliability import Row, tell
from tests.faults.shift import (
    Cameras,
    forgotten,
    judge_after_broker_kills,
    make_box,
    use_at_rest,
    wait_for_progress,
    worker_pid,
)
from tests.faults.troubles import (
    CONTEND,
    KILLS_THE_SUPERVISOR,
    ON_A_SHARE,
    SLOW_SETTLE_SECONDS,
    SPARES_THE_SUPERVISOR,
    World,
    prepare,
)
from tests.helpers.broker import MOSQUITTO, PERSISTENT, Broker, Subscriber, wait_for
from tests.helpers.soak import SHARE, share_of
from tests.helpers.tcp_proxy import TcpProxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.troubles import Troubles
    from tests.helpers.box import Box

SECONDS = share_of(1800, at_least=60)
WITH_KILLS = 0.6  # of that time; in the rest one supervisor survives everything
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
RATES = {"top": 1.0, "side": 4.0, "left": 2.0}
MOST_HEATMAPS_MIB = 10
PARTS = 4  # of the time without kills: the supervisor is measured after each
MOST_GROWTH_MIB = 4.0  # of which 2.6 are SQLite's page cache, which takes some 1500 strips to fill


def _make_box(folder: Path, port: int) -> Box:
    box = make_box(
        folder, port, cameras=tuple(RATES), mqtt={"keepalive_seconds": 5},
        # Random kills are no judgement of a strip, nor of a model.
        inference={"max_attempts": 10, "deadline_seconds": 3.0},
        checks={"incomplete_seconds": 8.0},
        heatmaps={"min_free_gib": 0, "keep_gib": MOST_HEATMAPS_MIB / 1024, "tiff": "all"},
    )  # fmt: skip
    box.config["models"]["trial"] = {"seconds": 15.0}  # also for a worker that is stopped while it loads
    box.config["models"]["probation"] = {"max_faults": 10_000, "max_latency_ratio": 1000.0}
    box.config["cameras"][0]["settle_seconds"] = SLOW_SETTLE_SECONDS
    box.config["cameras"][1]["when_done"] = "delete"
    box.config["cameras"][2] |= {"when_done": "move", "done_folder": str(folder / "done")}
    box.write_config()
    return box


def _trouble(world: World, troubles: Troubles, seconds: float) -> Counter[str]:
    """Make one or two of these faults at a time until the time is over; return how often each was made."""
    made: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        chosen = world.chance.sample(troubles, world.chance.choice((1, 1, 2)))
        if any(len(group & set(chosen)) > 1 for group in CONTEND):
            continue
        made.update(trouble.__name__ for trouble in chosen)
        with ExitStack() as stack:
            for trouble in chosen:
                stack.enter_context(trouble(world))
                world.pause(1.0)
        assert world.box.process is not None
        assert world.box.process.poll() is None, f"the supervisor ended by itself:\n{world.box.log[-3000:]}"
        if world.chance.random() < 1 / 4:  # now and then it gets over everything
            wait_for(world.box.answers, f"the service answers (see {world.box.log_file})")
            wait_for_progress(world.subscriber, 3, 120)
        world.pause(1.0)
    return made


def _judge(world: World) -> tuple[Verdict, int]:
    """Let both judges speak; every verdict is the one that the file deserves. Return what the broker forgot as well."""
    world.cameras.stop()
    world.join()
    written = world.cameras.written | world.slow | world.bad
    verdict, missing = judge_after_broker_kills(
        world.box, world.subscriber, written, world.broker_killed_ms, seconds=300
    )
    assert (verdict.anomalous, verdict.invalid) == (
        len(world.cameras.anomalous | world.slow_anomalous), len(world.bad)
    )  # fmt: skip
    verdicts = {strip_of(result): result["verdict"] for result in verdict.results}
    wrong = {strip: found for strip, found in verdicts.items() if (found == "invalid") != (strip in world.bad)}
    assert not wrong, [result for result in verdict.results if strip_of(result) in wrong][:5]
    anomalous = {strip for strip, found in verdicts.items() if found == "anomalous"}
    assert anomalous <= world.cameras.anomalous | world.slow_anomalous
    return verdict, missing


def _share(stack: ExitStack, box: Box) -> Share | None:
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return None
    return stack.enter_context(remote_share(box.heatmaps))


@pytest.mark.soak
@pytest.mark.mosquitto
@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: a session must survive the broker's restart")
@pytest.mark.timeout(3600)
def test_everything_at_random_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Every strip has one result, and the right one; memory, descriptors and threads of the supervisor do not grow."""
    sys.stdout.write(f"SOAK_SEED={SEED}\n")
    chance = random.Random(SEED)  # noqa: S311 - to be repeated, not to be secret
    prepare(tmp_path / "bad")
    with ExitStack() as stack:
        broker = stack.enter_context(Broker(tmp_path, f"{PERSISTENT}\nmax_inflight_messages 0"))
        proxy = stack.enter_context(TcpProxy(broker.port))
        subscriber = stack.enter_context(Subscriber(broker.port, keep_session=True))
        box = _make_box(tmp_path, proxy.port)
        share = _share(stack, box)
        stack.enter_context(box)
        cameras = stack.enter_context(Cameras(box, tmp_path, RATES))
        world = World(box, broker, proxy, subscriber, cameras, chance, tmp_path / "bad", share)
        world.good_models[hashlib.sha256((box.inbox / "model.onnx").read_bytes()).hexdigest()] = 1
        box.start()
        spares = SPARES_THE_SUPERVISOR + (ON_A_SHARE if share else [])
        made = _trouble(world, KILLS_THE_SUPERVISOR * 3 + spares, SECONDS * WITH_KILLS)

        # From here on one supervisor has to survive everything; what it uses is measured when it has seen some of it.
        wait_for(box.answers, f"the service answers (see {box.log_file})")
        assert box.process is not None
        survivor = box.process.pid
        used = []
        for _ in range(PARTS):
            made += _trouble(world, spares, SECONDS * (1 - WITH_KILLS) / PARTS)
            cameras.pause.set()
            used.append(use_at_rest(box))
            sys.stdout.write(f"{used[-1]}\n")
            sys.stdout.flush()
            cameras.pause.clear()
        verdict, missing = _judge(world)
        assert box.process.pid == survivor
        uses = "; ".join(map(str, used))
        figures = (
            f"seed {SEED}: {_words(made)}; {verdict}{forgotten(missing)}; the survivor at rest, in between: {uses}"
        )
        sys.stdout.write(f"{figures}\n")
        assert used[-1].pss_mib <= used[0].pss_mib + MOST_GROWTH_MIB, figures
        assert used[-1].descriptors <= used[0].descriptors, figures
        assert used[-1].threads <= used[0].threads, figures
        worker_pid(box)
        active = box.ask("status")["models"]["default"]["active_sha256"]
        assert active in world.good_models, "a bad model is active"
        assert box.stop() == 0
        assert not box.workers()
    tell(
        Row(
            "Load",
            "everything at random",
            "every strip has one result, with the verdict that its file deserves; memory, descriptors and threads of "
            "the supervisor do not grow; it never ends by itself; no bad model becomes active",
            f"{SECONDS // 60} minutes, one or two at a time: kills and stops of supervisor and worker, broker away, "
            "link cut, refused, half-open, answers lost, heatmap folder full and hung, bad and half written strips, "
            "all strips touched, links planted, modes of the inbox changed, junk floods in it, good and bad models; "
            "for the last part without kills of the supervisor, whose use is measured",
            figures,
            run="soak",
            share=SHARE,
        )
    )


def _words(made: Counter[str]) -> str:
    return f"{made.total()} faults ({', '.join(f'{name} {number}' for name, number in sorted(made.items()))})"
