"""Where the file of a judged strip is now."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import Camera
from agent.ledger import Said
from agent.strips.whereabouts import Found, Missing, find_file

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"II*\0 what was judged"


@pytest.fixture
def camera(tmp_path: Path) -> Camera:
    """Make a camera whose files are moved when they are done."""
    for name in ("camera", "done"):
        (tmp_path / name / "day").mkdir(parents=True)
    return Camera(name="top", folder=tmp_path / "camera", when_done="move", done_folder=tmp_path / "done")


def said(**values: Any) -> Said:
    """Make what was said of day/a.tif."""
    usual: dict[str, Any] = {
        "row": 1, "strip_id": "0123456789abcdef", "camera": "top", "path": "day/a.tif", "size_bytes": len(DATA),
        "digest": hashlib.sha256(DATA).hexdigest(), "disposal": "", "seen_ms": 0, "seq": 1, "revision": 1,
        "verdict": "ok", "reason": "", "score": 0.1, "model_sha256": "", "file": "day/a.tif", "threshold": 0.5,
        "model_id": "", "model_version": 0, "inference_ms": 1.0, "heatmap_path": "", "heatmap_sha256": "",
        "preview_path": "", "preview_sha256": "",
    }  # fmt: skip
    return Said(**usual | values)


def missing(camera: Camera | None, one: Said) -> str:
    """Say why there is no file."""
    found = find_file(camera, one)
    assert isinstance(found, Missing)
    return found.kind


@pytest.mark.parametrize("disposal", ["", "done", "gone"])
@pytest.mark.parametrize("place", ["camera/day/a.tif", "done/day/a.tif", "done/day/a-0123456789abcdef.tif"])
def test_a_file_is_found_in_each_place_that_it_may_have(
    tmp_path: Path, camera: Camera, place: str, disposal: str
) -> None:
    """Whatever the ledger says of it and whatever its times are, and although its name is taken by another one."""
    for other in ("camera/day/a.tif", "done/day/a.tif"):
        (tmp_path / other).write_bytes(b"II*\0 something else!!")
    (tmp_path / place).write_bytes(DATA)
    os.utime(tmp_path / place, (1, 1))
    found = find_file(camera, said(disposal=disposal))
    assert isinstance(found, Found)
    assert (found.data, f"{found.folder}/{found.path}") == (DATA, str(tmp_path / place))


def test_another_file_of_its_name_is_never_taken_for_it(tmp_path: Path, camera: Camera) -> None:
    """Neither one of the same size nor a larger one, of which nothing is read."""
    (tmp_path / "camera/day/a.tif").write_bytes(bytes(len(DATA)))
    assert missing(camera, said()) == "replaced"
    (tmp_path / "camera/day/a.tif").write_bytes(DATA + b"more")
    assert missing(camera, said()) == "replaced"


def test_links_are_not_followed(tmp_path: Path, camera: Camera) -> None:
    """Not even to the very bytes; nor out of the camera's folder by a name that no camera gave."""
    (tmp_path / "elsewhere.tif").write_bytes(DATA)
    (tmp_path / "camera/day/a.tif").symlink_to(tmp_path / "elsewhere.tif")
    assert missing(camera, said()) == "unreadable"
    assert missing(camera, said(path="../elsewhere.tif")) == "unreadable"


def test_what_nobody_can_find_is_said(camera: Camera) -> None:
    """Each kind apart."""
    assert missing(camera, said()) == "gone"
    assert missing(camera, said(digest="")) == "never_read"
    assert missing(None, said()) == "camera_gone"


def test_a_file_is_found_in_the_folder_that_the_camera_had_before(tmp_path: Path, camera: Camera) -> None:
    """Nothing has moved it from there; the present folder has another one of its name."""
    before = tmp_path / "before"
    (before / "day").mkdir(parents=True)
    (before / "day/a.tif").write_bytes(DATA)
    (tmp_path / "camera/day/a.tif").write_bytes(b"II*\0 something else!!")
    found = find_file(camera, said(folder=str(before)))
    assert isinstance(found, Found)
    assert (found.data, found.folder) == (DATA, str(before))
    assert missing(camera, said(folder=str(tmp_path / "away"))) == "replaced"
