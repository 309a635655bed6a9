"""What is told of drift and shadows: by cause and by pair of models, and no more series than there are of those."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from agent.drift.judging import CAUSES
from agent.ledger import open_ledger
from agent.metrics.exposition import Told, _Box
from agent.models.slot_state import Accepted, Shadow, SlotState
from tests.drift.test_watch import DARK, USUAL, Line, stamped
from tests.helpers.programs import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from prometheus_client import Metric

    from agent.ledger import Ledger

ACTIVE, SHADOW = "ab" * 32, "cd" * 32


class DriftAndShadows(Collector):
    """The two families alone, of a ledger without a service."""

    def __init__(self, ledger: Ledger, drift: Mapping[str, Any], slots: Mapping[str, SlotState]) -> None:
        parts = cast("Any", type("Parts", (), {"ledger": ledger}))
        self._box = _Box(Told(parts, cast("Any", None), drift, slots))

    def collect(self) -> Iterator[Metric]:
        """Give them."""
        yield from self._box._drift()
        yield from self._box._shadows()


def exposed(ledger: Ledger, drift: Mapping[str, Any], slots: Mapping[str, SlotState]) -> bytes:
    """Give them as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DriftAndShadows(ledger, drift, slots))
    return generate_latest(registry)


def samples(text: bytes, name: str, by: str) -> dict[str, float]:
    """Give the samples of a name by one of their labels."""
    families = text_string_to_metric_families(text.decode())
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels[by]: sample.value for sample in found}


def state(reason: str = "") -> SlotState:
    """Give a slot with a shadow."""
    facts = Accepted("next", 3, 976, 176, "passed", 1.0, 1.0, 0, "next.onnx")
    return SlotState(active=ACTIVE, accepted={ACTIVE: facts}, shadow=Shadow(SHADOW, 1, facts, reason))


def test_what_has_drifted_is_told_by_its_cause_and_how_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the 20th strip on; 1 and -1 are what makes an alarm, and the sign says the direction."""
    line = Line(tmp_path, monkeypatch)
    line.activate("1" * 64, stamped())
    line.judge(19, DARK)
    early = exposed(line.ledger, line.watch.facts(), {})
    assert samples(early, "strip_agent_drift_reference_strips", "camera") == {"top": 10, "side": 10}
    assert samples(early, "strip_agent_drifted", "kind") == {}, "nothing is said yet"
    line.judge(21, DARK)
    told = exposed(line.ledger, line.watch.facts(), {})
    line.ledger.database.close()
    assert samples(told, "strip_agent_drifted", "kind") == {cause: float(cause == "light") for cause in CAUSES}
    deviation = samples(told, "strip_agent_drift_deviation", "kind")
    assert deviation["light"] < -1 < deviation["focus"] < 1


def test_an_unchanged_line_is_near_its_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds within the limits; of a camera nothing was judged of only the reference is known."""
    line = Line(tmp_path, monkeypatch)
    line.activate("1" * 64, stamped())
    line.judge(40, USUAL)
    told = exposed(line.ledger, line.watch.facts(), {})
    line.ledger.database.close()
    assert set(samples(told, "strip_agent_drifted", "kind").values()) == {0.0}
    assert all(abs(value) < 1 for value in samples(told, "strip_agent_drift_deviation", "kind").values())
    assert told.count(b'camera="side"') == 1


@pytest.mark.parametrize(("reason", "is_on"), [("", 1.0), ("worker_crashed", 0.0)])
def test_a_shadow_is_told_with_what_it_sees_otherwise(tmp_path: Path, reason: str, is_on: float) -> None:
    """Of the present two models alone, however many there were before."""
    ledger = open_ledger(tmp_path / "ledger.db")
    with ledger.database.transaction() as db:
        for active, compared in ((ACTIVE, 100), ("ef" * 32, 7)):
            db.execute(
                "INSERT INTO shadow_totals (slot, shadow_sha256, active_sha256, compared, agreed, to_anomalous, to_ok, "
                "invalid, missed, first_ms, last_ms) VALUES ('default', ?, ?, ?, 90, 4, 5, 1, 3, 1, 2)",
                (SHADOW, active, compared),
            )
    told = exposed(ledger, {}, {"default": state(reason), "other": SlotState(active=ACTIVE)})
    ledger.database.close()
    assert samples(told, "strip_agent_shadow", "sha256") == {SHADOW: is_on}
    assert samples(told, "strip_agent_shadow_compared_total", "active_sha256") == {ACTIVE: 100}
    assert samples(told, "strip_agent_shadow_missed_total", "active_sha256") == {ACTIVE: 3}
    assert samples(told, "strip_agent_shadow_flips_total", "to") == {"anomalous": 4, "ok": 5, "invalid": 1}
    assert told.count(b'slot="other"') == 0


@needs("promtool")
def test_promtool_is_content_with_drift_and_shadows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sample of each, which a box that has just started does not have."""
    line = Line(tmp_path, monkeypatch)
    line.activate("1" * 64, stamped())
    line.judge(40, DARK)
    told = exposed(line.ledger, line.watch.facts(), {"default": state()})
    line.ledger.database.close()
    checked = subprocess.run(["promtool", "check", "metrics"], input=told, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
