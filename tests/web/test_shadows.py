"""Shadows on the page *Models*: how they compare, and what may be done about them where commands allow it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.control.commands import handle
from agent.control.for_pages import WEB_USER
from agent.ledger.shadow import Opinion, Published
from agent.models.slot_state import Accepted, Shadow, SlotState
from agent.models.store import Store
from agent.records import FileIdentity, Strip
from tests.web.served import MODEL_SHA256, ServedBox, csrf

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.testclient import TestClient

SHADOW, EARLIER = "cd" * 32, "ef" * 32
HOSTILE = "<img src=x onerror=alert(1)>"
ALLOWED = {"commands": ["activate"]}


def facts(model_id: str, version: int) -> Accepted:
    """Make up what is known of a model."""
    return Accepted(model_id, version, 976, 176, "passed", 40.0 + version, 1.0, 1_700_000_000_000, f"{model_id}.onnx")


def with_shadow(folder: Path, reason: str = "", **sections: Any) -> ServedBox:
    """Make a box with an active model, an earlier one, and a shadow; the page runs under its unit's user."""
    box = ServedBox(folder, **sections)
    box.asked_by = WEB_USER
    (box.state / "store" / "slots").mkdir(parents=True)
    shadow = Shadow(SHADOW, 1_700_000_000_000, facts(HOSTILE, 3), reason, "3 times" if reason else "")
    accepted = {EARLIER: facts("old", 1), MODEL_SHA256: facts("new", 2)}
    state = SlotState(active=MODEL_SHA256, previous=EARLIER, accepted=accepted, shadow=shadow)
    Store(box.state / "store").save("default", state)
    return box


def compare(box: ServedBox, name: str, score: float, shadow_score: float, threshold: float = 0.5) -> str:
    """Have a strip judged by both, by the active model with this threshold; return its id."""
    strip_id = box.judge(name, score, threshold=threshold)
    seq = box.ledger.shadow.newest_seq()
    strip = Strip(seq, strip_id, "top", name, FileIdentity(10, 1, 1), 1, 1, 1)
    published = Published(strip, seq, MODEL_SHA256, "anomalous" if score >= 0.5 else "ok", score, is_there=True)
    verdict: Any = "anomalous" if shadow_score >= 0.5 else "ok"
    said = Opinion(published, verdict, shadow_score, 0.5, 80.0)
    box.ledger.shadow.record("default", SHADOW, seq, [said], {})
    return strip_id


def commands(box: ServedBox) -> list[dict[str, Any]]:
    """Return what is told of commands, the earliest first."""
    events = [one for one in box.ledger.outbox.next_outbox_messages(0, 100) if one.topic == "event/command"]
    return [json.loads(event.payload) for event in events]


def shadow_now(box: ServedBox) -> str:
    """Which model is the shadow."""
    shadow = Store(box.state / "store").load("default").state.shadow
    return shadow.sha256 if shadow else ""


def token(browser: TestClient, to: str, sha256: str) -> str:
    """Open the page that asks once more, and return the token of its form."""
    return csrf(browser.get("/models/change", params={"to": to, "slot": "default", "sha256": sha256}).text)


def test_a_shadow_is_told_with_its_figures_and_the_worst_pairs(tmp_path: Path) -> None:
    """Which model, since when, how many, how they agree, the time, and both verdicts of each pair with its strip."""
    with with_shadow(tmp_path) as box, box.browser() as browser:
        compare(box, "same.tif", 0.1, 0.2)
        worst = compare(box, f"{HOSTILE[:-1]}.tif", 0.25, 0.875, threshold=0.4)
        page = browser.get("/models").text
    assert "<img src=x" not in page
    assert "50.00%" in page
    assert "1 OK → anomaly, 0 anomaly → OK, 0 not judged by the shadow" in page
    assert "43 ms a strip in its trial, the active model 42 ms; 80 ms as a shadow" in page
    assert "2023-11-1" in page, "since when"
    pair = page[page.index(f"/strips/{worst}?revision=1") :]
    assert pair.index("0.250") < pair.index("0.875") < pair.index("same.tif"), "other verdicts first"
    assert pair.index("threshold 0.400") < pair.index("0.875") < pair.index("threshold 0.500") < pair.index("</a>")
    assert "/models/change" not in page, "nothing may be done here"


