"""Several cameras: order, turns and lanes; thresholds, score methods, part numbers and addresses; layouts of files."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from tests.e2e.checks import check_audit, check_messages
from tests.helpers.box import Box, drop_file, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECOND = 10**9
START = 1_700_000_000 * SECOND


def put(source: Path, target: Path, mtime_s: int) -> None:
    """Put a strip there at once, with a time of its own (seconds after START)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.writing")
    temporary.write_bytes(source.read_bytes())
    os.utime(temporary, ns=(START, START + mtime_s * SECOND))
    temporary.rename(target)


def test_by_time_in_turns_and_live_before_backlog(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """Each camera's strips go by (mtime, path), cameras take turns, and the backlog waits while live strips do."""
    with (
        Box(tmp_path / "box", broker.port, cameras=("left", "right"), agent={"name": "turns"}) as box,
        Subscriber(broker.port, "strip-agent/turns/#") as subscriber,
    ):
        for name, mtime_s in (("b.tif", 5), ("a.tif", 5), ("z.tif", 1)):
            put(good_strip, box.camera("left") / f"old {name}", mtime_s)
        box.start()  # no model yet: the strips are begun and wait
        wait_for(lambda: box.ask("status")["strips"]["seen"] == 3, "the backlog is begun")
        for name, mtime_s in (("1.tif", 30), ("2.tif", 20), ("3.tif", 10), ("4.tif", 40)):
            put(good_strip, box.camera("left") / name, mtime_s)
        for name, mtime_s in (("x.tif", 90), ("y.tif", 80)):
            put(good_strip, box.camera("right") / name, mtime_s)
        wait_for(lambda: box.ask("status")["strips"]["seen"] == 9, "all are begun")
        difference_model(box.inbox / "model.onnx")
        found = wait_for_results(subscriber, 9)
        order = [f"{result['camera']}/{result['file']}" for result in found]
        live, backlog = order[:6], order[6:]
        assert backlog == ["left/old z.tif", "left/old a.tif", "left/old b.tif"]
        assert [name for name in live if "left" in name] == ["left/3.tif", "left/2.tif", "left/1.tif", "left/4.tif"]
        assert [name for name in live if "right" in name] == ["right/y.tif", "right/x.tif"]
        assert [name.partition("/")[0] for name in live[:4]] in (["left", "right"] * 2, ["right", "left"] * 2)
        wait_for(
            lambda: last_strips(subscriber) == {"old b.tif", "x.tif"}, "what each camera committed last is retained"
        )
        check_audit(box, 9)


def test_a_linked_subfolder_is_told_wherever_one_looks(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """Nothing behind a link is judged, so alarm, status, check-config and doctor name it; names passed over count."""
    with (
        Box(tmp_path / "box", broker.port, agent={"name": "links"}) as box,
        Subscriber(broker.port, "strip-agent/links/#") as subscriber,
    ):
        put(good_strip, tmp_path / "elsewhere" / "behind.tif", 1)
        put(good_strip, box.camera() / "@eaDir" / "thumb.tif", 1)
        put(good_strip, box.camera() / "._resource.tif", 1)
        link = box.camera() / "day\n1"
        link.symlink_to(tmp_path / "elsewhere")
        checked = json.loads(box.cli("check-config", "--json").stdout)
        assert checked["ok"]
        assert [problem["where"] for problem in checked["problems"] if "day\\n1 is a link" in problem["message"]] == [
            "cameras[0].folder"
        ]
        doctor = json.loads(box.cli("doctor", "--json").stdout)
        assert any(item["level"] == "note" and "day\\n1 is a link" in item["detail"] for item in doctor["findings"])
        difference_model(box.inbox / "model.onnx")
        box.start()

        def told(key: str) -> Any:
            states = subscriber.messages("state/health")
            return json.loads(states[-1].payload).get(key) if states else None

        wait_for(lambda: "camera_top_linked_folder" in (told("alarms") or ""), "the alarm is raised")
        wait_for(lambda: told("files_ignored") == 2, "what was passed over is counted", 90)
        watching = box.ask("status")["watching"]["top"]
        assert (watching["linked_folders"], watching["ignored"]) == (["day\\n1"], 2)
        shown = box.cli("status").stdout
        assert "NOT FOLLOWED, as they are links to folders: day\\n1" in shown
        assert "2 names are passed over" in shown
        put(good_strip, box.camera() / "strip.tif", 1)
        assert [result["file"] for result in wait_for_results(subscriber, 1)] == ["strip.tif"]
        link.unlink()
        wait_for(lambda: "linked_folder" not in told("alarms"), "the alarm is gone", 90)
        assert "is a link" not in box.cli("check-config").stdout
        check_audit(box, 1)


def last_strips(subscriber: Subscriber) -> set[str]:
    """Give the files that `state/last_strip` of each camera names now."""
    newest = {message.topic: message.payload for message in subscriber.messages("state/last_strip/")}
    return {json.loads(payload)["file"] for payload in newest.values()}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[tuple[Box, Subscriber]]:
    """Run a box with cameras of different settings."""
    folder = tmp_path_factory.mktemp("many")
    template = "file:///line1/{path}?w={path_windows}"
    heatmaps = {"tiff": "all", "min_free_gib": 0, "url_template": template}
    box = Box(folder, broker.port, cameras=("plain", "strict", "parts"), agent={"name": "many"}, heatmaps=heatmaps)
    _, strict, parts = box.config["cameras"]
    strict["threshold"] = 0.01
    parts["part_id_pattern"] = r"^([A-Z]+\d+)_"
    box.write_config()
    difference_model(box.inbox / "model.onnx", threshold=0.7)
    with box, Subscriber(broker.port, "strip-agent/many/#") as subscriber:
        box.start()
        yield box, subscriber


def result_of(subscriber: Subscriber, camera: str, name: str) -> dict[str, Any]:
    """Wait for the result of a file."""

    def found() -> list[dict[str, Any]]:
        results = unique_results(subscriber).values()
        return [result for result in results if (result["camera"], result["file"]) == (camera, name)]

    wait_for(found, f"{camera}/{name} has a result")
    return found()[0]


def test_a_cameras_threshold_goes_before_the_models(many: tuple[Box, Subscriber], good_strip: Path) -> None:
    """The same strip is ok under the model's threshold and anomalous under the camera's."""
    box, subscriber = many
    for camera in ("plain", "strict"):
        drop_file(good_strip, box.camera(camera) / "same.tif")
    plain, strict = (result_of(subscriber, camera, "same.tif") for camera in ("plain", "strict"))
    assert (plain["verdict"], plain["threshold"]) == ("ok", 0.7)
    assert (strict["verdict"], strict["threshold"]) == ("anomalous", 0.01)
    assert plain["score"] == strict["score"]


def test_part_numbers_come_out_of_the_file_name(many: tuple[Box, Subscriber], good_strip: Path) -> None:
    """`part_id` is the pattern's group, "" where it does not match and for cameras without a pattern."""
    box, subscriber = many
    for camera, name in (("parts", "PN0815_7.tif"), ("parts", "unnumbered.tif"), ("plain", "PN0815_7.tif")):
        drop_file(good_strip, box.camera(camera) / name)
    found = [result_of(subscriber, "parts", "PN0815_7.tif"), result_of(subscriber, "parts", "unnumbered.tif")]
    assert [result["part_id"] for result in found] == ["PN0815", ""]
    assert result_of(subscriber, "plain", "PN0815_7.tif")["part_id"] == ""


def test_the_address_of_the_picture(many: tuple[Box, Subscriber], bad_part: Path) -> None:
    """`preview_url` is the template with the path in both spellings; the paths lead to the files."""
    box, subscriber = many
    drop_file(bad_part, box.camera("plain") / "seen.tif")
    result = result_of(subscriber, "plain", "seen.tif")
    path = result["preview_path"]
    assert path.startswith("plain/")
    windows = path.replace("/", "\\")
    assert result["preview_url"] == f"file:///line1/{path}?w={windows}"
    assert result["preview_sha256"] == hashlib.sha256((box.heatmaps / path).read_bytes()).hexdigest()
    heatmap = tifffile.imread(box.heatmaps / result["heatmap_path"])
    assert heatmap.dtype == np.float32
    assert heatmap.max() == pytest.approx(result["score"])
    row, col = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert (result["peak_row"], result["peak_col"]) == (row, col)
    regions = json.loads((box.heatmaps / path).with_suffix(".json").read_text())
    assert regions["defect_count"] == result["defect_count"] == len(regions["regions"]) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 3},
        {"layout": "interleaved"},
        {"layout": "interleaved", "channels": 3},
        {"layout": "pages", "channels": 3},
        {"dtype": "uint8"},
        {"dtype": "uint16", "layout": "interleaved"},
        {"dtype": "uint8", "channels": 3, "compression": "lzw"},
        {"compression": "zlib", "predictor": True},
    ],
    ids=str,
)
def test_every_layout_of_the_same_strip_gets_the_same_score(
    many: tuple[Box, Subscriber], bad_part: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """3 or 4 channels, first or last, float32, uint8 or uint16, packed or not: the pixels decide, not the file."""
    box, subscriber = many
    drop_file(bad_part, box.camera("plain") / "as it is.tif")
    expected = result_of(subscriber, "plain", "as it is.tif")
    name = f"{'-'.join(str(value) for value in options.values())}.tif"
    write_strip(tmp_path / name, defect=True, **options)
    drop_file(tmp_path / name, box.camera("plain") / name)
    result = result_of(subscriber, "plain", name)
    assert result["verdict"] == expected["verdict"] == "anomalous"
    assert result["rescaled"] is False
    assert result["score"] == pytest.approx(expected["score"], abs=0.02)  # rounding to whole grey levels


def test_12_bit_grey_levels_are_stretched_and_it_is_said(many: tuple[Box, Subscriber], tmp_path: Path) -> None:
    """Grey levels above 255 are rescaled, which the message says."""
    box, subscriber = many
    pixels = write_strip(tmp_path / "strip.tif", defect=True, dtype="uint16")
    tifffile.imwrite(tmp_path / "12.tif", pixels * 16, photometric="minisblack", planarconfig="separate")
    drop_file(tmp_path / "12.tif", box.camera("plain") / "12.tif")
    result = result_of(subscriber, "plain", "12.tif")
    assert result["rescaled"] is True
    assert result["verdict"] == "anomalous"


def test_what_the_cameras_sent_adds_up(many: tuple[Box, Subscriber]) -> None:
    """Every message keeps its schema, and the books balance."""
    box, subscriber = many
    check_messages(subscriber)
    check_audit(box, box.ask("status")["strips"]["seen"])
    assert box.stop() == 0


@pytest.mark.parametrize(
    ("scoring", "verdicts", "low", "high"),
    [
        ({"method": "max"}, ("ok", "anomalous"), 0.5, 1.0),
        ({"method": "top_k_mean", "top_k": 50, "threshold": 0.3}, ("ok", "anomalous"), 0.3, 1.0),
        ({"method": "area", "threshold": 100.0, "min_area_px": 5}, ("ok", "anomalous"), 100.0, 400.0),
        ({"method": "max", "threshold": 0.999}, ("ok", "ok"), 0.5, 0.998),
        ({"method": "detections"}, ("ok", "anomalous"), 0.5, 1.0),
    ],
    ids=["max", "top_k_mean", "area", "threshold", "detections"],
)
def test_score_methods(
    tmp_path: Path,
    broker: Broker,
    good_strip: Path,
    bad_part: Path,
    scoring: dict[str, Any],
    verdicts: tuple[str, str],
    low: float,
    high: float,
) -> None:
    """Maximum, mean of the largest, or area: the score is what it says, and the configured threshold decides."""
    name = f"scores-{scoring['method']}-{scoring.get('threshold', 0)}".replace(".", "_")
    with (
        Box(tmp_path / "box", broker.port, agent={"name": name}, scoring=scoring) as box,
        Subscriber(broker.port, f"strip-agent/{name}/#") as subscriber,
    ):
        difference_model(box.inbox / "model.onnx")
        box.start()
        drop_file(good_strip, box.camera() / "good.tif")
        drop_file(bad_part, box.camera() / "defect.tif")
        good, defect = (result_of(subscriber, "top", name) for name in ("good.tif", "defect.tif"))
        assert (good["verdict"], defect["verdict"]) == verdicts
        assert good["score"] < low <= defect["score"] <= high
        assert defect["threshold"] == scoring.get("threshold", 0.5)
        if scoring["method"] == "area":
            assert defect["score"] == defect["anomaly_area_px"]
        check_messages(subscriber)
