"""An Arm gives the results that the files expect: the bundle's own wheels in a Debian tree for arm64, emulated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.exporter.trained import TRAINED_IMAGE
from tests.helpers.container import TREES
from tests.helpers.programs import needs
from tests.helpers.repository import ROOT
from tools.exporter.exporting import export_model
from tools.exporter.options import Options

if TYPE_CHECKING:
    from pathlib import Path

SAID = re.compile(r"(\w+)\.onnx: golden strip off by ([0-9.]+), allowed is ([0-9.]+); ")


@pytest.mark.soak
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a Debian tree")
@needs("debootstrap", "qemu-aarch64")
def test_an_emulated_arm_reproduces_both_golden_strips(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """fp32 and int8, exported here, through the trial that a box holds them to."""
    checkpoint, strips = trained
    models = []
    for precision in ("fp32", "int8"):
        models.append(tmp_path / f"{precision}.onnx")
        export_model(checkpoint, models[-1], Options(precision=precision, calibration=strips, image_size=TRAINED_IMAGE))
    folder = TREES / "arm64"
    done = subprocess.run(
        [str(ROOT / "tools" / "try_arm64.sh"), str(folder), *map(str, models)],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    if not (folder / "complete").exists():
        pytest.skip(f"a tree for arm64 cannot be made here: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "aarch64, Python 3.11" in done.stdout
    found = {name: (float(off), float(allowed)) for name, off, allowed in SAID.findall(done.stdout)}
    assert found.keys() == {"fp32", "int8"}
    assert all(off <= allowed for off, allowed in found.values()), found
