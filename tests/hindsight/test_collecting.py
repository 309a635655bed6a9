"""collect: strips for the next training out of what a ledger and its folders hold."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import yaml
from click.testing import CliRunner

from agent.cli.__main__ import cli
from agent.cli.oneshot import digest_of
from agent.hindsight import archive
from agent.ledger import Ledger, NewResult, NewReview, open_ledger
from agent.ledger.shadow import Opinion
from agent.models.slot_state import Accepted, SlotState
from agent.models.store import Store
from agent.records import FileIdentity, SettledFile, show_name
from tests.helpers.models import difference_model
from tests.helpers.strips import make_pixels
from tools.export import main as export

if TYPE_CHECKING:
    from agent.ledger.reviews import Finding

HEIGHT, WIDTH = 60, 40
HOT = (slice(24, 40), slice(10, 20))
SHA = "ab" * 32


class Line:
    """A box's folders and ledger, without a service: strips are judged as the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.camera = folder, folder / "camera"
        self.state, self.heatmaps = folder / "state", folder / "heatmaps"
        for made in (self.camera, self.state / "store" / "slots", self.heatmaps, folder / "inbox"):
            made.mkdir(parents=True)
        self.config_file = folder / "agent.yaml"
        self.config: dict[str, Any] = {
            "agent": {"name": "box1", "state_folder": str(self.state)},
            "cameras": [{"name": "top", "folder": str(self.camera)}],
            "models": {"inbox": str(folder / "inbox")},
            "heatmaps": {"folder": str(self.heatmaps), "min_free_gib": 0},
        }
        accepted = Accepted("net", 1, HEIGHT, WIDTH, "none", 1.0, 1.0, 0, "net.onnx")
        Store(self.state / "store").save("default", SlotState(accepted={SHA: accepted}, active=SHA))
        self.ledger: Ledger = open_ledger(self.state / "ledger.db")

    def judge(self, name: str, score: float, finding: Finding | None = None, *, dtype: type = np.float32) -> Path:
        """Have a strip judged; one of 0.5 and more has a defect and a heatmap that shows it. Then have it reviewed."""
        path = self.camera / name
        pixels: Any = make_pixels(height=HEIGHT, width=WIDTH, channels=4, seed=len(name)).astype(dtype)
        pixels[3] = 7  # whatever the camera has there
        heat = np.full((HEIGHT, WIDTH), 0.05, np.float32)
        if score >= 0.5:
            pixels[0][HOT] = 255 - pixels[0][HOT]
            heat[HOT] = score
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate")
        self.ledger.strips.begin([SettledFile("top", name, FileIdentity.of(path.stat()))])
        strip = self.ledger.strips.next_waiting("top", 0, ())
        assert strip is not None
        message = {
            "threshold": 0.5,
            "file": show_name(name),
            "model_id": "net",
            "heatmap_path": "",
            "heatmap_sha256": "",
        }
        if score >= 0.5:
            tifffile.imwrite(self.heatmaps / f"{strip.strip_id}.tiff", heat)
            message |= {"heatmap_path": f"{strip.strip_id}.tiff"}
            message |= {"heatmap_sha256": digest_of(self.heatmaps / f"{strip.strip_id}.tiff")}
        verdict = "anomalous" if score >= 0.5 else "ok"
        result = NewResult(verdict, "", score, SHA, 0, digest_of(path), "t", dispose=False)
        self.ledger.strips.commit(strip, result, lambda *_: json.dumps(message).encode(), 1_000_000)
        if finding is not None:
            self.ledger.reviews.add(NewReview(strip.row, finding, "ann", "", "root"), "t", lambda *_: b"{}", 100)
        return path

    def collect(self, out: Path, *arguments: object, exit_code: int = 0) -> dict[str, Any]:
        """Collect, and give what is told; the ledger is closed, as without a service."""
        self.ledger.database.close()
        self.config_file.write_text(yaml.safe_dump(self.config))
        asked = ["collect", "--json", "--out", str(out), "--config", str(self.config_file), *map(str, arguments)]
        done = CliRunner().invoke(cli, asked)
        assert done.exit_code == exit_code, done.output
        return json.loads(done.stdout) if exit_code == 0 else {"error": done.stderr}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Have one with strips of every kind."""
    made = Line(tmp_path)
    made.judge("found.tif", 0.9, "defect")
    made.judge("alarm.tif", 0.8, "no_defect")
    made.judge("missed.tif", 0.2, "defect")
    made.judge("doubtful.tif", 0.7, "unsure")
    made.judge("close.tif", 0.45)
    made.judge("closer.tif", 0.52)
    made.judge("clear.tif", 0.05)
    return made


def table(folder: Path) -> dict[str, dict[str, str]]:
    """Give the rows of the table by the name of the camera's file."""
    rows = csv.DictReader((folder / "labels.csv").read_text().splitlines())
    return {row["original"].removeprefix("top/"): row for row in rows}


