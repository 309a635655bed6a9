"""What a judgement leaves on the disk."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import resource
import threading
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import pytest
import tifffile

from agent.config import HeatmapsSection, ScoringSection
from agent.files import make_folder
from agent.records import HeatmapFiles
from agent.worker.heatmaps import HeatmapWriter, encode_heatmaps
from agent.worker.picture import PALETTE, draw, encode_png
from agent.worker.scoring import Heatmap, score_heatmap
from tests.helpers.broker import wait_for
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE_SECONDS = 60.0
Rule = Literal["all", "anomalous", "none"]

STEM = "top/2026-01-31/part_7-0123456789abcdef-r1"
ALL = HeatmapsSection(png="all", tiff="all", min_free_gib=0)


def _heatmap(height: int = 976, width: int = 176) -> Heatmap:
    rng = np.random.default_rng(0)
    heatmap = rng.random((height, width), dtype=np.float32) * np.float32(0.09)
    heatmap[height // 2 : height // 2 + 12, width // 2 : width // 2 + 9] = 0.8
    heatmap[height // 2, width // 2] = 0.95
    return heatmap


def _write(
    folder: Path, *, heatmap: Heatmap | None = None, settings: HeatmapsSection = ALL, anomalous: bool = True
) -> HeatmapFiles:
    heatmap = _heatmap() if heatmap is None else heatmap
    scored = score_heatmap(heatmap, ScoringSection())
    pixels = make_pixels(defect=True, height=heatmap.shape[0], width=heatmap.shape[1])
    contents = encode_heatmaps(
        heatmap, pixels, scored, threshold=0.5, anomalous=anomalous, settings=settings, name="part_7"
    )
    return HeatmapWriter(folder, settings.min_free_gib, PATIENCE_SECONDS).write(STEM, contents)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_float_heatmap_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """The TIFF is float32, lossless, one page of height x width, and has the digest that is published."""
    files = _write(tmp_path)
    assert files.tiff_path == f"{STEM}.tiff"
    data = (tmp_path / files.tiff_path).read_bytes()
    assert files.tiff_sha256 == hashlib.sha256(data).hexdigest()
    back = tifffile.imread(tmp_path / files.tiff_path)
    assert back.dtype == np.float32
    assert back.tobytes() == _heatmap().tobytes()
    by_another_reader = cv2.imread(str(tmp_path / files.tiff_path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(np.asarray(by_another_reader), _heatmap())


def test_the_regions_are_told_in_a_file_beside_it(tmp_path: Path) -> None:
    """Score, threshold, shape, and each region's box, area and peak."""
    _write(tmp_path)
    facts = json.loads((tmp_path / f"{STEM}.json").read_text())
    (region,) = facts.pop("regions")
    assert region == {
        "top": 488, "left": 88, "bottom": 500, "right": 97, "area_px": 108,
        "peak": pytest.approx(0.95), "peak_row": 488, "peak_col": 88,
    }  # fmt: skip
    assert facts == {
        "schema": "regions/1", "height": 976, "width": 176, "score": pytest.approx(0.95), "threshold": 0.5,
        "anomalous": True, "anomaly_area_px": 108, "defect_count": 1, "peak_row": 488, "peak_col": 88,
        "detections": [], "ignored_px": 0,
    }  # fmt: skip


@pytest.mark.parametrize("anomalous", [True, False])
@pytest.mark.parametrize(("png", "tiff"), list(itertools.product(["all", "anomalous", "none"], repeat=2)))
def test_what_is_saved_follows_the_rules(tmp_path: Path, png: Rule, tiff: Rule, anomalous: bool) -> None:
    """Each kind by its own rule; the regions whenever one of the others is; nothing else is left in the folder."""
    files = _write(tmp_path, settings=HeatmapsSection(png=png, tiff=tiff, min_free_gib=0), anomalous=anomalous)
    wanted = {"all": True, "anomalous": anomalous, "none": False}
    expected = {f"{STEM}.png"} if wanted[png] else set()
    expected |= {f"{STEM}.tiff"} if wanted[tiff] else set()
    expected |= {f"{STEM}.json"} if expected else set()
    found = _files(tmp_path)
    assert set(found) == expected
    assert {files.png_path, files.tiff_path} - {""} == {name for name in expected if not name.endswith(".json")}
    assert files.state == ("saved" if expected else "by_rule")
    assert files.bytes_written == sum(map(len, found.values()))
    assert bool(files.tiff_sha256) == wanted[tiff]