def test_a_shadow_that_was_switched_off_says_why(tmp_path: Path) -> None:
    """Its reason in words, and the sentence."""
    with with_shadow(tmp_path, "worker_crashed") as box, box.browser() as browser:
        page = browser.get("/models").text
    assert "Switched off:" in page
    assert "worker_crashed" in page
    assert "3 times" in page


def test_a_shadow_is_ended_and_chosen_where_commands_allow_it(tmp_path: Path) -> None:
    """Asked once more on a page of its own, which changes nothing; then the agent does it and writes it down."""
    with with_shadow(tmp_path, mqtt=ALLOWED) as box, box.browser() as browser:
        assert "/models/change?to=activate" in browser.get("/models").text
        ended = {"to": "off", "slot": "default", "sha256": SHADOW, "csrf": token(browser, "off", SHADOW)}
        assert shadow_now(box) == SHADOW, "looking changes nothing"
        answer = browser.post("/models/change", data=ended)
        assert (answer.status_code, shadow_now(box)) == (303, "")
        assert "The shadow ends." in browser.get(answer.headers["location"]).text
        chosen = {"to": "shadow", "slot": "default", "sha256": EARLIER, "csrf": ended["csrf"]}
        assert browser.post("/models/change", data=chosen).status_code == 303
        assert shadow_now(box) == EARLIER
        assert [(one["command"], one["by"], one["ok"]) for one in commands(box)] == [("set_shadow", WEB_USER, True)] * 2


def test_what_the_agent_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    """Without a running service nothing is activated, and the page says why instead of failing."""
    with with_shadow(tmp_path, mqtt=ALLOWED) as box, box.browser() as browser:
        asked = {"to": "activate", "slot": "default", "sha256": SHADOW, "csrf": token(browser, "activate", SHADOW)}
        answer = browser.post("/models/change", data=asked)
    assert answer.status_code == 409
    assert "a model is activated only after a trial" in answer.text


@pytest.mark.parametrize("to", ["activate", "shadow", "off"])
def test_nothing_is_changed_from_a_page_that_may_not(tmp_path: Path, to: str) -> None:
    """Without `activate` in `mqtt.commands`: no page that asks, and the agent refuses the page's user."""
    with with_shadow(tmp_path, mqtt={"commands": ["retry", "rollback"]}) as box, box.browser() as browser:
        asked = {"to": to, "slot": "default", "sha256": SHADOW}
        assert browser.get("/models/change", params=asked).status_code == 404
        some = csrf(browser.get(f"/strips/{box.judge('a.tif')}").text)
        assert browser.post("/models/change", data={**asked, "csrf": some}).status_code == 404
        for command in ("activate", "set_shadow"):
            request = {"command": command, "slot": "default", "digest": SHADOW}
            assert handle(box.context, request, WEB_USER)["code"] == "not_allowed"
        assert (shadow_now(box), commands(box)) == (SHADOW, [])


def test_another_site_cannot_change_a_model(tmp_path: Path) -> None:
    """Without the token of this session, with somebody else's, or sent by another site."""
    with with_shadow(tmp_path, mqtt=ALLOWED) as box, box.browser() as browser, box.browser() as other:
        asked = {"to": "off", "slot": "default", "sha256": SHADOW}
        mine, foreign = (token(one, "off", SHADOW) for one in (browser, other))
        for more in ({}, {"csrf": ""}, {"csrf": foreign}):
            assert browser.post("/models/change", data={**asked, **more}).status_code == 403
        cross = {"sec-fetch-site": "cross-site"}
        assert browser.post("/models/change", data={**asked, "csrf": mine}, headers=cross).status_code == 403
        assert shadow_now(box) == SHADOW


@pytest.mark.parametrize(
    "wrong", [{"to": "rollback"}, {"slot": "nothing"}, {"slot": HOSTILE}, {"sha256": "cd"}, {"sha256": "CD" * 32}]
)
def test_what_is_no_change_of_a_model_is_no_page(tmp_path: Path, wrong: dict[str, str]) -> None:
    """Another slot, another word, half a digest: not found, before anything is done."""
    with with_shadow(tmp_path, mqtt=ALLOWED) as box, box.browser() as browser:
        asked = {"to": "off", "slot": "default", "sha256": SHADOW} | wrong
        assert browser.get("/models/change", params=asked).status_code == 404
        answer = browser.post("/models/change", data={**asked, "csrf": token(browser, "off", SHADOW)})
        assert answer.status_code == 404
        assert shadow_now(box) == SHADOW
