"""How a strip looks comes out the same on every processor, to the last bit: it stands in models' files.

Libraries choose their kernels by what the processor has. Each can be told to do with less.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.helpers.repository import ROOT
from tests.worker.looks_here import kernels, looks, make_strips
from tools.benching.hiding import compile_hiding, environment, why_not_here

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HERE = kernels()
OPENCV = [name.strip("*") for name in HERE["OpenCV"].split() if name.startswith("*") and not name.endswith("?")]
LESS = {
    "OpenCV": {"OPENCV_CPU_DISABLE": ",".join(OPENCV), "OPENCV_IPP": "disabled"},
    "numpy": {"NPY_DISABLE_CPU_FEATURES": HERE["numpy"]},
    "BLAS": {"OPENBLAS_CORETYPE": "Nehalem"},  # numpy's products of vectors
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store made-up strips."""
    path = tmp_path_factory.mktemp("line") / "strips.npz"
    np.savez(path, *make_strips())
    return path


@pytest.fixture(scope="module")
def here(line: Path) -> list[str]:
    """How they look on this processor as it is."""
    with np.load(line) as stored:
        return looks([stored[name] for name in stored.files])


def _elsewhere(line: Path, environment: Mapping[str, str], *emulator: str) -> tuple[dict[str, str], list[str]]:
    done = subprocess.run(
        [*emulator, sys.executable, "-m", "tests.worker.looks_here", str(line)],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found, seen = json.loads(done.stdout)
    return found, seen


@pytest.mark.parametrize("library", LESS)
def test_a_library_with_lesser_kernels_measures_the_same(library: str, line: Path, here: list[str]) -> None:
    """Shifts, likeness, light, noise and sharpness of made-up strips, and what an export writes of them."""
    found, seen = _elsewhere(line, {**os.environ, **LESS[library]})
    if found[library] == HERE[library]:
        pytest.skip(f"{library} has one kind of kernels on this processor: {HERE[library]}")
    assert seen == here


def test_a_processor_without_its_widest_vectors_measures_the_same(tmp_path: Path, line: Path, here: list[str]) -> None:
    """AVX-512 is hidden from all libraries at once, where Linux can."""
    if reason := why_not_here("avx2"):
        pytest.skip(reason)
    found, seen = _elsewhere(line, environment(compile_hiding("avx2", tmp_path)))
    assert found != HERE
    assert seen == here


@pytest.mark.soak
@pytest.mark.parametrize("processor", ["Haswell", "Nehalem"])
def test_an_emulated_processor_measures_the_same(processor: str, line: Path, here: list[str]) -> None:
    """All libraries at once, each with what it takes for that processor."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user): no second kind of processor to try")
    _, seen = _elsewhere(line, os.environ, emulator, "-cpu", processor)
    assert seen == here
