"""What the soak leaves out where its time is over."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.helpers.repository import ROOT


def test_a_test_of_the_soak_that_comes_too_late_is_not_begun_and_the_summary_says_so() -> None:
    """Whoever reads the summary finds what was left out, and why."""
    file = "tests/exporter/test_verify.py"
    wanted = [f"{file}::test_verify_and_inspect_refuse_what_a_box_refuses_and_for_the_same_reason"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "soak", *wanted]
    environment = {**os.environ, "SOAK_BEGIN_SECONDS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout
    assert "passed" not in done.stdout
    assert "not begun: the time for that is over" in done.stdout
