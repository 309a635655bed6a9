"""evaluate, threshold and compare on strips whose truth comes in each of the forms that people have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import pytest
import tifffile
import torch
from click.testing import CliRunner

from tests.helpers.models import difference_model
from tests.helpers.strips import make_pixels
from tools.evaluating import figures
from tools.evaluating.truth import Box, read_truth
from tools.evaluating.writing import with_threshold
from tools.export import main
from tools.exporter.errors import ExportError
from tools.exporter.keys import read_facts
from tools.exporter.session import open_session, run_strip

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH = 60, 40
DEFECT = (slice(24, 40), slice(10, 20))


def strip(path: Path, depth: float, *, seed: int, fourth: bool = False) -> None:
    """Write a strip whose target is `depth` grey levels darker inside of DEFECT."""
    pixels = make_pixels(height=HEIGHT, width=WIDTH, channels=4, seed=seed)
    pixels[0][DEFECT] = np.clip(pixels[0][DEFECT] - depth, 0, 255)
    pixels[3] = 0
    if fourth and depth:
        pixels[3][DEFECT] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model that sees differences of target and reference."""
    path = tmp_path_factory.mktemp("model") / "difference.onnx"
    difference_model(path, height=HEIGHT, width=WIDTH, gain=4.0, version=3)
    return path


@pytest.fixture(scope="module")
def sorted_strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good strips and six with defects of rising depth, in folders, with masks; and a file that is no strip."""
    folder = tmp_path_factory.mktemp("strips")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[DEFECT] = 255
    for number in range(6):
        strip(folder / "good" / f"{number}.tif", 0, seed=number)
        strip(folder / "bright_spots" / f"{number}.tif", 4 + 9 * number, seed=10 + number)
        (folder / "masks").mkdir(exist_ok=True)
        (folder / "masks" / "bright_spots").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "masks" / "bright_spots" / f"{number}.png"), mask)
    (folder / "good" / "torn.tif").write_bytes(b"II*\0")
    return folder


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals have tests of their own."""
    monkeypatch.setattr(figures, "RESAMPLES", 20)


def run(*arguments: object) -> str:
    """Run the command line and give what it prints."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*arguments: object) -> Any:
    """Run it for a program."""
    return json.loads(run(*arguments, "--json"))


def test_the_figures_are_scikit_learns_on_the_raw_heatmaps(model: Path, sorted_strips: Path) -> None:
    """Scores, AUROC, average precision of strips and of pixels: computed again here, equal within 1e-9."""
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415 - takes a second to load

    found = run_json("evaluate", model, sorted_strips)
    session = open_session(model.read_bytes())
    heats, truths = [], []
    for one in found["by_strip"]:
        pixels = tifffile.imread(one["file"])[:3].astype(np.float32) / np.float32(255)
        heats.append(run_strip(session, pixels))
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[DEFECT] = one["defective"]
        truths.append(mask)
    scores = [float(heat.max()) for heat in heats]
    kinds = [bool(mask.any()) for mask in truths]
    assert [one["score"] for one in found["by_strip"]] == pytest.approx(scores, abs=1e-9)
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(kinds, scores), abs=1e-9)
    assert found["average_precision"]["value"] == pytest.approx(average_precision_score(kinds, scores), abs=1e-9)
    flat = np.array(truths).ravel(), np.array(heats).ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(*flat), abs=1e-9)
    assert found["pixel_average_precision"] == pytest.approx(average_precision_score(*flat), abs=1e-9)
    assert len(found["passed_over"]) == 1
    assert "torn.tif is no strip that a box would judge" in found["passed_over"][0]
    assert found["confusion"]["threshold"] == 0.5


def test_the_page_shows_the_worst_strips_and_warns_of_few(model: Path, sorted_strips: Path, tmp_path: Path) -> None:
    """Nothing in it is loaded from elsewhere; what is printed says the same."""
    report = tmp_path / "page.html"
    said = run("evaluate", model, sorted_strips, "--report", report)
    page = report.read_text()
    assert page.count("<figure>") == 12
    assert "bright_spots/0.tif" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "only 6 good and 6 defective strips" in said
    assert "truth: the folders, and masks of 6 strips" in said


def test_the_fourth_channel_is_a_mask_where_it_is_asked_for(model: Path, tmp_path: Path) -> None:
    """A strip is defective where its fourth channel is not empty."""
    strip(tmp_path / "a.tif", 60, seed=1, fourth=True)
    strip(tmp_path / "b.tif", 0, seed=2, fourth=True)
    found = run_json("evaluate", model, tmp_path, "--channel-4")
    assert [one["defective"] for one in found["by_strip"]] == [True, False]
    assert found["defects"]["IoU 0.3"]["value"] == 1.0


NETWORK = """
import torch

