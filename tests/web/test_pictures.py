"""Pictures of strips: by id alone, out of the files that were judged and no others, whatever lies in their place."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.config import HeatmapsSection, ScoringSection
from agent.web.cache import Cache
from agent.worker.heatmaps import HeatmapWriter, encode_heatmaps
from agent.worker.scoring import score_heatmap
from tests.helpers.strips import HEIGHT, WIDTH, encode, make_pixels
from tests.web.served import ServedBox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.testclient import TestClient

    from agent.records import HeatmapFiles
    from agent.web.painter import Painter

ROW, COL = 200, 30  # of the heat's maximum


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ServedBox]:
    """Serve a box."""
    with ServedBox(tmp_path) as served:
        yield served


def keep(box: ServedBox, stem: str, *, tiff: str = "all", png: str = "all") -> HeatmapFiles:
    """Write what a worker keeps of a strip with a defect."""
    heat = np.full((HEIGHT, WIDTH), 0.02, np.float32)
    heat[ROW : ROW + 10, COL : COL + 8] = 0.9
    heat[ROW, COL] = 0.97
    settings = HeatmapsSection.model_validate({"tiff": tiff, "png": png, "min_free_gib": 0})
    contents = encode_heatmaps(
        heat, make_pixels(defect=True), score_heatmap(heat, ScoringSection()), threshold=0.5, anomalous=True,
        settings=settings, name=stem,
    )  # fmt: skip
    return HeatmapWriter(box.config.heatmap_folder, 0, 60).write(stem, contents)


def image(body: bytes) -> np.ndarray[Any, Any]:
    """Decode a PNG, with its transparency."""
    decoded = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return np.asarray(decoded)


def get(browser: TestClient, strip_id: str, kind: str, status: int = 200) -> bytes:
    """Ask for a picture."""
    answer = browser.get(f"/strips/{strip_id}/1/{kind}.png")
    assert answer.status_code == status, answer.text
    return answer.content


def test_a_strips_channels_and_heat_are_shown_as_they_were_judged(box: ServedBox) -> None:
    """Turned, in grey; the heat is transparent where there is none; the small one is small."""
    pixels = make_pixels(defect=True)
    strip_id = box.judge("a.tif", 0.97, content=encode(pixels), heatmaps=keep(box, "top/2026-01-01/a"))
    with box.browser() as browser:
        shown = {kind: image(get(browser, strip_id, kind)) for kind in ("target", "reference1", "reference2")}
        for channel, kind in enumerate(shown):
            wanted = np.rot90((pixels[channel] - pixels[:3].min()) * 255 / np.ptp(pixels[:3]))
            assert np.abs(shown[kind].astype(float) - wanted).max() <= 1, kind
        heat = image(get(browser, strip_id, "heat"))
        assert heat.shape == (WIDTH, HEIGHT, 4)
        assert heat[WIDTH - 1 - COL, ROW, 3] > 200
        assert heat[5, 5, 3] == 0
        small = image(get(browser, strip_id, "thumb"))
        assert max(small.shape[:2]) <= 244
        assert get(browser, strip_id, "picture")[:8] == b"\x89PNG\r\n\x1a\n"
        value = browser.get(f"/strips/{strip_id}/1/value?row={ROW}&col={COL}").json()
    assert value == pytest.approx(
        {
            "target": pixels[0, ROW, COL],
            "reference1": pixels[1, ROW, COL],
            "reference2": pixels[2, ROW, COL],
            "heat": 0.97,
        }
    )


def test_when_the_cameras_file_is_gone_the_kept_picture_shows_it(box: ServedBox) -> None:
    """Target, first reference and heat are taken out of it; the second reference is nowhere."""
    pixels = make_pixels(defect=True)
    strip_id = box.judge("a.tif", 0.97, content=encode(pixels), heatmaps=keep(box, "top/2026-01-01/a", tiff="none"))
    (box.config.cameras[0].folder / "a.tif").unlink()
    with box.browser() as browser:
        for channel, kind in enumerate(("target", "reference1")):
            shown = image(get(browser, strip_id, kind))
            wanted = np.rot90((pixels[channel] - pixels[:2].min()) * 255 / np.ptp(pixels[:2]))
            assert np.abs(shown[..., 0].astype(float) - wanted).max() <= 5, "64 greys"
        assert image(get(browser, strip_id, "heat")).shape[:2] == (WIDTH, HEIGHT)
        get(browser, strip_id, "reference2", 404)
        page = browser.get(f"/strips/{strip_id}").text
        assert browser.get(f"/strips/{strip_id}/1/value?row=1&col=1").json() == dict.fromkeys(
            ("target", "reference1", "reference2", "heat")
        )
    assert "file is gone" in page
    assert 'value="/strips' in page
    assert "reference2.png" not in page


@pytest.mark.parametrize("place", ["replaced", "link", "pipe", "folder", "link_above", "device"])
def test_nothing_but_what_was_judged_is_ever_shown(box: ServedBox, tmp_path: Path, place: str) -> None:
    """Whoever can write to the camera's folder has no other file read: not by a link, not by another file."""
    folder = box.config.cameras[0].folder
    content = encode(make_pixels())
    strip_id = box.judge("day/a.tif", 0.9, content=content)
    path = folder / "day/a.tif"
    secret = tmp_path / "secret.tif"
    secret.write_bytes(content)
    os.utime(secret, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))  # only the link betrays it
    path.unlink()
    if place == "replaced":
        path.write_bytes(encode(make_pixels(seed=3)))
    elif place == "link":
        path.symlink_to(secret)
    elif place == "pipe":
        os.mkfifo(path)
    elif place == "folder":
        path.mkdir()
    elif place == "device":
        path.symlink_to("/dev/zero")
    else:
        path.parent.rmdir()
        (tmp_path / "elsewhere").mkdir()
        secret.rename(tmp_path / "elsewhere/a.tif")
        path.parent.symlink_to(tmp_path / "elsewhere")
    with box.browser() as browser:
        get(browser, strip_id, "target", 404)
        assert "no picture of this strip any more" in browser.get(f"/strips/{strip_id}").text


