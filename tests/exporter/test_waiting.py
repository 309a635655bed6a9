"""push --wait: what the box reports over a real broker decides the exit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt import publish

from tests.helpers.broker import Broker as RealBroker
from tools.exporter.errors import ExportError
from tools.exporter.waiting import Broker, following, make_broker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE, DIGEST = "strip-agent/insp1", "ab" * 32


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Start a real broker."""
    with RealBroker(tmp_path) as running:
        yield Broker("127.0.0.1", running.port)


def _decide(broker: Broker, *events: dict[str, str], seconds: float = 150.0) -> str:
    with following(broker, [BASE], "default") as decisions:
        for event in events:
            topic = f"{BASE}/{'event' if 'event' in event else 'state'}/model/default"
            publish.single(topic, json.dumps(event), qos=1, hostname=broker.host, port=broker.port)
        return decisions.wait_for(BASE, "m.onnx", DIGEST, seconds)


def _state(**more: str) -> dict[str, str]:
    return {"active_sha256": "other", "last_refused_sha256": "", "last_refused_ts": ""} | more


def _event(what: str, **more: str) -> dict[str, str]:
    return {"event": what, "sha256": DIGEST, "active_sha256": "other", "file": "m.onnx"} | more


def test_active_is_success(broker: Broker) -> None:
    """The box runs the model: the sentence says which."""
    said = _decide(broker, _event("activated", active_sha256=DIGEST, model_id="m", version="3"))
    assert "active: m version 3" in said


def test_the_bytes_that_are_active_already_are_success(broker: Broker) -> None:
    """Pushing the same file twice is no failure."""
    assert "is the active model" in _decide(
        broker, _event("unchanged", active_sha256=DIGEST, detail="is the active model")
    )


@pytest.mark.parametrize("what", ["rejected", "unchanged"])
def test_refused_is_failure_with_the_reason(broker: Broker, what: str) -> None:
    """The box refused it, now or when the same bytes came before: the reason is shown."""
    with pytest.raises(ExportError, match="model_shapes"):
        _decide(broker, _event(what, reason="model_shapes"))


def test_the_model_before_is_named_only_where_there_is_one(broker: Broker) -> None:
    """A box without a model goes on with none, and the sentence says so."""
    with pytest.raises(ExportError, match="The model before it goes on scoring"):
        _decide(broker, _event("rejected", reason="model_shapes"))
    with pytest.raises(ExportError, match="It has no model to score with"):
        _decide(broker, _event("rejected", reason="model_shapes", active_sha256=""))


def test_a_file_that_could_not_be_read_is_told_by_its_name(broker: Broker) -> None:
    """There is no digest then."""
    with pytest.raises(ExportError, match="symlink"):
        _decide(broker, _event("rejected", sha256="", reason="symlink"))


def test_a_model_behind_another_one_is_told_at_once(broker: Broker) -> None:
    """Nobody waits for a model that is never tried."""
    with pytest.raises(ExportError, match="goes before it"):
        _decide(broker, _event("superseded", sha256="", detail="b.onnx was there with it and goes before it"))


def test_the_state_decides_as_well_as_the_event(broker: Broker) -> None:
    """Whichever arrives first: both tell the same."""
    active = _state(active_sha256=DIGEST, active_model_id="m", active_version="3")
    assert "active: m version 3" in _decide(broker, _state(), active)
    refused = _state(last_refused_sha256=DIGEST, last_refused_reason="model_shapes", last_refused_ts="now")
    with pytest.raises(ExportError, match="model_shapes"):
        _decide(broker, _state(), refused)


def test_what_was_said_before_does_not_count(broker: Broker) -> None:
    """The retained state tells of an earlier push; events of other models and odd messages are left out."""
    state = {"active_sha256": "other", "last_refused_sha256": DIGEST, "last_refused_reason": "model_shapes"}
    publish.single(
        f"{BASE}/state/model/default", json.dumps(state), qos=1, retain=True, hostname=broker.host, port=broker.port
    )
    publish.single(f"{BASE}/event/model/default", "odd", qos=1, retain=True, hostname=broker.host, port=broker.port)
    others = _event("rejected", sha256="another", reason="golden_mismatch", file="n.onnx")
    assert "active: m version 4" in _decide(
        broker, others, _event("activated", active_sha256=DIGEST, model_id="m", version="4")
    )


def test_no_decision_ends_with_the_time(broker: Broker) -> None:
    """What the box says about other models does not count."""
    with pytest.raises(ExportError, match="did not decide"):
        _decide(broker, _event("activated", sha256="another", active_sha256="another"), seconds=0.3)


def test_no_broker_is_refused() -> None:
    """Nothing listens there, or the address is none."""
    with pytest.raises(ExportError, match="--broker"), following(Broker("127.0.0.1", 1), [BASE], "default"):
        pass
    with pytest.raises(ExportError, match="HOST:PORT"):
        make_broker("somewhere", None, None, None)


def test_topics_that_nobody_asked_for_are_left_out(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some brokers send more than was asked for; nothing falls over in the client's thread."""
    clients, make = [], mqtt.Client

    def remembered(*arguments: Any) -> mqtt.Client:
        clients.append(make(*arguments))
        return clients[-1]

    monkeypatch.setattr("tools.exporter.waiting.mqtt.Client", remembered)
    with following(broker, [BASE], "default") as decisions:
        message = mqtt.MQTTMessage(topic=f"{BASE}/event/model/other".encode())
        message.payload = json.dumps(_event("activated")).encode()
        assert clients[0].on_message
        clients[0].on_message(clients[0], None, message)
        assert decisions.events[BASE].empty()
