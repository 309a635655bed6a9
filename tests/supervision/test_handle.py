"""The supervisor's end of a worker: whose fault it is when a trial or a strip comes to no end."""

from __future__ import annotations

import errno
import gc
import hashlib
import itertools
import os
import resource
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config import ChecksSection, HeatmapsSection, ScoringSection
from agent.errors import Blame, Reason, Retry
from agent.records import FileIdentity, Strip
from agent.supervision import WorkerHandle
from agent.wire import Failed, Job, Judged, Setup
from tests.faults.disks import needs_fuse, needs_root, remote_share
from tests.helpers.bad_models import never_loads
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_SECONDS = 4.0
PATIENCE_SECONDS = 150.0


@contextmanager
def _worker(folder: Path, make: Callable[[Path], object]) -> Iterator[WorkerHandle]:
    """Start a worker with a model that `make` writes."""
    model, lock = folder / "model.onnx", folder / "lock"
    make(model)
    lock.touch()
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    setup = Setup(
        str(model), digest, str(lock), str(folder), "candidate", 1, None, "unit",
        ChecksSection().model_dump(), ScoringSection().model_dump(), HeatmapsSection(png="none").model_dump(), 5.0,
        {},
    )  # fmt: skip
    handle = WorkerHandle(setup)
    try:
        yield handle
    finally:
        handle.close(0.0)


def _load(handle: WorkerHandle, deadline_seconds: float = PATIENCE_SECONDS) -> None:
    wait_for(lambda: handle.poll_loaded(0.1, deadline_seconds), "the time is over", PATIENCE_SECONDS)


def _job(file: Path) -> Job:
    strip = Strip(1, "s", "top", file.name, FileIdentity.of(file.stat()), attempts=0, revision=1, seen_ms=0)
    return Job(strip, str(file.parent), 0.5)


def _answer(handle: WorkerHandle, deadline_seconds: float) -> Judged | Failed:
    answers: list[Judged | Failed] = []

    def answered() -> bool:
        answer = handle.poll(0.1, deadline_seconds)
        answers.extend([answer] if answer else [])
        return bool(answers)

    wait_for(answered, "it answers", PATIENCE_SECONDS)
    return answers[0]


def _try(folder: Path) -> None:
    """Try a model whose load never ends, until the time is over."""
    with _worker(folder, never_loads) as handle:
        _load(handle, DEADLINE_SECONDS)


def test_a_candidate_that_got_no_processor_is_the_boxs_fault(tmp_path: Path) -> None:
    """A good model on a busy line must not be refused for ever because it stood back."""
    allowed = os.sched_getaffinity(0)
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {min(allowed)})  # what is started here has one processor, all together
        for _ in range(3):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        with pytest.raises(Retry) as postponed:
            _try(tmp_path)
    assert postponed.value.blame is Blame.BOX
    if postponed.value.reason is not Reason.WORKER_ENDED:  # so starved that it had not even come to the model
        assert postponed.value.reason is Reason.MODEL_TRIAL_TIMEOUT
        assert "for a processor" in postponed.value.detail


LIBRARY_FAULTS = {
    "missing": "raise ImportError('libfoo.so.1: cannot open shared object file')",
    "aborts": "import os; os.abort()",
    "illegal instruction": "import os, signal; os.kill(os.getpid(), signal.SIGILL)",
}


@pytest.mark.parametrize("fault", LIBRARY_FAULTS)
def test_a_worker_that_ends_before_it_opens_the_model_is_the_boxs_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """A library that pip is replacing, a processor that it was not made for: the model has not been looked at."""
    (tmp_path / "onnxruntime.py").write_text(LIBRARY_FAULTS[fault])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with _worker(tmp_path, difference_model) as handle, pytest.raises(Retry) as ended:
        _load(handle)
    assert (ended.value.reason, ended.value.blame) == (Reason.WORKER_ENDED, Blame.BOX)


def test_a_worker_that_is_told_to_end_while_it_loads_is_nobodys_fault(tmp_path: Path) -> None:
    """Somebody stops all processes of the box: no model is refused for that."""
    with _worker(tmp_path, never_loads) as handle:
        wait_for(
            lambda: handle.poll_loaded(0.1, PATIENCE_SECONDS) or handle._opens, "it opens the model", PATIENCE_SECONDS
        )
        os.kill(handle.pid, signal.SIGTERM)
        with pytest.raises(Retry) as ended:
            _load(handle)
    assert (ended.value.reason, ended.value.blame) == (Reason.WORKER_ENDED, Blame.BOX)


def limit_with_room(free: int) -> int:
    """Give the limit of descriptors below which exactly `free` numbers are not taken, wherever the taken ones lie."""
    taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    numbers = (number for number in itertools.count() if number not in taken)
    return next(itertools.islice(numbers, free, None))


def test_out_of_descriptors_is_the_boxs_fault_and_leaves_nothing(tmp_path: Path) -> None:
    """Wherever they run out on the way to a worker: an OSError, no process, no descriptor that stays open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the number alone
    outcomes = []
    for room in range(1, 12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit_with_room(room), hard))
        try:
            with _worker(tmp_path, lambda model: model.touch()):
                outcomes.append("started")
        except OSError as error:
            outcomes.append(errno.errorcode[error.errno or 0])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gc.collect()
        wait_for(lambda: len(os.listdir("/proc/self/fd")) <= open_before, "all are closed")  # noqa: PTH208
    assert set(outcomes) == {"EMFILE", "started"}


@pytest.mark.root
@needs_fuse
@needs_root
def test_a_slow_share_costs_time_and_blames_nobody(tmp_path: Path) -> None:
    """At 50 kB/s a strip takes longer than the deadline: it is judged all the same, since bytes keep coming."""
    strip = tmp_path / "strip.tif"
    write_strip(strip)
    deadline_seconds = 6.0  # a machine that stands still for some seconds loses no strip
    assert strip.stat().st_size > deadline_seconds * 50_000 * 1.5
    with remote_share(tmp_path / "share") as share, _worker(tmp_path, difference_model) as handle:
        _load(handle)
        share.put(strip, "strip.tif")
        share.slow_down(50_000)
        handle.send(_job(share.place / "strip.tif"))
        assert isinstance(_answer(handle, deadline_seconds), Judged)


@pytest.mark.root
@needs_fuse
@needs_root
def test_a_share_that_hangs_while_a_strip_is_read_blames_neither_strip_nor_model(tmp_path: Path) -> None:
    """Nothing comes for the whole deadline: the worker is given up, as the box's fault."""
    strip = tmp_path / "strip.tif"
    write_strip(strip)
    with remote_share(tmp_path / "share") as share, _worker(tmp_path, difference_model) as handle:
        _load(handle)
        share.put(strip, "strip.tif")
        job = _job(share.place / "strip.tif")
        share.hang()
        handle.send(job)
        with pytest.raises(Retry) as lost:
            _answer(handle, 2.0)
        share.come_back()
    assert (lost.value.reason, lost.value.blame) == (Reason.UNREADABLE, Blame.BOX)