def test_reviewed_strips_become_truth_that_evaluate_takes(line: Line, tmp_path: Path) -> None:
    """The label is the last word; confirmed regions are a mask in the fourth channel, nobody's pixels are none."""
    out = tmp_path / "collected"
    told = line.collect(out, "--reviewed")
    assert (told["strips"], told["labels"]) == (4, {"defect": 2, "good": 1, "unsure": 1})
    rows = table(out)
    assert {name: (row["label"], row["mask"]) for name, row in rows.items()} == {
        "found.tif": ("defect", "channel 4"),
        "alarm.tif": ("good", "channel 4"),
        "missed.tif": ("defect", ""),
        "doubtful.tif": ("unsure", ""),
    }
    for name, row in rows.items():
        before, after = tifffile.imread(line.camera / name), tifffile.imread(out / row["file"])
        assert np.array_equal(before[:3], after[:3])
        mask = np.zeros((HEIGHT, WIDTH))
        mask[HOT] = 255 if name == "found.tif" else 0
        assert np.array_equal(after[3], mask if row["mask"] else before[3])
    model = tmp_path / "model.onnx"
    difference_model(model, height=HEIGHT, width=WIDTH, gain=4.0)
    done = CliRunner().invoke(export, ["evaluate", str(model), str(out), "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    judged = {(Path(one["file"]).parent.name, one["defective"]) for one in found["by_strip"]}
    assert judged == {("defect", True), ("good", False)}
    assert (found["strips"], found["truth"]) == (3, "labels.csv")
    assert found["defects"]["IoU 0.3"]["count"] == 1, "the one whose pixels are known"


def test_the_line_is_only_read(line: Line, tmp_path: Path) -> None:
    """No file of the camera and no heatmap changes, moves or goes; a copy that got no mask is the same bytes."""

    def state() -> dict[str, tuple[int, bytes]]:
        files = [*line.camera.iterdir(), *line.heatmaps.iterdir()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = state()
    line.collect(tmp_path / "out", "--reviewed", "--uncertain", "--verdict", "ok", "--verdict", "anomalous")
    assert state() == before
    rows = table(tmp_path / "out")
    assert len(rows) == 7
    copy = (tmp_path / "out" / rows["close.tif"]["file"]).read_bytes()
    assert hashlib.sha256(copy).hexdigest() == rows["close.tif"]["sha256"]
    heat = tifffile.imread(tmp_path / "out" / rows["found.tif"]["heatmap"])
    assert heat[HOT].min() == pytest.approx(0.9)


def test_uncertain_is_near_the_threshold_or_seen_otherwise_by_a_shadow(line: Line, tmp_path: Path) -> None:
    """How near is an argument; of too many the most telling come first, and it is said that there are more."""
    published = {one.strip.path: one for one in line.ledger.shadow.published(["top"], 0, 100, 100)}
    opinion = Opinion(published["clear.tif"], "anomalous", 0.6, 0.5, 1.0)
    line.ledger.shadow.record("default", "cd", 100, [opinion], {})
    told = line.collect(tmp_path / "near", "--uncertain")
    assert [*table(tmp_path / "near")] == ["clear.tif", "closer.tif", "close.tif"]
    assert (told["labels"], told["stopped"]) == ({"": 3}, "")
    told = line.collect(tmp_path / "nearer", "--uncertain", "--near", 0.03)
    assert [*table(tmp_path / "nearer")] == ["clear.tif", "closer.tif"]
    told = line.collect(tmp_path / "two", "--uncertain", "--limit", 2)
    assert [*table(tmp_path / "two")] == ["clear.tif", "closer.tif"]
    assert "--limit" in told["stopped"]
    assert table(tmp_path / "two")["clear.tif"]["shadow_verdict"] == "anomalous"


def test_it_is_bounded_by_size(tmp_path: Path) -> None:
    """Strips and heatmaps together stay within --max-mib, and what ended it is said."""
    line = Line(tmp_path)
    for number in range(60):
        line.judge(f"{number}.tif", 0.9)
    told = line.collect(tmp_path / "out", "--verdict", "anomalous", "--max-mib", 1)
    size = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.tiff"))
    assert told["size_bytes"] == size <= 1 << 20 < size * 60 / told["strips"]
    assert "--max-mib" in told["stopped"]


def test_a_zip_file_holds_the_same(line: Line, tmp_path: Path) -> None:
    """Names, bytes and table as in a folder."""
    line.collect(tmp_path / "out", "--reviewed")
    line.collect(tmp_path / "out.zip", "--reviewed")
    inside = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
              for path in (tmp_path / "out").rglob("*") if path.is_file()}  # fmt: skip
    with zipfile.ZipFile(tmp_path / "out.zip") as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist()} == inside


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_nothing_is_overwritten_and_nothing_half_done_is_left(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever has the name stays; a full disk in the middle leaves no trace."""
    out = tmp_path / "new" / name
    out.parent.mkdir()
    out.symlink_to(tmp_path / "nowhere")
    assert "is there already" in line.collect(out, "--reviewed", exit_code=1)["error"]
    assert out.is_symlink()
    out.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = archive._InZip if name.endswith(".zip") else archive._InFolder
    with monkeypatch.context() as patched:
        add, calls = writer.add, []

        def fail_late(self: Any, where: str, data: bytes) -> None:
            calls.append(where)
            add(self, where, data) if len(calls) < 3 else full()

        patched.setattr(writer, "add", fail_late)
        assert "No space left" in line.collect(out, "--reviewed", exit_code=1)["error"]
    assert [*out.parent.iterdir()] == []
    line.collect(out, "--reviewed")
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_names_of_cameras_files_are_harmless_in_the_collection(tmp_path: Path) -> None:
    """Neither a path, nor a formula, nor a point of the truth, nor a byte that is no letter gets through."""
    line = Line(tmp_path)
    odd = ["=cmd|'x'!A1#3,4.tif", "caf\udce9 \n.tif", ".hidden.tif", f"{'n' * 240}.tif"]
    for name in odd:
        line.judge(name, 0.9)
    line.collect(tmp_path / "out", "--verdict", "anomalous")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.tiff")]
    assert len(names) == 2 * len(odd)
    assert all(set(name) <= {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/"} for name in names)
    assert all(len(Path(name).name) < 200 and not Path(name).name.startswith(".") for name in names)


def test_files_that_are_not_what_was_judged_are_left_out_and_counted(line: Line, tmp_path: Path) -> None:
    """A file that is gone, and another one in its place; where none is left nothing is made."""
    (line.camera / "found.tif").unlink()
    (line.camera / "alarm.tif").write_bytes(b"II*\0")
    told = line.collect(tmp_path / "out", "--reviewed")
    assert (told["strips"], told["left_out"]) == (2, {"gone": 1, "replaced": 1})
    for path in line.camera.iterdir():
        path.unlink()
    assert "none of 4 strips" in line.collect(tmp_path / "none", "--reviewed", exit_code=1)["error"]
    assert not os.path.lexists(tmp_path / "none")


def test_a_confirmed_strip_without_its_heatmap_is_labelled_and_has_no_mask(line: Line, tmp_path: Path) -> None:
    """It is named, with the reason: a mask that nobody saw is worse than none."""
    for path in line.heatmaps.iterdir():
        path.write_bytes(b"not the heatmap that was published")
    told = line.collect(tmp_path / "out", "--reviewed")
    assert [why for why in told["without_mask"] if "found.tif: its heatmap is not there" in why]
    assert table(tmp_path / "out")["found.tif"]["mask"] == ""
    assert table(tmp_path / "out")["alarm.tif"]["mask"] == "channel 4", "without a defect there is nothing to show"


def test_whole_numbers_stay_whole_numbers(tmp_path: Path) -> None:
    """The type of the pixels is the camera's, with a mask too."""
    line = Line(tmp_path)
    line.judge("small.tif", 0.9, "defect", dtype=np.uint8)
    line.collect(tmp_path / "out", "--reviewed")
    read = tifffile.imread(tmp_path / "out" / table(tmp_path / "out")["small.tif"]["file"])
    assert (str(read.dtype), int(read[3].max())) == ("uint8", 255)


def test_nothing_asked_for_is_a_wrong_use(line: Line, tmp_path: Path) -> None:
    """Exit 2 with what may be said."""
    assert "--reviewed" in line.collect(tmp_path / "out", exit_code=2)["error"]
    line.config["scoring"] = {"method": "area", "threshold": 100}
    assert "--near" in line.collect(tmp_path / "out", "--uncertain", exit_code=2)["error"]
