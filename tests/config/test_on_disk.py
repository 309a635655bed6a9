"""The configuration's file while the service runs, read again and again: what hangs costs one thread."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from agent.config import Config
from agent.config import check as check_module
from agent.config.file import load_config
from agent.config.on_disk import ConfigFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest


def _running(tmp_path: Path) -> Config:
    camera = {"name": "top", "folder": str(tmp_path / "share")}
    return Config.model_validate({"agent": {"state_folder": str(tmp_path / "state")}, "cameras": [camera]})


def test_a_camera_whose_share_hangs_for_weeks_costs_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that nobody applies is looked at each minute, with all folders that it names."""
    release, asked = threading.Event(), []
    look = check_module._look_at

    def hang(where: str, path: Path) -> object:
        if path.name == "share":
            asked.append(where)
            release.wait(180)
        return look(where, path)

    monkeypatch.setattr(check_module, "_look_at", hang)
    monkeypatch.setattr(check_module, "LOOK_SECONDS", 1.0)
    path = tmp_path / "agent.yaml"
    camera = f"{{name: top, folder: {tmp_path / 'share'}, threshold: 0.1}}"
    path.write_text(f"agent: {{state_folder: {tmp_path / 'state'}}}\ncameras: [{camera}]\n")
    file, running = ConfigFile(path, {}), _running(tmp_path)
    try:
        states = [file.read(running).state for _ in range(4)]
        assert asked == ["cameras[0].folder"]
        assert states == ["differs"] * 4, "a folder that does not answer is no reason to refuse the file"
    finally:
        release.set()


def test_a_file_that_hangs_itself_costs_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe in its place is opened for ever; once it answers, it is read again."""
    monkeypatch.setattr("agent.config.on_disk.LOOK_SECONDS", 0.1)
    asked = []

    def read(path: Path, environ: Mapping[str, str]) -> Config:
        asked.append(path)
        return load_config(path, environ)

    monkeypatch.setattr("agent.config.on_disk.load_config", read)
    path = tmp_path / "agent.yaml"
    os.mkfifo(path)
    file, running = ConfigFile(path, {}), _running(tmp_path)
    states = [file.read(running).state for _ in range(4)]
    with path.open("wb"):  # lets whoever reads it go
        pass
    assert asked == [path]
    assert states == ["invalid"] * 4
