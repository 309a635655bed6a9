"""What holds for all tests."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import hypothesis
import pytest

import agent  # noqa: F401 - before any test loads onnxruntime, which would upload usage data otherwise
from tests.helpers.soak import too_late

if TYPE_CHECKING:
    from collections.abc import Generator

# How long an example takes says how busy the machine is. The usual examples are the same at every run: a red test is
# somebody's change. `pytest --hypothesis-profile=long` looks for new ones, 20 times as many.
_NO_CLOCK = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("usual", _NO_CLOCK, derandomize=True)
hypothesis.settings.register_profile("long", _NO_CLOCK, max_examples=2000)
hypothesis.settings.load_profile("usual")

_OF_A_MISSING_PROGRAM = re.compile(r"not installed|mosquitto|compiler|OpenSSH|setpriv")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that was left out for lack of a program, where ALL_PROGRAMS=1 says that there are all of them."""
    report = yield
    if report.skipped and os.environ.get("ALL_PROGRAMS") == "1" and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if _OF_A_MISSING_PROGRAM.search(reason):
            report.outcome = "failed"
            report.longrepr = f"ALL_PROGRAMS=1, and yet: {reason}"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no further test of the soak when its time is over, and say so in the summary."""
    if item.get_closest_marker("soak") and (reason := too_late()):
        pytest.skip(reason)
