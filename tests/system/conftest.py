"""What the tests on a whole box share: the stick, somebody who listens, and the books that must balance."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from agent import __version__
from tests.helpers.broker import wait_for
from tests.helpers.container import Container, tree
from tests.helpers.models import difference_model
from tests.helpers.pages import blocks
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip
from tools.packaging import bundle, wheels

if TYPE_CHECKING:
    from pathlib import Path

SUITE, PYTHON = "bookworm", "3.11"


@pytest.fixture(scope="session")
def base_stick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a stick: this version, models, strips."""
    tree(SUITE)  # skips before anything is built
    return fill_stick(tmp_path_factory.mktemp("stick"), (PYTHON,))


def fill_stick(folder: Path, pythons: tuple[str, ...]) -> Path:
    """Put onto a stick this version for some Pythons, models, strips."""
    folder.chmod(0o755)
    try:
        bundle.build_folder(folder / __version__, ROOT, "x86_64", pythons, bundle.CACHE)
    except wheels.BuildError as error:
        pytest.skip(f"no wheels to be had here: {error}")
    bundle.pack(folder / __version__, folder, bundle.LONG_AGO)
    shutil.copy(ROOT / "agent/demo/model.onnx", folder)
    difference_model(folder / "difference.onnx")  # for strips of the tests' size
    difference_model(folder / "newer.onnx", version=2)
    for number in range(6):
        write_strip(folder / f"{number}.tif", seed=number)
    return folder


def listen(box: Container) -> None:
    """Have the broker run, and somebody write down every result."""
    box.run("systemctl start mosquitto")
    box.start("mosquitto_sub -c -i scada -q 1 -t 'strip-agent/+/event/strip/#' >> /root/results")


def drop(box: Container, name: str) -> None:
    """Have the camera write six strips."""
    box.run(f'for n in 0 1 2 3 4 5; do cp /media/usb/$n.tif "/srv/cameras/top/{name}-$n.tif"; done')


def follow(box: Container, section: str, page: str = "docs/install.md", typed: str = "") -> str:
    """Paste what a page tells to paste on a box in a section; `typed` is what is asked for then."""
    found = [block.text for block in blocks(page) if block.section == section and not block.elsewhere]
    assert found, section
    return "".join(box.run(text, timeout=600, typed=typed) for text in found)


def status(box: Container) -> dict[str, Any]:
    """Ask the service."""
    facts: dict[str, Any] = json.loads(box.run("strip-agent status --json"))
    return facts


def check_books(box: Container, strips: int) -> None:
    """Every strip has its result at the broker, exactly one message id each time, and the books balance."""
    asked = f"strip-agent status --json | grep -q '\"acknowledged\": {strips},$'"
    box.wait_until(asked, f"{strips} strips are acknowledged")
    assert json.loads(box.run("strip-agent audit --json"))["balanced"]
    wait_for(lambda: len(_files_by_id(box)) >= strips, f"{strips} results have arrived")
    by_id = _files_by_id(box)
    assert len(by_id) == len(set(by_id.values())) == strips, "a strip was judged twice, or an id used twice"


def _files_by_id(box: Container) -> dict[str, str]:
    results = [json.loads(line) for line in box.run("cat /root/results").splitlines()]
    return {result["msg_id"]: result["file"] for result in results}
