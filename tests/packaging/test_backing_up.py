"""Before another version takes over, ledger and models are kept: by the user that they belong to, never by root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.packaging.installer.change import back_up
from tools.packaging.installer.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be more than the service's user"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a folder that every user can reach; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="strip-agent-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def state(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a state folder of the service's user, with a ledger and a model."""
    monkeypatch.setattr(sys, "executable", _python_of_everybody())
    folder = place / "state"
    (folder / "store/slots").mkdir(parents=True)
    (folder / "ledger.db").write_text("the ledger")
    (folder / "store/slots/default.json").write_text("{}")
    (folder / "store/model.onnx").write_text("a model")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return folder


def _python_of_everybody() -> str:
    """Find the system's Python, with which installers run; that of the tests may lie in a closed folder."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run([python, "-I", "-c", "pass"], user=NOBODY, group=NOBODY, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    pytest.skip("there is no Python that another user can run")


def test_ledger_slots_and_models_are_kept_and_the_two_newest_copies_stay(state: Path) -> None:
    """All of a copy belongs to the service's user; models take no room twice."""
    copies = []
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        copies.append(back_up(state, version))
        os.utime(copies[-1], (len(copies), len(copies)))
    assert [copy.exists() for copy in copies] == [False, True, True]
    kept = copies[-1]
    assert (kept / "ledger.db").read_text() == "the ledger"
    assert (kept / "store/slots/default.json").exists()
    assert (kept / "store/model.onnx").samefile(state / "store/model.onnx")
    assert {path.stat().st_uid for path in (kept, *kept.rglob("*"))} == {NOBODY}


def test_nothing_that_only_root_may_read_is_copied(state: Path, place: Path) -> None:
    """A link in the ledger's place does not make the installer give the service's user root's files."""
    secret = place / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    (state / "ledger.db-wal").symlink_to(secret)
    with pytest.raises(Refused, match="Permission denied"):
        back_up(state, "0.1.0")
    assert "of root" not in [path.read_text() for path in state.rglob("*") if path.is_file() and not path.is_symlink()]


def test_nothing_of_others_is_removed_or_given_away(state: Path, place: Path) -> None:
    """A link in the place of the copies does not make the installer remove what it leads to."""
    others = place / "others"
    for name in ("a", "b", "c", "d"):
        (others / name).mkdir(parents=True)
    shutil.rmtree(state / "backups", ignore_errors=True)
    (state / "backups").symlink_to(others)
    with pytest.raises(Refused, match="Permission denied"):
        back_up(state, "0.1.0")
    assert sorted(path.name for path in others.iterdir()) == ["a", "b", "c", "d"]
    assert others.stat().st_uid == 0