def test_the_same_judgement_gives_the_same_bytes(tmp_path: Path) -> None:
    """Done again after a crash, it writes the same files over the old ones."""
    first, before = _write(tmp_path), _files(tmp_path)
    assert _write(tmp_path) == first
    assert _files(tmp_path) == before
    with tifffile.TiffFile(tmp_path / first.tiff_path) as file:
        assert not {305, 306} & {tag.code for tag in file.pages.first.tags}, "software or time"


def test_below_the_floor_nothing_is_written_and_nothing_fails(tmp_path: Path) -> None:
    """A box that runs out of space goes on scoring."""
    files = _write(tmp_path, settings=HeatmapsSection(min_free_gib=1e7))
    assert files == HeatmapFiles(state="no_space")
    assert not _files(tmp_path)


@pytest.mark.parametrize(
    ("number", "state"),
    [(errno.ENOSPC, "no_space"), (errno.EDQUOT, "no_space"), (errno.EIO, "failed"), (errno.EROFS, "failed")],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_an_error_of_the_disk_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str, call: str
) -> None:
    """The second of three files fails: none appears, no temporary one stays, and the state says why."""
    real, calls = getattr(os, call), itertools.count(1)

    def fail(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    monkeypatch.setattr(os, call, fail)
    assert _write(tmp_path) == HeatmapFiles(state=state)
    assert not _files(tmp_path)


def test_a_real_limit_on_file_size_is_survived(tmp_path: Path) -> None:
    """The kernel refuses the bytes in the middle of a file (EFBIG): no error, no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert _write(tmp_path).state == "failed"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not _files(tmp_path)


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    """A file stands where the folder should be: the score is published all the same."""
    (tmp_path / "top").write_bytes(b"")
    assert _write(tmp_path).state == "failed"


class Share:
    """A folder whose first use hangs until it is let go, and the writer's clock; no real share hangs on a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.lets_go = threading.Event()
        self.uses = 0

        def hang(folder: Path) -> None:
            self.uses += 1
            assert self.lets_go.wait(PATIENCE_SECONDS)
            make_folder(folder)

        monkeypatch.setattr("agent.worker.heatmaps.make_folder", hang)


def test_a_folder_that_hangs_is_waited_for_once_and_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first strip waits as long as allowed, the others not at all; what gets there later is removed."""
    share = Share(monkeypatch)
    writer = HeatmapWriter(tmp_path, 0.0, 0.05, clock=lambda: share.now)
    for number in range(5):
        assert writer.write(f"{number}", {".json": b"{}"}) == HeatmapFiles(state="failed")
    share.now += 1000.0
    assert writer.write("5", {".json": b"{}"}) == HeatmapFiles(state="failed")
    share.lets_go.set()
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "heatmaps"], "it comes back")
    assert share.uses == 1, "a second thread hung"
    assert not _files(tmp_path)
    writer._patience_seconds = PATIENCE_SECONDS  # of a busy machine
    assert writer.write("6", {".json": b"{}"}).state == "saved"
    assert set(_files(tmp_path)) == {"6.json"}


def test_something_else_can_be_done_while_a_folder_takes_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `begin` returns has the answer once all is on the disk, and not before."""
    share = Share(monkeypatch)
    written = HeatmapWriter(tmp_path, 0.0, PATIENCE_SECONDS).begin("0", {".json": b"{}"})
    assert not _files(tmp_path), "it was waited for, or written without a look at the folder"
    share.lets_go.set()
    assert written().state == "saved"
    assert set(_files(tmp_path)) == {"0.json"}


def test_a_slow_folder_costs_a_tenth_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a wait in vain nothing is written for nine times as long, though the folder has come back."""
    share = Share(monkeypatch)
    writer = HeatmapWriter(tmp_path, 0.0, 0.5, clock=lambda: share.now)
    assert writer.write("0", {".json": b"{}"}).state == "failed"
    share.lets_go.set()
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "heatmaps"], "it comes back")
    share.now = 4.4
    assert writer.write("1", {".json": b"{}"}).state == "failed"
    share.now = 4.6
    writer._patience_seconds = PATIENCE_SECONDS  # of a busy machine
    assert writer.write("2", {".json": b"{}"}).state == "saved"
    assert set(_files(tmp_path)) == {"2.json"}


def _picture(heatmap: Heatmap, *, threshold: float = 0.5, anomalous: bool = True, area: bool = False) -> Any:
    scored = score_heatmap(heatmap, ScoringSection(method="area" if area else "max"))
    pixels = make_pixels(height=heatmap.shape[0], width=heatmap.shape[1])
    png = draw(heatmap, pixels, scored, threshold=threshold, anomalous=anomalous, name="part_7")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return np.asarray(image)


@pytest.mark.parametrize(("height", "width"), [(976, 176), (384, 384), (100, 900), (24, 16), (1, 1), (5, 400)])
@pytest.mark.parametrize("area", [True, False])
def test_every_size_of_image_gives_a_picture(height: int, width: int, area: bool) -> None:
    """Tall, square, wide and tiny images fit on their canvas."""
    image = _picture(_heatmap(height, width), area=area, threshold=12.0 if area else 0.5)
    assert image.shape[1] >= 720
    assert image.std() > 10


def test_the_picture_of_a_strip_lies_on_its_side_and_stays_small(tmp_path: Path) -> None:
    """Three panels, one below the other, wider than high; small enough for an HMI to load."""
    files = _write(tmp_path)
    data = (tmp_path / files.png_path).read_bytes()
    assert len(data) < 400 << 10
    height, width = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)).shape[:2]
    assert width > 976
    assert 3 * 176 < height < width


def _coloured(image: Any) -> Any:
    """Return where the picture is not grey."""
    return np.ptp(image.astype(int), axis=2) > 60


def test_the_heat_is_where_the_defect_is() -> None:
    """Of the panels only the middle one is coloured, at the defect's place, turned with the strip; a box is around."""
    image = _picture(_heatmap())
    panel = image[66 + 20 + 196 : 66 + 20 + 196 + 176, 14 : 14 + 976]
    rows, columns = np.nonzero(_coloured(panel))
    box = (rows.min(), rows.max(), columns.min(), columns.max())
    assert box == (176 - 97 - 4, 176 - 88 - 1 + 4, 488 - 4, 499 + 4)
    other = image[66 + 20 : 66 + 20 + 176, 14 : 14 + 976]
    assert not _coloured(other).any()


def test_the_verdict_is_a_colour() -> None:
    """Red and green badges, so that it shows at a glance."""
    red, green = _picture(_heatmap())[12, 20], _picture(_heatmap(), anomalous=False)[12, 20]
    assert red[0] > 2 * red[1]
    assert green[1] > 2 * green[0]


def test_the_threshold_moves_on_the_scale() -> None:
    """The mark stands where the threshold is."""
    low, high = _picture(_heatmap(), threshold=0.2), _picture(_heatmap(), threshold=0.7)
    rows = np.s_[low.shape[0] - 38 : low.shape[0] - 24]
    changed = np.nonzero((low[rows] != high[rows]).any(axis=(0, 2)))[0]
    assert abs(int(changed.min()) - (14 + 170 + 80)) <= 2
    assert abs(int(changed.max()) - (14 + 170 + 280)) <= 2


def test_strange_values_still_give_a_picture() -> None:
    """Pixels and heats at the ends of float32 and of the scale draw without a warning."""
    heatmap = _heatmap()
    heatmap[:2] = 1.0
    pixels = make_pixels(height=976, width=176)
    pixels[0, 0, 0], pixels[1, 0, 0] = -3e38, 3e38
    scored = score_heatmap(heatmap, ScoringSection())
    assert draw(heatmap, pixels, scored, threshold=0.5, anomalous=True, name="x" * 300)


def test_a_palette_picture_decodes_to_its_colours() -> None:
    """The encoder is checked by another decoder, over all 256 colours and an odd width."""
    indices = np.arange(256 * 3, dtype=np.uint32).astype(np.uint8).reshape(-1, 3)
    image = cv2.imdecode(np.frombuffer(encode_png(indices, PALETTE), np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(np.asarray(image), PALETTE[indices])
