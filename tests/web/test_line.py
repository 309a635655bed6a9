"""The page *Line*, and what every page does when the agent is silent or names are hostile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agent.control.commands import handle
from agent.control.for_pages import WEB_USER, rate_per_minute
from tests.web.served import ServedBox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "\"><script>alert(1)</script>&{{7*7}}'.tif"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ServedBox]:
    """Serve a box."""
    with ServedBox(tmp_path) as served:
        yield served


def test_the_line_shows_each_camera_and_what_came_last(box: ServedBox) -> None:
    """The newest verdict in words, its score against the threshold, and what came before it."""
    box.judge("good.tif", 0.1)
    strip_id = box.judge("bad.tif", 0.9)
    with box.browser() as browser:
        page = browser.get("/line").text
    assert "ANOMALY" in page
    assert f"/strips/{strip_id}?revision=1" in page
    assert len(re.findall('class="thumb v-', page)) == 2
    assert "No strip has been judged yet" in page, "the other camera"
    assert 'aria-label="Score 0.900, threshold 0.500"' in page


def test_what_was_not_judged_is_never_shown_as_good(box: ServedBox) -> None:
    """An invalid strip has its own word and its reason."""
    box.judge("broken.tif", None)
    with box.browser() as browser:
        page = browser.get("/line").text
    assert "NOT JUDGED" in page
    assert "damaged_tiff" in page
    assert 'class="last v-invalid"' in page


def test_hostile_names_are_text(box: ServedBox) -> None:
    """A file's name is shown as it is, and is never markup."""
    box.judge(HOSTILE, 0.9)
    with box.browser() as browser:
        page = browser.get("/line").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{7*7}}" in page


def test_a_silent_agent_is_said_to_be_silent(box: ServedBox) -> None:
    """The page answers, says what that means, and comes back with the agent."""
    with box.browser() as browser:
        box.stop()
        answer = browser.get("/line")
        assert answer.status_code == 503
        assert "The agent does not answer" in answer.text
        box.start()
        assert browser.get("/line").status_code == 200


def test_the_page_speaks_chinese(box: ServedBox) -> None:
    """Where the browser asks for it and the configuration leaves it to the browser."""
    box.config.web.__dict__["language"] = "auto"
    box.judge("bad.tif", 0.9)
    with box.browser(**{"accept-language": "zh-TW"}) as browser:
        page = browser.get("/line").text
    assert '<html lang="zh-TW">' in page
    assert "異常" in page


def test_the_pages_user_may_ask_for_nothing_else(box: ServedBox) -> None:
    """The user of the page's unit may read; what changes something, and the long audit, the service refuses."""
    box.asked_by = WEB_USER
    box.judge("a.tif", 0.1)
    with box.browser() as browser:
        assert browser.get("/line").status_code == 200
    for command in ("status", "audit", "activate", "rollback", "pause", "set_threshold", "retry", "nothing", None):
        assert handle(box.context, {"command": command}, WEB_USER)["code"] == "not_allowed", command


@pytest.mark.parametrize(
    ("ages_s", "rate"),
    [([], 0.0), ([601], 0.0), ([0, 10, 20], 0.3), ([0, 60, 700], 0.2), ([1, 31, 61], 3 / 61 * 60)],
)
def test_the_rate_is_of_the_last_ten_minutes(ages_s: list[int], rate: float) -> None:
    """Of fewer minutes where only those are known."""
    now = 10_000_000
    times = [now - age * 1000 for age in ages_s]
    if ages_s == [0, 10, 20]:
        times = [*times, now - 900_000]
    assert rate_per_minute(times, now) == pytest.approx(rate)
