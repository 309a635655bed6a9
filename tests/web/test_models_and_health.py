"""The pages *Models* and *Health*, from what the ledger and the agent's own tables say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.errors import Reason
from agent.ledger import Changes, ModelRecord
from agent.messages.alarms import ALARMS
from agent.web.site import code
from agent.web.texts import Words, catalogue
from tests.web.served import MODEL_SHA256, ServedBox

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<img src=x onerror=alert(1)>"
HEALTH: dict[str, Any] = {
    "status": "degraded", "alarms": "camera_side_missing,broker_unreachable,of_a_later_version",
    "broker_connected": False,
    "broker_protocol": "", "broker_error": HOSTILE, "delivery": "down", "outbox_depth": 3, "outbox_oldest_s": 61.0,
    "outbox_parked": 1, "outbox_dropped": 0, "nobody_listening": False, "state_free_bytes": 1 << 31,
    "heatmap_free_bytes": 0, "heatmaps_saved": False, "ts_ms": 1_700_000_000_000, "uptime_s": 60, "worker_restarts": 2,
}  # fmt: skip


def live() -> dict[str, Any]:
    """Tell what a running service would."""
    missing = {"state": "missing", "detail": HOSTILE, "error": ""}
    return {
        "health": HEALTH,
        "watching": {"side": missing},
        "workers": {},
        "heatmaps": {"state": "there", "detail": ""},
    }


def test_a_refused_model_has_its_reason_in_words_and_numbers(tmp_path: Path) -> None:
    """What was refused, why, what was measured, and what judged meanwhile; a model's name is text."""
    with ServedBox(tmp_path) as box, box.browser() as browser:
        numbers = {"golden_difference": 0.4321, "run_ms": 12.5}
        bad = ModelRecord("cd" * 32, "cd" * 32, "rejected", HOSTILE, HOSTILE, 8, "golden_mismatch", "by 0.43", numbers)
        good = ModelRecord(MODEL_SHA256, MODEL_SHA256, "active", "good.onnx", "good", 7)
        box.ledger.models.write(Changes("default", {MODEL_SHA256: "active"}, (good, bad)))
        page = browser.get("/models").text
    assert "It does not reproduce its golden strip." in page
    assert "golden strip: largest difference 0.4321" in page
    assert "by 0.43" in page
    assert "<img src=x" not in page
    assert "until" not in page
    assert "now</td>" in page, "the active model judges from then until now"


def test_alarms_are_told_in_words_with_what_to_do(tmp_path: Path) -> None:
    """The worst first, each with its source; one that this version does not know is told, too."""
    with ServedBox(tmp_path, live=live) as box, box.browser() as browser:
        page = browser.get("/health").text
    assert page.index("broker_unreachable") < page.index("of_a_later_version")
    assert "camera/side" in page
    assert ALARMS["camera_missing"].text.replace("'", "&#39;") in page
    assert "Needs attention" in page
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page
    assert "2.0 GiB" in page


def test_alarms_and_what_to_do_are_told_in_chinese(tmp_path: Path) -> None:
    """No English sentence is left of an alarm that this release knows; why a model had to go is said, too."""
    told = {"health": HEALTH | {"alarms": "camera_side_missing,slot_default_model_blind"}}
    with ServedBox(tmp_path, live=lambda: live() | told, web={"language": "zh-TW"}) as box, box.browser() as browser:
        page = browser.get("/health").text
    assert "把資料夾或網路磁碟接回來" in page
    assert ALARMS["camera_missing"].advice not in page
    assert ALARMS["slot_rolled_back"].text not in page
    assert Words("zh-TW")("reason.model_blind") in page


def test_the_balance_is_shown_and_believed_only_if_it_balances(tmp_path: Path) -> None:
    """By the counters, camera by camera."""
    with ServedBox(tmp_path) as box, box.browser() as browser:
        box.judge("a.tif")
        assert "It balances" in browser.get("/health").text
        with box.ledger.database.transaction() as db:
            db.execute("UPDATE counters SET n = n + 1 WHERE kind = 'seen'")
        assert "It does not balance" in browser.get("/health").text


def test_only_what_exists_has_words() -> None:
    """A reason or an alarm that was renamed keeps no words that nobody sees."""
    for key in catalogue():
        kind, _, name = key.partition(".")
        assert kind not in {"alarm", "advice"} or name in ALARMS, key
        assert kind != "reason" or name in set(Reason), key


def test_code_in_advice_is_escaped() -> None:
    """What stands between backticks is code, and everything is text."""
    assert code("see `<b>` & <i>") == "see <code>&lt;b&gt;</code> &amp; &lt;i&gt;"
