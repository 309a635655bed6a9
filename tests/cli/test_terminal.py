"""Where the command line's answers go: anywhere that a shell or a timer can send them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("where", "code", "says"),
    [("> /dev/full", 1, "strip-agent: the answer cannot be written: No space left on device\n"), (">&-", 0, "")],
)
def test_an_answer_that_cannot_be_written_is_one_sentence(tmp_path: Path, where: str, code: int, says: str) -> None:
    """A full disk, or no standard output at all, as some timers call programs: no trace, and no "restart me"."""
    config = tmp_path / "agent.yaml"
    (tmp_path / "camera").mkdir()
    (tmp_path / "inbox").mkdir()
    config.write_text(
        f"agent: {{state_folder: {tmp_path / 'state'}}}\nmodels: {{inbox: {tmp_path / 'inbox'}}}\n"
        f"cameras: [{{name: top, folder: {tmp_path / 'camera'}}}]\n"
    )
    command = f'"{sys.executable}" -m agent.cli check-config --config "{config}" {where}'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (code, says)
