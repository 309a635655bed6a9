"""Run strip-agent so that a test can have a process of it killed between two given steps of the journey.

    python -m tests.e2e.kill_at ARM_FILE run --config ...

Every step in POINTS asks on its way whether ARM_FILE names it. If so the file is removed and SIGKILL goes to the
supervisor, the worker or both, at just that place. Without the file everything is as it always is; the product knows
nothing of this.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e import other_worker

if TYPE_CHECKING:
    from collections.abc import Callable

SUPERVISOR_POINTS = {
    "before_begin": ("agent.ledger.strips", "Strips.begin", "before"),
    "after_begin": ("agent.ledger.strips", "Strips.begin", "after"),
    "before_first_scan_is_recorded": ("agent.ledger.strips", "Strips.record_first_scan", "before"),
    "before_sending_to_the_worker": ("agent.supervision.handle", "WorkerHandle.send", "before"),
    "after_sending_to_the_worker": ("agent.supervision.handle", "WorkerHandle.send", "after"),
    "before_commit": ("agent.ledger.strips", "Strips.commit", "before"),
    "inside_the_commit": ("agent.strips.journey", "strip_message", "after"),
    "after_commit": ("agent.ledger.strips", "Strips.commit", "after"),
    "before_publish": ("agent.mqtt", "Connection.publish", "before"),
    "after_publish": ("agent.mqtt", "Connection.publish", "after"),
    "before_recording_the_acknowledgement": ("agent.ledger.outbox", "Outbox.acknowledge", "before"),
    "after_recording_the_acknowledgement": ("agent.ledger.outbox", "Outbox.acknowledge", "after"),
    "before_disposal": ("agent.strips.finished_files", "dispose", "before"),
    "during_disposal": ("agent.strips.disposal", "_is_still", "before"),
    "after_disposal": ("agent.strips.finished_files", "dispose", "after"),
    "after_recording_the_disposal": ("agent.ledger.strips", "Strips.disposed", "after"),
}
WORKER_POINTS = {
    "before_read": ("agent.worker.judge", "read_regular_file", "before"),
    "after_read": ("agent.worker.judge", "read_regular_file", "after"),
    "after_run": ("agent.worker.judge", "run", "after"),
    "before_heatmaps_are_renamed": ("agent.files", "_flush", "after"),
    "between_two_renames": ("os", "replace", "after"),
    "before_answering": ("agent.worker.judge", "Judge.answer", "after"),
}
POINTS = SUPERVISOR_POINTS | WORKER_POINTS


def arm(arm_file: Path, point: str, kill: str) -> None:
    """Have `kill` (supervisor | worker | both) killed as soon as `point` is reached."""
    assert point in POINTS
    temporary = arm_file.with_suffix(".new")
    temporary.write_text(json.dumps({"point": point, "kill": kill}))
    temporary.rename(arm_file)


def _kill_if_armed(arm_file: Path, point: str) -> None:
    try:
        order = json.loads(arm_file.read_text())
    except FileNotFoundError:
        return
    if order["point"] != point:
        return
    try:
        arm_file.unlink()
    except FileNotFoundError:  # another thread was faster: it is over
        return
    in_worker = point in WORKER_POINTS
    if order["kill"] in ("worker", "both"):
        for pid in (
            [os.getpid()]
            if in_worker and order["kill"] == "worker"
            else [worker.pid for worker in other_worker.started]
        ):
            os.kill(pid, signal.SIGKILL)
    if order["kill"] in ("supervisor", "both"):
        os.kill(os.getppid() if in_worker else os.getpid(), signal.SIGKILL)
    if in_worker:
        os.kill(os.getpid(), signal.SIGKILL) if order["kill"] == "both" else signal.pause()


def _wrap(arm_file: Path, point: str, module: str, function: str, when: str) -> None:
    owner: Any = importlib.import_module(module)
    *path, name = function.split(".")
    for part in path:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            _kill_if_armed(arm_file, point)
        result = original(*args, **kwargs)
        if when == "after":
            _kill_if_armed(arm_file, point)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    """Wrap the points, then be the supervisor or the worker."""
    arm_file = Path(sys.argv[1])
    is_worker = sys.argv[2] == "agent.worker"
    for point, (module, function, when) in (WORKER_POINTS if is_worker else SUPERVISOR_POINTS).items():
        _wrap(arm_file, point, module, function, when)
    if is_worker:
        from agent.worker.__main__ import main as worker_main  # noqa: PLC0415 - the supervisor must not import it

        sys.argv[1:] = sys.argv[3:]
        worker_main()
    else:
        from agent.cli.__main__ import main as cli_main  # noqa: PLC0415 - nor the worker this

        other_worker.start_instead("-m", "tests.e2e.kill_at", str(arm_file))
        sys.argv[1:] = sys.argv[2:]
        cli_main()


if __name__ == "__main__":
    main()