class Shallow(torch.nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain
        self.first = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, patches):
        return self.gain * self.first(patches)
"""


def test_a_checkpoint_of_a_network_of_ones_own_is_evaluated_before_it_is_exported(tmp_path: Path) -> None:
    """In torch, as export would be told of it; its scores are those of the network's own heatmap."""
    (tmp_path / "own.py").write_text(NETWORK)
    space: dict[str, Any] = {}
    exec(NETWORK, space)  # noqa: S102 - the text above
    torch.manual_seed(0)
    network = space["Shallow"](2.0)
    torch.save({"model_state_dict": network.state_dict()}, tmp_path / "own.pth")
    strip(tmp_path / "strips" / "good" / "a.tif", 0, seed=1)
    strip(tmp_path / "strips" / "bad" / "b.tif", 60, seed=2)
    size = ("--patch", HEIGHT, WIDTH, "--image-size", HEIGHT, WIDTH)
    own = ("--network", f"{tmp_path / 'own.py'}:Shallow", "--network-args", '{"gain": 2.0}', *size)
    found = run_json("evaluate", tmp_path / "own.pth", tmp_path / "strips", *own)
    for one in found["by_strip"]:
        pixels = torch.from_numpy(tifffile.imread(one["file"])[:3].astype(np.float32) / np.float32(255))
        with torch.no_grad():
            heat = torch.softmax(network(pixels[None]), 1)[0, 1]
        assert one["score"] == pytest.approx(float(heat.max()), abs=1e-6)
    changes = run_json("compare", tmp_path / "own.pth", tmp_path / "own.pth", tmp_path / "strips", *own)
    assert changes["change"]["verdicts that change"] == "0: 0 become right, 0 become wrong"


def test_what_is_said_of_a_checkpoint_is_refused_for_a_model_file(model: Path, sorted_strips: Path) -> None:
    """A model file states its size and its channels itself: nothing is silently ignored."""
    asked = ["evaluate", str(model), str(sorted_strips), "--network", "own.py:Shallow"]
    result = CliRunner().invoke(main, asked)
    assert (result.exit_code, "about a checkpoint" in result.output) == (2, True)


def test_points_in_names_rank_detections(model: Path, tmp_path: Path) -> None:
    """`#x,y` is column and row; a detection within three pixels has found it."""
    strip(tmp_path / "line#15,32.tiff", 60, seed=1)
    strip(tmp_path / "other#2,2.tiff", 60, seed=2)
    strip(tmp_path / "clean.tiff", 0, seed=3)
    found = run_json("evaluate", model, tmp_path, "--method", "detections")
    assert found["recall_at"]["30"]["count"] == 2
    assert sorted(one["defective"] for one in found["by_strip"]) == [False, True, True]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truth.csv", "file,label\na.tif,defect\nb.tif,good\nc.tif,unsure\n"),
        ("labels.csv", "\ufefffile;label\r\na.tif;anomaly\r\nb.tif;OK\r\nc.tif;\r\n"),
        ("truth.json", json.dumps({"a.tif": [[10, 24, 20, 40]], "b.tif": []})),
        (
            "annotations.json",
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.tif"}, {"id": 2, "file_name": "b.tif"}],
                    "annotations": [{"image_id": 1, "bbox": [10, 24, 10, 16]}],
                }
            ),
        ),
    ],
)
def test_tables_are_found_and_read(tmp_path: Path, name: str, content: str) -> None:
    """A CSV of labels, boxes as JSON, COCO; what is unsure or not named is left out and counted."""
    for file in "abc":
        strip(tmp_path / f"{file}.tif", 0, seed=1)
    (tmp_path / name).write_text(content)
    labels = read_truth(tmp_path)
    assert {truth.path.name: truth.defective for truth in labels.strips} == {"a.tif": True, "b.tif": False}
    assert labels.kind == name
    assert len(labels.left_out) == 1
    if name.endswith(".json"):
        assert labels.strips[0].boxes == (Box(24, 10, 40, 20),)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("truth.csv", "name,class\na,b\n", "no columns file and label"),
        ("truth.csv", "file,label\na.tif,broken\x1b[2J\n", "line 2: label"),
        ("truth.csv", b"\xff\xfe\x00", "is not UTF-8 text"),
        ("truth.csv", "file,label\nother.tif,good\n", "names none of the strips"),
        ("truth.json", "[1, 2]", "is not understood"),
        ("truth.json", "[" * 100_000, "is not understood"),
        ("truth.json", json.dumps({"a.tif": [[5, 5, 1, 1]]}), "has no inside"),
        ("truth.json", json.dumps({"images": 3, "annotations": []}), "is not understood"),
        (None, "", "Nothing says which strips"),
    ],
)
def test_a_table_that_says_nothing_is_refused_in_a_sentence(
    tmp_path: Path, name: str | None, content: str | bytes, sentence: str
) -> None:
    """With what was expected; control characters of it never reach a terminal."""
    strip(tmp_path / "a.tif", 0, seed=1)
    if name:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExportError, match=sentence) as refused:
        read_truth(tmp_path)
    assert "\x1b" not in str(refused.value)


