"""Time for the page of these tests, which run on machines that have something else to do."""

import pytest

from agent.web import asking, painter


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take no starved service for a silent one, and no starved process for one that hangs."""
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 100.0)
    monkeypatch.setattr(painter, "JOB_SECONDS", 150.0)
