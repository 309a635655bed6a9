"""replay and collect on a real box: what was published is looked at again, and nothing of it changes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Reject, Retry
from agent.hindsight import rescoring
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.broker import Broker

BASE = "strip-agent/box1"


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Box]:
    """Have a box that has judged five strips of two cameras, and of whose files some are not what they were.

    top: good.tif, <defect>.tif, gone.tif (removed since), other.tif (another file since);
    side, which moves what is done: defect.tif, twice, under one name.
    """
    folder = tmp_path_factory.mktemp("hindsight")
    with Box(folder, broker.port, cameras=("top", "side")) as made, Subscriber(broker.port, f"{BASE}/#") as subscriber:
        side = next(camera for camera in made.config["cameras"] if camera["name"] == "side")
        side |= {"when_done": "move", "done_folder": str(folder / "done")}
        (folder / "done").mkdir()
        made.write_config()
        difference_model(made.inbox / "model.onnx", version=1)
        made.start()
        top = made.camera("top")
        for number, (name, defect) in enumerate([("good", False), ("<defect>", True), ("gone", True), ("other", True)]):
            strip = folder / "strip.tif"
            write_strip(strip, defect=defect, seed=number)
            drop_file(strip, top / f"{name}.tif")
        for number in range(2):
            write_strip(folder / "strip.tif", defect=True, seed=10 + number)
            drop_file(folder / "strip.tif", made.camera("side") / "defect.tif")
            wait_for(lambda: len([*(folder / "done").iterdir()]) == number + 1, "it is moved")  # noqa: B023 - at once
        wait_for_results(subscriber, 6)
        (top / "gone.tif").unlink()
        write_strip(top / "other.tif.new", seed=99)
        (top / "other.tif.new").replace(top / "other.tif")
        os.utime(top / "good.tif", (1, 1))  # restored from a backup, say
        wait_for_results(subscriber, 7)
        made.wait_until_published(7)
        yield made


def replay(box: Box, *arguments: object, exit_code: int = 0) -> dict[str, Any]:
    """Replay and give what it tells."""
    done = box.cli("replay", "--json", *map(str, arguments))
    assert done.returncode == exit_code, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def test_the_model_that_judged_says_the_same_again_of_every_file_that_is_still_there(box: Box) -> None:
    """By its digest in the store; moved files are found where they are, whatever their names and times are now."""
    [model] = (box.state / "store").glob("*.onnx")
    before = box.audit()
    found = replay(box, "--model", model.stem[:8], "--max-flips", 0)
    assert found["change"]["flips"] == 0
    assert found["change"]["largest_shift"] == 0
    judged = sorted(f"{one['camera']}/{one['file']}" for one in found["strips"])
    assert judged == ["side/defect.tif", "side/defect.tif", "top/<defect>.tif", "top/good.tif", "top/other.tif"]
    assert found["left_out"] == {"gone": 1, "replaced": 1}
    assert box.audit() == before, "nothing that was published has changed"


def test_a_blinder_model_is_found_out_by_a_stated_limit(box: Box, tmp_path: Path) -> None:
    """Exit 1 by a number or a share of verdicts; the page shows them, loads nothing and runs nothing."""
    difference_model(tmp_path / "blinder.onnx", version=9, model_id="blinder", threshold=0.999)
    page = tmp_path / "page.html"
    arguments = ("--model", tmp_path / "blinder.onnx", "--camera", "top", "--out", page)
    listed = box.ask("strips_list", state="anomalous", camera="top")["strips"]
    defect = next(strip["strip_id"] for strip in listed if strip["file"] == "<defect>.tif")
    assert box.ask("review", strip_id=defect, finding="defect", by="ann", remark="", revision=None)["ok"]
    found = replay(box, *arguments, "--max-flips", 0, exit_code=1)
    assert found["change"]["kinds"] == {"anomalous to ok": 1}
    assert (found["change"]["known"], found["change"]["mended"], found["change"]["broken"]) == (1, 0, 1), (
        "by the review"
    )
    assert (found["too_much"], found["too_few"]) == (True, False)
    first = found["strips"][0]
    assert (first["file"], first["verdict_before"], first["verdict"]) == ("<defect>.tif", "anomalous", "ok")
    assert first["score"] == pytest.approx(first["score_before"], abs=1e-6), "only the threshold is another one"
    html = page.read_text()
    assert "blinder version 9" in html
    assert "top/&lt;defect&gt;.tif" in html
    assert "More changes than is allowed (0 verdicts may change)" in html
    assert html.count("data:image/png;base64,") == 6, "three strips, before and now"
    assert "<script" not in html
    assert "http" not in html
    assert replay(box, *arguments[:4], "--max-flips", 1)["too_much"] is False
    assert replay(box, *arguments[:4], "--max-flips", "30%", exit_code=1)["change"]["flipped_share"] == pytest.approx(
        1 / 3
    )
    assert replay(box, *arguments[:4], "--min-strips", 4, exit_code=1)["too_few"] is True


def test_a_model_that_no_box_would_take_is_refused_before_any_strip(box: Box, tmp_path: Path) -> None:
    """The trial is that of a push: a sentence with the reason, and exit 1."""
    difference_model(tmp_path / "wrong.onnx", golden_shift=0.5)
    with pytest.raises(Reject, match="golden"):  # the command line makes a sentence and exit 1 of it
        box.cli("replay", "--model", str(tmp_path / "wrong.onnx"))
    done = box.cli("replay", "--model", "0123456789")
    assert (done.returncode, "no model of the store has a digest" in done.stderr) == (1, True)


def test_a_replay_is_a_process_of_the_lowest_priority_that_no_service_waits_for(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread, nice 19, the first to go when memory runs out, and not among the service's workers."""
    seen: list[tuple[int, int]] = []
    judge = rescoring.Rescorer.judge

    def look(self: rescoring.Rescorer, *arguments: Any) -> Any:
        pid = self._worker.pid
        seen.append((os.getpriority(os.PRIO_PROCESS, pid), self._worker.setup.threads or 0))
        assert all(worker.pid != pid for worker in box.workers())
        answer = judge(self, *arguments)
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
        return answer

    monkeypatch.setattr(rescoring.Rescorer, "judge", look)
    [model] = (box.state / "store").glob("*.onnx")
    replay(box, "--model", model.stem, "--limit", 2)
    assert seen == [(19, 1)] * 2


