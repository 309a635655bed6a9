"""The folder of wheels that bundles are made from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tools.packaging import wheels

if TYPE_CHECKING:
    import pytest


def test_a_wheel_appears_whole_for_another_bundle_that_is_built_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip has not finished is nowhere to be found in the folder; what is finished stays, and nothing else does."""
    seen: list[list[str]] = []

    def half_done(*options: str) -> None:
        given = dict(option.split("=", 1) for option in options if "=" in option)
        unfinished = Path(given["--dest"], "numpy-1-any.whl")
        unfinished.write_bytes(b"half")
        seen.append([path.name for path in Path(given["--find-links"]).glob("*.whl")])
        unfinished.write_bytes(b"all of it")
        shutil.copy(Path(given["--find-links"], "known-1-any.whl"), given["--dest"])

    (tmp_path / "known-1-any.whl").write_bytes(b"known")
    monkeypatch.setattr(wheels, "pip", half_done)
    wheels.fetch("x86_64", ("3.11",), tmp_path)
    assert seen == [["known-1-any.whl"]]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "known-1-any.whl": b"known", "numpy-1-any.whl": b"all of it"
    }  # fmt: skip
