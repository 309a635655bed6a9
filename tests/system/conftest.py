"""What the tests on a whole box share: the stick, somebody who listens, and the books that must balance."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from agent import __version__
from tests.helpers.container import Container, tree
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tests.helpers.strips import write_strip
from tools.packaging import bundle, wheels

if TYPE_CHECKING:
    from pathlib import Path

SUITE, PYTHON = "bookworm", "3.11"


@pytest.fixture(scope="session")
def base_stick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a stick: this version, a model, strips."""
    tree(SUITE)  # skips before anything is built
    folder = tmp_path_factory.mktemp("stick")
    folder.chmod(0o755)
    try:
        bundle.build_folder(folder / __version__, ROOT, "x86_64", (PYTHON,), bundle.CACHE)
    except wheels.BuildError as error:
        pytest.skip(f"no wheels to be had here: {error}")
    bundle.pack(folder / __version__, folder, bundle.LONG_AGO)
    shutil.copy(ROOT / "agent/demo/model.onnx", folder)
    difference_model(folder / "difference.onnx")  # for strips of the tests' size
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


def follow(box: Container, heading: str) -> str:
    """Paste what docs/install.md tells to paste below a heading."""
    section = (ROOT / "docs/install.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, heading
    return "".join(box.run(block, timeout=600) for block in blocks)


def status(box: Container) -> dict[str, Any]:
    """Ask the service."""
    facts: dict[str, Any] = json.loads(box.run("strip-agent status --json"))
    return facts


def check_books(box: Container, strips: int) -> None:
    """Every strip has its result at the broker, exactly one message id each time, and the books balance."""
    asked = f"strip-agent status --json | grep -q '\"acknowledged\": {strips},$'"
    box.wait_until(asked, f"{strips} strips are acknowledged")
    assert json.loads(box.run("strip-agent audit --json"))["balanced"]
    results = [json.loads(line) for line in box.run("cat /root/results").splitlines()]
    by_id = {result["msg_id"]: result["file"] for result in results}
    assert len(by_id) == len(set(by_id.values())) == strips, "a strip was judged twice, or an id used twice"
