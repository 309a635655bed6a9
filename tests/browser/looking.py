"""Opens pages in the browser, and says what is wrong with one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.publishing import needs_mosquitto
from tests.helpers.repository import ROOT
from tests.peers.installed import CHROMIUM, INSTALLED, needs_peer

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

    from tests.browser.line import Line

NEEDS_A_BROWSER = [
    pytest.mark.browser,
    needs_mosquitto,
    needs_peer("axe"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
AXE = INSTALLED / "axe" / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = Path(os.environ.get("WEB_PICTURES", ROOT / "build" / "web"))
SIZES = {"panel": (1024, 600), "phone": (390, 844)}
BEYOND = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("main *")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 99))"""
SERIOUS = {"serious", "critical"}
PATIENCE_MS = 180_000  # of a busy machine


def opened(line: Line, path: str, size: str = "panel", scheme: Any = "light", locale: str = "en-GB") -> Page:
    """Open a page; errors of its scripts, refused by the policy or not, fail the test that looks at `errors_of`."""
    width, height = SIZES[size]
    context = line.browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, has_touch=True
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" and not missing(said) else None)
    page.errors = errors  # type: ignore[attr-defined] # kept with what it is about
    answer = page.goto(line.address + path)
    assert answer is not None
    assert answer.status == 200, path
    # A page with a stream of events is never without traffic: it is ready when its pictures are.
    page.wait_for_function(
        "() => [...document.images].every((i) => i.complete || i.getBoundingClientRect().top > innerHeight)"
    )
    return page


def missing(said: ConsoleMessage) -> bool:
    """Whether a picture is not there: what was not judged has no heatmap, and a strip's file may be gone."""
    return "404" in said.text and said.location.get("url", "").endswith(".png")


def errors_of(page: Page) -> list[str]:
    """Tell what the page's scripts complained of."""
    errors: list[str] = page.errors  # type: ignore[attr-defined]
    return errors


def check(page: Page) -> None:
    """Find no error of a script, nothing wider than the screen, no serious violation of accessibility."""
    assert errors_of(page) == []
    assert page.evaluate(BEYOND) == [], "it has to be moved sideways"
    page.evaluate(AXE.read_text())  # as the tester's own script: the page's policy lets none in
    found = page.evaluate("() => axe.run()")
    serious = [
        (one["id"], one["help"], [node["target"] for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in SERIOUS
    ]
    assert serious == []
