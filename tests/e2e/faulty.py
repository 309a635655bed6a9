"""Run strip-agent with faults that cannot be had otherwise.

    python -m tests.e2e.faulty SWITCHES run --config ...

SWITCHES is a folder. A file in it switches a fault on:

    crash, hang, flood    the worker is killed, stands still, or writes to standard error without end, on every strip
                          whose name contains that word
    crash_once            the worker is killed on the first strip whose name contains `crash`, and on no other
    shadow_hang, shadow_crash   the same, on every strip, of workers that are shadows, and of no others
    shadow_crash_loading  a shadow's worker is killed by its model while that is loaded
    traced                workers take 0.3 s of running for each strip, shadows 1 s; every ten milliseconds of it they
                          write into `live.trace` or `shadow.trace` the strip's name and the time
    slow                  the worker takes a second for each strip; `slow.began` appears when it does for the first time
    held                  the worker waits at a strip until the file is gone
    publisher             the publisher's thread stands still
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e import other_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.wire import Failed, Judged, Setup

HOLD_SECONDS = 1.0
BUDGET_SECONDS = 1.0
SLOW_SECONDS = 1.0
FLUSH_SECONDS = 60.0  # a broker that stands still for some seconds gets all the same what is judged at a stop
TRACED_EVERY_SECONDS = 0.01
TRACED = {"live": 30, "shadow": 100}  # lines for each strip
FLOOD_BYTES = 4 << 20


def _be_a_worker(switches: Path) -> None:
    from agent.worker import __main__, judge, model  # noqa: PLC0415 - the supervisor must not import it

    answer, take_role, load = judge.Judge.answer, __main__._take_role, model.load_model
    role = ""

    def note_role(setup: Setup) -> Callable[[], None]:
        nonlocal role
        role = setup.role
        return take_role(setup)

    def load_or_fail(*args: Any, **options: Any) -> model.Model:
        if role == "shadow" and (switches / "shadow_crash_loading").exists():
            os.abort()
        return load(*args, **options)

    def answer_or_fail(judging: judge.Judge, fetched: judge.Fetched, writes: Callable[[], None]) -> Judged | Failed:
        if "crash" in fetched.job.strip.path and (switches / "crash_once").exists():
            (switches / "crash_once").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        for fault in ("crash", "hang", "flood"):
            of_shadow = role == "shadow" and (switches / f"shadow_{fault}").exists()
            if of_shadow or (fault in fetched.job.strip.path and (switches / fault).exists()):
                if fault == "flood":
                    os.write(2, b"x" * FLOOD_BYTES + b"\n" + b"many lines\n" * 20_000)
                else:
                    os.kill(os.getpid(), signal.SIGKILL if fault == "crash" else signal.SIGSTOP)
        _take_time(switches, "shadow" if role == "shadow" else "live", fetched.job.strip.path)
        return answer(judging, fetched, writes)

    __main__._take_role = note_role
    model.load_model = load_or_fail
    judge.Judge.answer = answer_or_fail  # type: ignore[method-assign,assignment] # another name of self
    __main__.main()


def _take_time(switches: Path, role: str, strip: str) -> None:
    if (switches / "traced").exists():
        _trace(switches, role, strip)
    while role == "live" and (switches / "held").exists():
        time.sleep(0.05)
    if (switches / "slow").exists():
        (switches / "slow.began").touch()
        time.sleep(SLOW_SECONDS)


def _trace(switches: Path, role: str, strip: str) -> None:
    with (switches / f"{role}.trace").open("a", buffering=1, encoding="utf-8") as trace:
        for _ in range(TRACED[role]):
            trace.write(f"{strip} {time.monotonic_ns()}\n")
            time.sleep(TRACED_EVERY_SECONDS)


def _be_the_supervisor(switches: Path) -> None:
    from agent import loops, service  # noqa: PLC0415 - the worker must not import it
    from agent.cli import __main__ as cli  # noqa: PLC0415
    from agent.models import keeper  # noqa: PLC0415
    from agent.publisher import Publisher  # noqa: PLC0415
    from agent.shadow import notes, rules, telling  # noqa: PLC0415

    step = Publisher.step

    def step_or_hang(publisher: Publisher, timeout_seconds: float) -> None:
        while (switches / "publisher").exists():
            time.sleep(0.05)
        step(publisher, timeout_seconds)

    Publisher.step = step_or_hang  # type: ignore[method-assign,assignment] # another name of self
    loops.BUDGET_SECONDS["publisher"] = BUDGET_SECONDS
    service.FLUSH_SECONDS = FLUSH_SECONDS
    keeper.SHORTEST_HOLD_SECONDS = HOLD_SECONDS
    rules.SHARE = 1.0  # no rest
    notes.WRITE_SECONDS, rules.FIRST_PAUSE_SECONDS, telling.PUBLISH_SECONDS = 0.1, 0.1, 0.1
    other_worker.start_instead("-m", "tests.e2e.faulty", str(switches))
    cli.main()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if sys.argv[2] == "agent.worker":
        sys.argv[1:] = sys.argv[3:]
        _be_a_worker(folder)
    else:
        sys.argv[1:] = sys.argv[2:]
        _be_the_supervisor(folder)