def test_a_mask_of_another_size_passes_its_strip_over(model: Path, tmp_path: Path) -> None:
    """The others are judged, and the sentence names both sizes."""
    strip(tmp_path / "defect" / "a.tif", 60, seed=1)
    strip(tmp_path / "defect" / "b.tif", 60, seed=2)
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((5, 5), np.uint8))
    found = run_json("evaluate", model, tmp_path)
    assert [one["file"].rpartition("/")[2] for one in found["by_strip"]] == ["b.tif"]
    assert "is 5 x 5, strips are 60 x 40" in found["passed_over"][0]


def test_a_threshold_is_written_into_a_new_version(model: Path, tmp_path: Path) -> None:
    """From good strips alone; golden strip and all else of the file stay, and a box would take it."""
    for number in range(24):
        strip(tmp_path / "good" / f"{number}.tif", 0, seed=number)
    out = tmp_path / "new.onnx"
    found = run_json("threshold", model, tmp_path / "good", "--false-alarms", 5, "--out", out)
    before, after = read_facts(model.read_bytes()), read_facts(out.read_bytes())
    assert after.threshold == found["threshold"]
    assert after.version > before.version
    assert after.golden == before.golden
    one, other = onnx.load(model), onnx.load(out)
    assert one.graph == other.graph
    assert "24 strips can show" in found["warnings"][0]
    with pytest.raises(ExportError, match="Version 3 is not above 3"):
        with_threshold(model, 0.4, 3)


def test_a_threshold_for_a_recall_says_what_it_costs(model: Path, sorted_strips: Path, tmp_path: Path) -> None:
    """The page has the curve, and the command for a box is printed."""
    report = tmp_path / "threshold.html"
    said = run("threshold", model, sorted_strips, "--recall", 0.8, "--report", report)
    assert "80% of 6 defective strips reach it" in said
    assert "strip-agent threshold 0." in said
    assert "What other thresholds would do" in report.read_text()


def test_two_models_are_compared_strip_by_strip(model: Path, sorted_strips: Path, tmp_path: Path) -> None:
    """The duller one misses defects that the first one finds; page and figures name them."""
    dull = tmp_path / "dull.onnx"
    difference_model(dull, height=HEIGHT, width=WIDTH, gain=2.0, version=4)
    report = tmp_path / "page.html"
    found = run_json("compare", model, dull, sorted_strips, "--report", report)
    broken = [pair["file"].rpartition("/")[2] for pair in found["pairs"] if pair["breaks"]]
    assert broken
    assert all(pair["after"] < 0.5 <= pair["before"] for pair in found["pairs"] if pair["breaks"])
    assert found["change"]["verdicts that change"] == f"{len(broken)}: 0 become right, {len(broken)} become wrong"
    assert report.read_text().count("<figure>") == 6
    assert "verdicts that change" in run("compare", model, dull, sorted_strips)
