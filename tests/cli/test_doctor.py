"""What is examined before a box is trusted: each trouble made for real, and its sentence."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli.doctor import box, ledger, speed
from agent.cli.doctor.cameras import look_at_cameras
from agent.cli.doctor.ledger import newer_ledger
from agent.clock import BUILT_MS
from agent.config import Config
from agent.ledger import open_ledger
from agent.ledger.schema import MIGRATIONS
from agent.models.slot_state import Accepted, SlotState
from agent.models.store import Store
from tests.helpers.models import HEIGHT, WIDTH, difference_model

if TYPE_CHECKING:
    from pathlib import Path


def config_of(tmp_path: Path, **sections: Any) -> Config:
    """Make a configuration below `tmp_path`."""
    camera = {"name": "top", "folder": str(tmp_path / "top")}
    return Config.model_validate({"agent": {"state_folder": str(tmp_path / "state")}, "cameras": [camera], **sections})


def test_a_ledger_of_a_newer_version_is_said_and_not_touched(tmp_path: Path) -> None:
    """The service would refuse it at the start; to say so nothing is opened, so that no file of another user stays."""
    assert newer_ledger(tmp_path) == []
    open_ledger(tmp_path / "ledger.db").database.close()
    assert newer_ledger(tmp_path) == []
    with sqlite3.connect(tmp_path / "ledger.db") as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (problem,) = newer_ledger(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert not problem.warning
    assert f"ledger version {len(MIGRATIONS) + 1}, this one knows up to {len(MIGRATIONS)}" in problem.message
    (tmp_path / "ledger.db").write_bytes(b"\xff" * 4096)  # damaged: the service deals with that by itself
    assert newer_ledger(tmp_path) == []


def test_a_ledger_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder lies on a disk or share that hangs: what can be said of it others say."""
    monkeypatch.setattr(ledger, "LOOK_SECONDS", 0.2)
    os.mkfifo(tmp_path / "ledger.db")
    assert newer_ledger(tmp_path) == []


@pytest.mark.parametrize(
    ("now", "state", "level", "said"),
    [
        (BUILT_MS - 1, 0, "bad", "before this software was made"),
        (BUILT_MS + 1, box.TIME_ERROR, "note", "NTP is off"),
        (BUILT_MS + 1, None, "note", "cannot be told"),
        (BUILT_MS + 1, 0, "good", "kept true"),
    ],
)
def test_a_clock_that_nothing_keeps_true_is_said(now: int, state: int | None, level: str, said: str) -> None:
    """Time stamps, ages and certificates depend on it."""
    finding = box.clock_finding(now, state)
    assert (finding.level, finding.what) == (level, "clock")
    assert said in finding.detail


def test_the_kernel_is_asked_about_the_clock() -> None:
    """It answers with a state of its list, as `adjtimex` prints it, or not at all."""
    assert box._clock_state() in {None, 0, 1, 2, 3, 4, 5}


def test_a_trial_that_does_not_fit_into_the_units_memory_is_said(tmp_path: Path) -> None:
    """The kernel would end each candidate that takes what it is allowed."""
    has_mib = box._memory_bytes() >> 20
    assert list(box.examine_memory(config_of(tmp_path, models={"trial": {"memory_mib": 512}}))) == []
    (finding,) = box.examine_memory(config_of(tmp_path, models={"trial": {"memory_mib": has_mib}}))
    assert "models.trial.memory_mib" in finding.detail


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody who may not read")
def test_two_onnxruntimes_in_one_place_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They overwrite each other's files; one alone is an onnxruntime, whichever it is."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    gpu = tmp_path / "onnxruntime_gpu-1.99.0.dist-info"
    gpu.mkdir()
    (gpu / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.99.0\n")
    both, libraries = box._libraries()
    assert both.level == "bad"
    assert "onnxruntime and onnxruntime-gpu overwrite each other" in both.detail
    assert libraries.level == "good"
    monkeypatch.setattr(box, "RUNTIMES", ("onnxruntime-gpu",))
    (libraries,) = box._libraries()
    assert (libraries.level, libraries.detail.split(",")[0]) == ("good", "onnxruntime-gpu 1.99.0")


def test_files_of_a_camera_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    """A camera that writes as another user with mode 600: each strip would be invalid, so it is told before."""
    (tmp_path / "top" / "day").mkdir(parents=True)
    (tmp_path / "top" / "closed").mkdir()
    for name in ("a.tif", "b\x1b.tif", "day/c.tif", "notes.txt", ".hidden.tif"):
        (tmp_path / "top" / name).write_bytes(b"x")
        (tmp_path / "top" / name).chmod(0o600)
    (tmp_path / "top" / "d.tif").write_bytes(b"x")
    (tmp_path / "top" / "closed").chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder.stat().st_uid == 0:
            folder.chmod(folder.stat().st_mode | 0o055)
    script = (
        "import json, os, sys\nfrom agent.cli.doctor.cameras import look_at_cameras\nfrom agent.config import Config\n"
        "config = Config.model_validate(json.loads(sys.argv[1]))\nos.setgid(65534)\nos.setuid(65534)\n"
        "print(json.dumps([(p.where, p.message, p.warning) for p in look_at_cameras(config)]))\n"
    )
    command = [sys.executable, "-c", script, config_of(tmp_path).model_dump_json(include={"agent", "cameras"})]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [(where, warning) for where, _, warning in found] == [("cameras[0].folder", True)] * 2
    assert "3 files that cannot be read by user 65534, the first is a.tif" in found[0][1]
    assert found[1][1] == "closed: Permission denied"
    assert look_at_cameras(config_of(tmp_path)) == [], "root may read them all"


def test_what_a_strip_takes_on_this_processor_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very file that is active, in a process of its own; what does not load, or finds no room, is said."""
    config = config_of(tmp_path)
    (finding,) = speed.measure_models(config)
    assert (finding.level, "none is active" in finding.detail) == ("note", True)

    model = tmp_path / "model.onnx"
    difference_model(model)
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    store = Store(tmp_path / "state/store")
    (store.folder / "slots").mkdir(parents=True)
    model.rename(store.model_path(sha256))
    facts = Accepted("m", 1, HEIGHT, WIDTH, "none", 1.0, 1.0, 0, "model.onnx")
    store.save("default", SlotState(active=sha256, accepted={sha256: facts}))
    (finding,) = speed.measure_models(config)
    assert finding.level == "good", finding
    assert 0 < finding.as_dict()["figures"]["seconds_per_strip"] < 30

    with monkeypatch.context() as patch:
        patch.setattr(speed, "MEMORY_BESIDE_MIB", 1 << 30)
        (finding,) = speed.measure_models(config)
        assert "are missing for a second one" in finding.detail
    store.model_path(sha256).write_bytes(b"damaged")
    (finding,) = speed.measure_models(config)
    assert finding.level == "bad"