def test_a_heatmap_that_was_put_there_by_somebody_is_only_a_picture_at_worst(box: ServedBox, tmp_path: Path) -> None:
    """Links in the heatmap folder are not followed, bombs are not unpacked, and what is no picture is none."""
    files = keep(box, "top/2026-01-01/a")
    strip_id = box.judge("a.tif", 0.97, heatmaps=files)
    png, tiff = (box.config.heatmap_folder / path for path in (files.png_path, files.tiff_path))
    good = png.read_bytes()
    (tmp_path / "secret.png").write_bytes(good)
    with box.browser() as browser:
        png.unlink()
        png.symlink_to(tmp_path / "secret.png")
        get(browser, strip_id, "picture", 404)
        png.unlink()
        png.write_bytes(good[:16] + (100_000).to_bytes(4, "big") * 2 + good[24:])
        tiff.write_bytes(b"II*\0" + b"\xff" * 100)
        get(browser, strip_id, "heat", 404)
        get(browser, strip_id, "thumb", 404)
        tiff.write_bytes(encode(make_pixels()))
        get(browser, strip_id, "heat", 404)
        tiff.with_suffix(".json").write_text(json.dumps({"height": 1 << 40, "width": 3, "regions": [{"top": "x"}, 5]}))
        assert browser.get(f"/strips/{strip_id}").status_code == 200
        tiff.with_suffix(".json").write_text('{"height": 488, "width": 88, "regions": {"top": []}}')
        assert browser.get("/line").status_code == 200


def test_browsers_keep_pictures_and_may_ask_for_a_part(box: ServedBox) -> None:
    """An unchanged one is not sent again; a range is exactly those bytes."""
    strip_id = box.judge("a.tif", 0.97, heatmaps=keep(box, "top/2026-01-01/a"))
    address = f"/strips/{strip_id}/1/picture.png"
    with box.browser() as browser:
        whole = browser.get(address)
        assert "private" in whole.headers["cache-control"]
        same = browser.get(address, headers={"if-none-match": whole.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        size = len(whole.content)
        for asked, first, last in (
            ("0-9", 0, 9),
            ("10-", 10, size - 1),
            ("-7", size - 7, size - 1),
            ("5-9999999", 5, size - 1),
        ):
            part = browser.get(address, headers={"range": f"bytes={asked}"})
            assert part.status_code == 206
            assert part.content == whole.content[first : last + 1]
            assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert browser.get(address, headers={"range": f"bytes={size}-"}).status_code == 416
        for asked in ("bytes=-", "bytes=0-1,3-4", "lines=1-2", "bytes=-0x1"):
            assert browser.get(address, headers={"range": asked}).status_code == 200
        assert browser.get(address, headers={"range": "bytes=0-1", "if-range": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "query", ["", "row=1", "row=-1&col=1", "row=1e3&col=1", "row=99999&col=1", "row=1&col=%20", "row=٣&col=1"]
)
def test_no_pixel_is_asked_for_that_cannot_be(box: ServedBox, query: str) -> None:
    """Only whole numbers that a strip can have."""
    strip_id = box.judge("a.tif", 0.97)
    with box.browser() as browser:
        assert browser.get(f"/strips/{strip_id}/1/value?{query}").status_code == 404


def test_a_revision_that_was_never_judged_has_no_picture(box: ServedBox) -> None:
    """Neither its number nor another one leads to a picture of something else."""
    strip_id = box.judge("a.tif", 0.97, heatmaps=keep(box, "top/2026-01-01/a"))
    with box.browser() as browser:
        for revision in ("0", "2", "99999999999", "-1", "1.0"):
            assert browser.get(f"/strips/{strip_id}/{revision}/picture.png").status_code == 404
        for kind in ("", "secret", "..%2ftarget", "look", "regions"):
            assert browser.get(f"/strips/{strip_id}/1/{kind}.png").status_code == 404


def test_a_process_that_dies_costs_one_picture(box: ServedBox) -> None:
    """The next one starts another; nothing that belongs to the page dies with it."""
    strip_id = box.judge("a.tif", 0.97, heatmaps=keep(box, "top/2026-01-01/a"))
    with box.browser() as browser:
        get(browser, strip_id, "picture")
        painter: Painter = browser.app.state.site.painter  # type: ignore[attr-defined]
        assert painter._process is not None
        before = painter._process.pid
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + 180
        while browser.get(f"/strips/{strip_id}/1/thumb.png").status_code != 200:
            assert time.monotonic() < deadline
        assert painter._process.pid != before


def test_the_cache_is_bounded_by_bytes() -> None:
    """What was not asked for longest goes first; what is larger than all of it is not kept."""
    cache = Cache(100)
    for name in "abc":
        cache.put((name,), b"x" * 40)
    assert [cache.get((name,)) is not None for name in "abc"] == [False, True, True]
    cache.put(("large",), b"x" * 101)
    assert cache.get(("large",)) is None
    cache.put(("b",), b"x" * 40)
    cache.put(("d",), b"x" * 60)
    assert sum(len(value) for value in cache._kept.values()) == cache._bytes <= 100