def test_a_model_that_breaks_down_on_strips_ends_the_replay_after_a_few(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost worker is a verdict of its own at first, and then the end with exit 1: nothing is tried for ever."""
    judge = rescoring.Rescorer.judge

    def lose(self: rescoring.Rescorer, *arguments: Any) -> Any:
        os.kill(self._worker.pid, signal.SIGSEGV)
        return judge(self, *arguments)

    monkeypatch.setattr(rescoring.Rescorer, "judge", lose)
    [model] = (box.state / "store").glob("*.onnx")
    found = replay(box, "--model", model.stem, "--camera", "top", "--limit", 1, "--max-flips", 0, exit_code=1)
    assert found["change"]["kinds"] == {"ok to invalid": 1}
    assert found["strips"][0]["reason"].startswith("worker_crashed")
    with pytest.raises(Retry, match="SIGSEGV"):
        box.cli("replay", "--model", model.stem)


def test_without_a_service_the_answer_is_the_same(box: Box) -> None:
    """The ledger is asked by whoever finds it free."""
    [model] = (box.state / "store").glob("*.onnx")
    before = replay(box, "--model", model.stem)
    assert box.stop() == 0
    after = replay(box, "--model", model.stem)
    assert after["strips"] == before["strips"]
    assert after["left_out"] == before["left_out"]
    said = box.cli("replay", "--model", model.stem, "--since", "1d").stdout
    assert "verdicts that change  0 (0.00%)" in said
