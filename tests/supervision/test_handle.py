"""The supervisor's end of a worker: whose fault it is when a trial takes too long."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agent.config import ChecksSection, HeatmapsSection, ScoringSection
from agent.errors import Blame, Reason, Retry
from agent.supervision import WorkerHandle
from agent.wire import Setup
from tests.helpers.bad_models import never_loads
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_SECONDS = 4.0


def _try(folder: Path) -> None:
    """Try a model whose load never ends, until the time is over."""
    model, lock = folder / "model.onnx", folder / "lock"
    never_loads(model)
    lock.touch()
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    setup = Setup(
        str(model), digest, str(lock), str(folder), "candidate", 1, None, "unit",
        ChecksSection().model_dump(), ScoringSection().model_dump(), HeatmapsSection().model_dump(),
    )  # fmt: skip
    handle = WorkerHandle(setup)
    try:
        wait_for(lambda: handle.poll_loaded(0.1, DEADLINE_SECONDS), "the time is over", 60)
    finally:
        handle.close(0.0)


def test_a_candidate_that_got_no_processor_is_the_boxs_fault(tmp_path: Path) -> None:
    """A good model on a busy line must not be refused for ever because it stood back."""
    with ExitStack() as stack:
        for _ in range(4 * (os.cpu_count() or 1)):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        with pytest.raises(Retry) as postponed:
            _try(tmp_path)
    assert (postponed.value.reason, postponed.value.blame) == (Reason.MODEL_TRIAL_TIMEOUT, Blame.BOX)
    assert "for a processor" in postponed.value.detail
