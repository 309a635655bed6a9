"""How a strip looks is measured in a second thread: what that thread, or the lack of one, does to the judgement."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from agent.config import ChecksSection, HeatmapsSection, ScoringSection
from agent.errors import Blame, Reason
from agent.records import FileIdentity, Strip
from agent.wire import Failed, Job, Judged
from agent.worker import judge
from agent.worker.heatmaps import HeatmapWriter, encode_heatmaps
from agent.worker.judge import Judge
from agent.worker.measuring import measure
from agent.worker.model import load_model
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from agent.contract.measures import Measures
    from agent.worker.measuring import Pixels


def _answer(folder: Path) -> Judged | Failed:
    """Judge one strip as a worker does."""
    difference_model(folder / "m.onnx")
    model = load_model((folder / "m.onnx").read_bytes(), threads=1, unlabelled_input_scale="auto")
    writer = HeatmapWriter(folder / "heatmaps", 0.0, 60.0)
    judging = Judge(model, writer, ChecksSection(), ScoringSection(), HeatmapsSection(), {}, measures=True)
    write_strip(folder / "a.tif")
    strip = Strip(1, "s", "top", "a.tif", FileIdentity.of((folder / "a.tif").stat()), 0, 1, 0)
    return judging.answer(judging.fetch(Job(strip, str(folder), 0.5)))


def test_a_strip_is_measured_while_its_picture_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take some milliseconds, and neither needs the other."""
    begun = threading.Event()

    def measure_and_tell(fed: Pixels, white: float, score: float) -> Measures:
        begun.set()
        return measure(fed, white, score)

    def draw_afterwards(*arguments: Any, **named: Any) -> dict[str, bytes]:
        assert begun.wait(60), "the strip is measured only once its picture is drawn"
        return encode_heatmaps(*arguments, **named)

    monkeypatch.setattr(judge, "measure", measure_and_tell)
    monkeypatch.setattr(judge, "encode_heatmaps", draw_afterwards)
    answer = _answer(tmp_path)
    assert isinstance(answer, Judged)
    assert answer.judgement.measures is not None


def test_a_strip_is_judged_and_measured_where_no_thread_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer then, and the strip is not to blame."""

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(judge._BESIDE, "submit", no_thread)
    answer = _answer(tmp_path)
    assert isinstance(answer, Judged)
    assert answer.judgement.measures is not None


def test_memory_that_runs_out_while_a_strip_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The box is to blame, as in the worker's own thread: the strip waits."""

    def no_memory(*_: object) -> None:
        raise MemoryError(os.strerror(12))

    monkeypatch.setattr(judge, "measure", no_memory)
    answer = _answer(tmp_path)
    assert isinstance(answer, Failed)
    assert (answer.reason, answer.blame) == (Reason.NO_MEMORY, Blame.BOX.value)
