"""`strip-agent check-config` and the start, where cameras have pixels that are ignored."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.config import Config
from agent.config.file import ConfigError
from agent.config.ignored import check_ignored, copies, keep_copies
from agent.errors import ExitCode
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

GOOD, OTHER = b"dead_x,dead_y\n7,9\n", b"dead_x,dead_y\n8,9\n"
SIZES = {"default": (976, 176)}


def _config(tmp_path: Path, **cameras: dict[str, str]) -> dict[str, Any]:
    return {
        "agent": {"state_folder": str(tmp_path / "state")},
        "cameras": [{"name": name, "folder": str(tmp_path / name), **keys} for name, keys in cameras.items()],
        "models": {"inbox": str(tmp_path / "inbox")},
    }


def _written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def test_check_config_says_what_is_wrong_with_a_file_and_where(tmp_path: Path) -> None:
    """The camera's key, the file, what was found; exit code 78. A good camera beside it is not complained about."""
    config = _config(
        tmp_path,
        top={"ignore_pixels": _written(tmp_path / "good.csv", GOOD)},
        side={"ignore_pixels": str(tmp_path / "none.csv")},
        back={"ignore_mask": _written(tmp_path / "mask.png", b"no image")},
    )
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "agent.cli", "check-config", "--json", "--config", str(tmp_path / "agent.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    problems = {p["where"]: p["message"] for p in json.loads(done.stdout)["problems"] if not p["warning"]}
    assert done.returncode == 78, done.stdout
    assert problems.keys() == {"cameras[1].ignore_pixels", "cameras[2].ignore_mask"}
    assert problems["cameras[1].ignore_pixels"] == f"{tmp_path}/none.csv cannot be read: No such file or directory"
    assert f"{tmp_path}/mask.png is no PNG image" in problems["cameras[2].ignore_mask"]


def test_a_dead_pixel_outside_of_the_active_models_strips_is_found(tmp_path: Path) -> None:
    """X and y mixed up are the usual mistake; the camera's slot says which model counts."""
    mixed_up = {"ignore_pixels": _written(tmp_path / "dead.csv", b"dead_x,dead_y\n300,87\n")}
    config = Config.model_validate(_config(tmp_path, top=mixed_up, side=mixed_up | {"slot": "square"}))
    found = check_ignored(config, SIZES | {"square": (384, 384)})
    assert [(problem.where, problem.warning) for problem in found] == [("cameras[0].ignore_pixels", False)]
    assert check_ignored(config, {}) == []


def test_no_file_costs_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is ignored no process is started for it."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    config = Config.model_validate(_config(tmp_path, top={}))
    assert check_ignored(config, SIZES) == []
    keep_copies(config, SIZES)
    assert not (tmp_path / "state").exists()


def test_the_start_keeps_copies_and_removes_old_ones(tmp_path: Path) -> None:
    """Workers judge with what was there at the start, whatever becomes of the files."""
    dead = tmp_path / "dead.csv"
    config = Config.model_validate(_config(tmp_path, top={"ignore_pixels": _written(dead, GOOD)}, side={}))
    keep_copies(config, SIZES)
    ((name, kept),) = copies(config).items()
    assert (name, kept.ignore_mask) == ("top", "")
    copy = tmp_path / "state" / "ignored" / "top.ignore_pixels"
    assert kept.ignore_pixels == str(copy)
    dead.write_bytes(OTHER)
    assert copy.read_bytes() == GOOD
    keep_copies(config, SIZES)
    assert copy.read_bytes() == OTHER
    keep_copies(Config.model_validate(_config(tmp_path, top={}, side={})), SIZES)
    assert list(copy.parent.iterdir()) == []


def test_the_start_refuses_malformed_content_whatever_copy_there_is(tmp_path: Path) -> None:
    """A service with a mask that says nothing would raise false alarms; a person has to look: exit code 78."""
    mask = tmp_path / "mask.png"
    config = Config.model_validate(_config(tmp_path, top={"ignore_mask": _written(mask, b"no image")}))
    with pytest.raises(ConfigError, match="is no PNG") as caught:
        keep_copies(config, SIZES)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert not (tmp_path / "state").exists()


def test_a_file_that_is_away_at_the_first_start_is_waited_for_by_restarts(tmp_path: Path) -> None:
    """Without a copy nothing can be judged; it may come back, so the exit code is the one that systemd retries."""
    config = Config.model_validate(_config(tmp_path, top={"ignore_mask": str(tmp_path / "none.png")}))
    with pytest.raises(ConfigError, match="No such file") as caught:
        keep_copies(config, SIZES)
    assert caught.value.exit_code == ExitCode.FAILED
    assert not (tmp_path / "state").exists()


def test_a_file_that_is_away_costs_nothing_while_its_copy_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The copy is used, with a warning; another camera's file is copied as ever."""
    top, side = tmp_path / "top.csv", tmp_path / "side.csv"
    keys = {name: {"ignore_pixels": _written(path, GOOD)} for name, path in (("top", top), ("side", side))}
    config = Config.model_validate(_config(tmp_path, **keys))
    keep_copies(config, SIZES)
    top.unlink()
    side.write_bytes(OTHER)
    keep_copies(config, SIZES)
    kept = {name: (tmp_path / "state" / "ignored" / f"{name}.ignore_pixels").read_bytes() for name in keys}
    assert kept == {"top": GOOD, "side": OTHER}
    assert f"{top} cannot be read: No such file or directory; the copy of an earlier start is used" in caplog.text


def test_a_share_that_hangs_at_a_start_costs_nothing_while_its_copy_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The look is given up, the copies are examined in its place and used."""
    config = Config.model_validate(_config(tmp_path, top={"ignore_pixels": _written(tmp_path / "dead.csv", GOOD)}))
    keep_copies(config, SIZES)
    asked: list[str] = []
    run = subprocess.Popen

    def hangs_on_the_share(command: list[str], **more: Any) -> Any:
        asked.append(json.loads(command[-1])[0]["ignore_pixels"])
        hangs = asked[-1] == str(tmp_path / "dead.csv")
        monkeypatch.setattr("agent.config.ignored.EXAMINED_SECONDS", 0.0 if hangs else 60.0)
        return run(command, **more)

    monkeypatch.setattr(subprocess, "Popen", hangs_on_the_share)
    keep_copies(config, SIZES)
    copy = tmp_path / "state" / "ignored" / "top.ignore_pixels"
    assert asked == [str(tmp_path / "dead.csv"), str(copy)]
    assert "the copy of an earlier start is used" in caplog.text


def test_a_model_of_another_size_leaves_the_misfit_to_the_workers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After an activation and a power cut the service starts; the camera's strips are refused, others are judged."""
    dead = _written(tmp_path / "dead.csv", b"dead_x,dead_y\n100,900\n")
    config = Config.model_validate(_config(tmp_path, top={"ignore_pixels": dead}))
    keep_copies(config, {"default": (384, 384)})
    assert (tmp_path / "state" / "ignored" / "top.ignore_pixels").exists()
    assert "strips of camera top are refused" in caplog.text


def test_a_copy_is_written_only_where_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk stops no start: the copy of an earlier one serves; without any, the start is tried again."""
    dead = tmp_path / "dead.csv"
    config = Config.model_validate(_config(tmp_path, top={"ignore_pixels": _written(dead, GOOD)}))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("agent.config.ignored.write_atomically", full)
        with pytest.raises(ConfigError, match="No space left") as caught:
            keep_copies(config, SIZES)
        assert caught.value.exit_code == ExitCode.FAILED
    keep_copies(config, SIZES)
    monkeypatch.setattr("agent.config.ignored.write_atomically", full)
    keep_copies(config, SIZES)
    assert "No space left" not in caplog.text
    dead.write_bytes(OTHER)
    keep_copies(config, SIZES)
    assert "No space left on device; the copy of an earlier start is used" in caplog.text
    assert (tmp_path / "state" / "ignored" / "top.ignore_pixels").read_bytes() == GOOD


def test_a_share_that_hangs_is_told_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ends after some seconds."""
    monkeypatch.setattr("agent.config.ignored.EXAMINED_SECONDS", 0.0)
    config = Config.model_validate(_config(tmp_path, top={"ignore_pixels": _written(tmp_path / "dead.csv", GOOD)}))
    (problem,) = check_ignored(config, SIZES)
    assert "could not be read within" in problem.message
