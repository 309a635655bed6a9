"""The review form on the page *Strip*: written down by the agent, published, and only from this page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.control.commands import handle
from agent.control.for_pages import WEB_USER
from agent.models.slot_state import Accepted, SlotState
from agent.models.store import Store
from agent.web import site
from agent.web.sessions import COOKIE
from tests.web.served import MODEL_SHA256, ServedBox, csrf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAID = {"finding": "no_defect", "by": "Lin", "remark": "<b>dust</b>", "revision": "1"}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[ServedBox]:
    """Serve a box whose page runs under the user of its unit."""
    with ServedBox(tmp_path) as served:
        served.asked_by = WEB_USER
        yield served


def test_a_click_is_written_down_shown_and_published(box: ServedBox) -> None:
    """With the name and the remark as text, and the result as it was."""
    strip_id = box.judge("a.tif", 0.9)
    with box.browser() as browser:
        token = csrf(browser.get(f"/strips/{strip_id}").text)
        answer = browser.post(f"/strips/{strip_id}/review", data={**SAID, "csrf": token})
        assert answer.status_code == 303
        page = browser.get(answer.headers["location"]).text
    assert "It is written down." in page
    assert "&lt;b&gt;dust&lt;/b&gt;" in page
    assert "ANOMALY" in page
    (review,) = box.ledger.reviews.since()
    assert (review.finding, review.person, review.sender, review.revision) == ("no_defect", "Lin", WEB_USER, 1)
    events = [one for one in box.ledger.outbox.next_outbox_messages(0, 100) if one.topic == "event/review"]
    assert [json.loads(one.payload)["strip_id"] for one in events] == [strip_id]


@pytest.mark.parametrize(
    "wrong", [{"finding": ""}, {"finding": "ok"}, {"by": ""}, {"by": "\x1b[2J"}, {"revision": "7"}]
)
def test_what_is_no_review_says_so_and_changes_nothing(box: ServedBox, wrong: dict[str, str]) -> None:
    """The strip is shown again, with a word about it."""
    strip_id = box.judge("a.tif", 0.9)
    with box.browser() as browser:
        token = csrf(browser.get(f"/strips/{strip_id}").text)
        answer = browser.post(f"/strips/{strip_id}/review", data={**SAID, **wrong, "csrf": token})
        assert answer.status_code == 303
        assert "The agent did not take it" in browser.get(answer.headers["location"]).text
    assert box.ledger.reviews.since() == []


def test_another_site_cannot_review(box: ServedBox) -> None:
    """Without the token of this session, with somebody else's, or sent by another site."""
    strip_id = box.judge("a.tif", 0.9)
    with box.browser() as browser, box.browser() as other:
        token, foreign = (csrf(one.get(f"/strips/{strip_id}").text) for one in (browser, other))
        path = f"/strips/{strip_id}/review"
        for data in (SAID, {**SAID, "csrf": ""}, {**SAID, "csrf": foreign}):
            assert browser.post(path, data=data).status_code == 403
        cross = {"sec-fetch-site": "cross-site"}
        assert browser.post(path, data={**SAID, "csrf": token}, headers=cross).status_code == 403
        assert browser.get(path).status_code in {404, 405}
    assert box.ledger.reviews.since() == []


def test_reviews_that_are_switched_off_are_hidden_and_refused(tmp_path: Path) -> None:
    """`web.reviews: false`: no form, no route, and the agent refuses the page's user."""
    with ServedBox(tmp_path, web={"reviews": False}) as box, box.browser() as browser:
        box.asked_by = WEB_USER
        strip_id = box.judge("a.tif", 0.9)
        page = browser.get(f"/strips/{strip_id}").text
        assert "/review" not in page
        sessions = browser.app.state.site.sessions  # type: ignore[attr-defined] # Starlette's
        session = sessions.find(browser.cookies[COOKIE])
        answer = browser.post(f"/strips/{strip_id}/review", data={**SAID, "csrf": session.csrf})
        assert answer.status_code == 404
        asked = {"command": "review", "strip_id": strip_id, "finding": "defect", "by": "Lin"}
        assert handle(box.context, asked, WEB_USER)["code"] == "not_allowed"
        assert box.ledger.reviews.since() == []


def test_nobody_can_flood_the_ledger_with_reviews(box: ServedBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gives some at once, and then as fast as a person does."""
    monkeypatch.setattr(site, "REVIEWS_AT_ONCE", 3)
    monkeypatch.setattr(site, "REVIEWS_A_SECOND", 0.0)
    strip_id = box.judge("a.tif", 0.9)
    with box.browser() as browser:
        token = csrf(browser.get(f"/strips/{strip_id}").text)
        answers = [browser.post(f"/strips/{strip_id}/review", data={**SAID, "csrf": token}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [303, 303, 303, 429, 429]
    assert len(box.ledger.reviews.since()) == 3


def test_the_models_page_says_what_people_say_of_the_active_one(box: ServedBox) -> None:
    """False alarms among those that somebody was sure of, and misses."""
    facts = Accepted("unet", 3, 976, 176, "passed", 1.0, 1.0, 0, "unet.onnx")
    (box.state / "store" / "slots").mkdir(parents=True)
    Store(box.state / "store").save("default", SlotState(active=MODEL_SHA256, accepted={MODEL_SHA256: facts}))
    said = ((0.9, "no_defect"), (0.8, "defect"), (0.7, "no_defect"), (0.1, "defect"))
    for number, (score, finding) in enumerate(said):
        asked = {"strip_id": box.judge(f"{number}.tif", score), "finding": finding, "by": "Lin"}
        assert handle(box.context, {"command": "review", **asked}, WEB_USER)["ok"]
    with box.browser() as browser:
        assert "4 reviews: 2 of 3 alarms false, 1 missed" in browser.get("/models").text
