"""A shadow and a line that has changed, in a real browser: how they are shown, and a shadow that is made active."""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING

import onnx
import pytest

from agent.contract.measures import NAMES, Measures, Reference, off_scale, parse_reference
from agent.demo.pushes import MODEL, set_metadata, set_version
from agent.ledger import open_ledger
from agent.ledger.drift import note_look
from tests.browser.line import Line
from tests.browser.looking import NEEDS_A_BROWSER, PICTURES, SIZES, check, errors_of, opened
from tests.helpers.broker import wait_for
from tests.helpers.pushing import make_manifest, put_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

pytestmark = NEEDS_A_BROWSER

DAY_MS = 86_400_000
EARLIER_DAYS, DARK_DAYS = 20, 3  # before today; the lamp has faded in the last of them
STRIPS_A_DAY = 12
DARK = 0.7
DEFECTS = (0, 0, 1, 0, 0, 2) * 4
SHADOWS_THRESHOLD = 0.004  # which some good strips reach
SHADOW_SECONDS = 500  # a shadow takes only what the other tests leave of the processor


def reference() -> Reference:
    """Read how the strips looked that the bundled model was calibrated with."""
    props = {one.key: one.value for one in onnx.load(MODEL).metadata_props}
    return parse_reference(props["strip_agent.calibration_measures"])


def write_earlier_days(line: Line) -> None:
    """Have a month in the ledger: strips that looked as ever, and darker ones in the last days."""
    usual = {name: spread.mean for name, spread in reference().spreads.items()}
    rng = random.Random(3)  # noqa: S311 - no secret
    sha256, today_ms = hashlib.sha256(MODEL.read_bytes()).hexdigest(), time.time_ns() // 1_000_000
    ledger = open_ledger(line.box.state / "ledger.db")
    with ledger.database.transaction() as db:
        for number in range(EARLIER_DAYS * STRIPS_A_DAY):
            age_days = EARLIER_DAYS - number // STRIPS_A_DAY
            values = {name: off_scale(name, usual[name] + rng.gauss(0, 0.02)) for name in NAMES}
            if age_days <= DARK_DAYS:
                values |= {name: values[name] * DARK for name in NAMES if name.startswith("level")}
            ts_ms = today_ms - age_days * DAY_MS
            row = number - EARLIER_DAYS * STRIPS_A_DAY
            note_look(db, "top", row, f"{number:016x}", sha256, Measures(**values), ts_ms)
        db.execute("DELETE FROM looks")  # of each strip itself: what is found is to be found on strips that exist
    ledger.database.close()


def push_shadow(line: Line) -> str:
    """Push a model that computes the same with another threshold, as a shadow; return its sha256."""
    hidden, name = line.box.folder / "next.onnx", "flex-next.onnx"
    hidden.write_bytes(set_metadata(set_version(MODEL.read_bytes(), 2), "threshold", str(SHADOWS_THRESHOLD)))
    described = make_manifest(hidden, version=2, model_id="flex-demo", shadow=True)
    manifest = put_manifest(hidden, described, None)
    manifest.rename(line.box.inbox / f"{name}.manifest.json")
    hidden.rename(line.box.inbox / name)
    return described.sha256


@pytest.fixture(scope="module")
def line(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Run a line whose lamp has faded, with a shadow that has compared some strips."""
    made = Line(tmp_path_factory.mktemp("line"), browser, commands=["activate"])
    made.box.state.mkdir(parents=True, exist_ok=True)
    write_earlier_days(made)
    with made as running:
        sha256 = push_shadow(running)
        wait_for(lambda: running.box.ask("shadow")["shadow"]["sha256"] == sha256, "it is the shadow")
        for defects in DEFECTS:
            running.drop(defects, "top", gain=DARK)
        running.box.wait_until_published(running.dropped)
        wait_for(lambda: running.box.ask("shadow")["comparison"]["to_anomalous"] >= 2, "it flips", SHADOW_SECONDS)
        wait_for(lambda: "camera_top_drift_light" in running.box.ask("status")["health"]["alarms"], "the alarm")
        yield running


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "path", "part"),
    [
        ("shadow", "/models", "#shadow-1"),
        ("drift", "/trend?camera=top", "#drift"),
        ("drift-alarm", "/health", ".alarm"),
    ],
)
def test_shadow_and_drift_can_be_read_on_panel_and_phone_by_day_and_night(
    line: Line, name: str, path: str, part: str, size: str, scheme: str
) -> None:
    """No error of a script, nothing wider than the screen, no serious violation of accessibility."""
    page = opened(line, path, size, scheme)
    try:
        page.locator(part).first.wait_for()
        page.evaluate("(part) => document.querySelector(part).scrollIntoView()", part)
        page.evaluate("() => scrollBy(0, -70)")  # below the navigation, which stays where it is
        page.wait_for_function(
            "() => [...document.images].every((i) => i.complete || i.offsetTop > scrollY + innerHeight)"
        )
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{name}-{size}-{scheme}.png")
        check(page)
    finally:
        page.context.close()


def test_drift_is_told_in_chinese(line: Line) -> None:
    """What has changed, since when and what to do."""
    page = opened(line, "/trend?camera=top", locale="zh-TW")
    try:
        said = page.locator("#drift").inner_text()
        assert "產線已經改變" in said
        assert "燈、光圈、曝光" in said
        page.screenshot(path=PICTURES / "drift-panel-zh-TW.png", full_page=True)
        assert errors_of(page) == []
    finally:
        page.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_making_a_shadow_active_is_asked_once_more(line: Line, size: str) -> None:
    """On a page of its own that can be left again, by keyboard too; nothing has changed then."""
    page = opened(line, "/models", size)
    try:
        page.get_by_role("link", name="Make it active").click()
        page.get_by_role("button", name="Make it active now").wait_for()
        page.screenshot(path=PICTURES / f"change-{size}-light.png")
        check(page)
        page.get_by_role("link", name="Leave it as it is").press("Enter")
        page.locator("#shadow-1").wait_for()
        assert line.box.ask("shadow")["shadow"]["sha256"]
    finally:
        page.context.close()


def test_a_shadow_is_made_active_from_the_page(line: Line) -> None:
    """Two clicks; the trial runs, the page says so, and shows by itself when it is active."""
    sha256 = line.box.ask("shadow")["shadow"]["sha256"]
    page = opened(line, "/models")
    try:
        page.get_by_role("link", name="Make it active").click()
        page.get_by_role("button", name="Make it active now").click()
        page.get_by_text("It is tried now").wait_for()
        slot = page.locator("section.card").filter(has=page.get_by_role("heading", name="Slot default"))
        slot.get_by_text(sha256[:16]).wait_for()
        assert line.box.ask("models_list")["slots"]["default"]["active_sha256"] == sha256
        assert page.locator("#shadow-1").count() == 0
        events = [payload for payload in line.subscriber.payloads("/event/command") if b'"activate"' in payload]
        assert len(events) == 1
        assert errors_of(page) == []
    finally:
        page.context.close()
