"""Commands over MQTT, whatever is sent: only what was asked for in full is done, and nothing is left uncounted."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped] # it brings no types
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import messages, mqtt
from agent.control.desk import CommandDesk
from agent.control.over_mqtt import LARGEST_BYTES, MalformedError, MqttCommands, answer_topic, read_request, topics
from tests.control.desks import ALL, events, everything, revisions
from tools.docs_commands import request_schema

if TYPE_CHECKING:
    from agent.control.context import Context
    from agent.publisher.answers import Answer

BASE = "strip-agent/insp1"
GOOD = {"schema": "command/1", "id": "1", "by": "hmi"}
ANSWER = messages.schemas()["command-result/1"]
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_keys = st.sampled_from(["schema", "id", "by", "ts_ms", "camera", "value", "clear", "strip_ids", "model", "slot", "x"])


class Line:
    """MQTT's end of the desk, without a broker: what is received, and what is answered."""

    def __init__(self, context: Context) -> None:
        self.desk = CommandDesk(context)
        self.answers: list[Answer] = []
        self._commands = MqttCommands(context.config, self.desk, self.answers.append)

    def say(self, topic: str, payload: bytes, *, retain: bool = False, to: str = "", data: bytes = b"") -> None:
        """Receive a message, and have the desk do what it wants to."""
        self._commands.received(mqtt.Received(topic, payload, retain, to, data))
        self.desk.step(0.0)

    @property
    def last(self) -> dict[str, Any]:
        """The last answer."""
        found: dict[str, Any] = json.loads(self.answers[-1].payload)
        return found


@pytest.fixture
def line(box: Context) -> Line:
    """Begin without any message."""
    return Line(box)


def request(**values: Any) -> bytes:
    """Write a request."""
    return json.dumps({**GOOD, **values}).encode()


def test_a_command_is_answered_with_the_requests_data(box: Context, line: Line) -> None:
    """On the response topic below rsp/, with the correlation data; else on the command's own."""
    line.say(f"{BASE}/cmd/pause", request(camera="top"), to=f"{BASE}/rsp/desk7/x", data=b"\x00\xff")
    assert "top" in box.ledger.operators.paused
    assert (line.answers[0].topic, line.answers[0].correlation) == (f"{BASE}/rsp/desk7/x", b"\x00\xff")
    line.say(f"{BASE}/cmd/status", request(id="2"))
    assert line.answers[1].topic == f"{BASE}/rsp/status"
    for answer in line.answers:
        jsonschema.validate(json.loads(answer.payload), ANSWER)


@pytest.mark.parametrize(
    "wanted",
    [
        "", "rsp/x", f"{BASE}/rsp", f"{BASE}/rsp/", f"{BASE}/rspx/y", f"{BASE}/cmd/pause", f"{BASE}/event/strip/top",
        f"{BASE}/state/agent", f"{BASE}/../rsp/x", f"{BASE}/rsp/+", f"{BASE}/rsp/#", f"{BASE}/rsp/a/#", "$SYS/x",
        f"x/{BASE}/rsp/y", f"{BASE.upper()}/rsp/x", f"{BASE}/rsp/\0", f"{BASE}/rsp/\x1b", f"{BASE}/rsp/\ud800",
        f"{BASE}/rsp/" + "x" * 600, "strip-agent/insp2/rsp/x", f" {BASE}/rsp/x", f"{BASE}//rsp/x",
    ],
)  # fmt: skip
def test_no_answer_leaves_rsp(wanted: str) -> None:
    """Whoever may ask must not be able to have the agent write elsewhere: to another box, or over a state."""
    assert answer_topic(BASE, "pause", wanted) == f"{BASE}/rsp/pause"


@given(wanted=st.text() | st.text(alphabet="rsp/+#x$\0").map(lambda text: f"{BASE}/{text}"))
@example(wanted=f"{BASE}/rsp/ok")
def test_an_answers_topic_is_always_a_topic_below_rsp(wanted: str) -> None:
    """For any text at all."""
    topic = answer_topic(BASE, "pause", wanted)
    assert topic.startswith(f"{BASE}/rsp/")
    assert len(topic) > len(f"{BASE}/rsp/")
    assert topic.isprintable()
    assert not set(topic) & set("+#")


@given(payload=st.binary() | _json.map(lambda value: json.dumps(value).encode()))
@example(payload=b"[" * 8000)
@example(payload=b'{"id":' * 1500)
@example(payload=b"9" * 8000)
@example(payload=b'{"schema":"command/1","id":"1","by":"x","a":' + b"[" * 900 + b"]" * 900 + b"}")
@example(payload=json.dumps(GOOD).encode("utf-16"))
@example(payload=b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
@example(payload=b'{"schema":"command/1","id":"\\ud800","by":"x"}')
@example(payload=b'{"schema":"command/1","id":"1","by":"x","ts_ms":1e999}')
@example(payload=b'{"schema":"command/1","id":"1","id":"2","by":"x"}')
@example(payload=b'{"schema":"command/1","id":"1","by":"x","value":NaN}')
def test_any_bytes_are_a_request_or_said_not_to_be(payload: bytes) -> None:
    """No other error comes out, and what is said of it can be printed."""
    said = [""]
    try:
        found, arguments = read_request(payload)
        said += [found.id, found.by]
        assert not {"schema", "id", "by", "ts_ms"} & arguments.keys()
    except MalformedError as error:
        said += [str(error), error.request]
    assert all(text.isprintable() and len(text) <= 500 for text in said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"schema": "command/2"}, "schema: "),
        ({"id": ""}, "id: "),
        ({"id": 7}, "id: "),
        ({"id": "x" * 129}, "id: "),
        ({"id": "a\nb"}, "one line of printable text"),
        ({"id": "\u202e"}, "one line of printable text"),
        ({"by": "\x1b[2J"}, "one line of printable text"),
        ({"by": None}, "by: "),
        ({"by": "x" * 65}, "by: "),
        ({"ts_ms": "now"}, "ts_ms: "),
        ({"ts_ms": 1.5}, "ts_ms: "),
        ({"ts_ms": True}, "ts_ms: "),
    ],
)
def test_what_is_wrong_with_a_request_is_said(line: Line, values: dict[str, Any], said: str) -> None:
    """An integrator finds the mistake without the agent's log."""
    line.say(f"{BASE}/cmd/status", request(**values))
    assert line.last["error"] == "malformed"
    assert said in line.last["detail"]
    assert line.last["detail"].isprintable()
    assert line.last["id"] == ("" if "id" in values else "1")


@pytest.mark.parametrize(
    ("why", "message"),
    [
        ("retained", {"retain": True}),
        ("too_large", {"payload": request(camera="top", filler="x" * LARGEST_BYTES)}),
        ("too_large", {"data": b"x" * LARGEST_BYTES}),
        ("too_large", {"to": f"{BASE}/rsp/" + "x" * LARGEST_BYTES}),
        ("expired", {"payload": request(camera="top", ts_ms=1)}),
        ("not_allowed", {"topic": f"{BASE}/cmd/pause/x"}),
        ("not_allowed", {"topic": f"{BASE}/cmd/models_forget"}),
        ("not_allowed", {"topic": "elsewhere/cmd/pause"}),
    ],
)
def test_what_is_ignored_does_nothing_and_is_counted(
    box: Context, line: Line, why: str, message: dict[str, Any]
) -> None:
    """A retained command would be done on every connection, an old one long after anybody wanted it."""
    before = everything(box)
    line.say(**{"topic": f"{BASE}/cmd/pause", "payload": request(camera="top"), **message})
    assert everything(box) == before
    assert line.answers == []
    assert line.desk.status().ignored == {why: 1}


def test_messages_that_were_never_read_are_counted(box: Context) -> None:
    """What the connection had to pass over in a flood is neither done nor forgotten."""
    line = Line(box)
    MqttCommands(box.config, line.desk, line.answers.append).received(mqtt.PassedOver(17))
    assert line.desk.status().ignored == {"flood": 17}


def test_only_listed_commands_have_topics(box: Context) -> None:
    """What has no topic is not subscribed."""
    listed = box.config.model_copy(update={"mqtt": box.config.mqtt.model_copy(update={"commands": ["audit"]})})
    assert topics(listed) == {"audit": "cmd/audit"}
    assert set(topics(box.config)) == set(ALL)


def malformed(chance: random.Random) -> bytes:
    """Make a request that is none: a good one that was damaged, or nonsense."""
    good = request(
        id=str(chance.random()),
        camera=chance.choice(["top", "side"]),
        strip_ids=["0" * 16],
        value=0.5,
        digest="00",
        from_seq=1,
        to_seq=3,
    )
    kind = chance.randrange(6)
    if kind == 0:
        return good[: chance.randrange(len(good) - 1)]
    if kind == 1:
        return chance.randbytes(chance.randrange(60))
    if kind == 2:
        values = json.loads(good)
        del values[chance.choice(["schema", "id", "by"])]
        return json.dumps(values).encode()
    if kind == 3:
        wrong: Any = chance.choice([None, 7, "", [], {}, "\x1b", "x" * 500, True, "\ud800"])
        return request(**{chance.choice(["schema", "id", "by"]): wrong, "camera": "top"})
    if kind == 4:
        return good.replace(b"{", b'{"surplus' + str(chance.randrange(9)).encode() + b'":[null],', 1)
    return json.dumps(chance.choice([None, 1, "text", [], [json.loads(good)], {}])).encode()


def test_ten_thousand_malformed_commands_change_nothing(box: Context, line: Line) -> None:
    """Every one of them is answered; not one row of the ledger differs afterwards."""
    chance = random.Random(20260101)  # noqa: S311 - always the same
    before = everything(box)
    changing = ["retry", "resend", "set_threshold", "activate", "rollback", "pause", "resume", "rescan"]
    for number in range(10_000):
        line.say(f"{BASE}/cmd/{changing[number % len(changing)]}", malformed(chance))
    assert everything(box) == before
    assert len(line.answers) == 10_000
    for answer in line.answers:
        found = json.loads(answer.payload)
        assert (found["ok"], found["error"] in ("malformed", "bad_arguments")) == (False, True), found
        assert found["detail"].isprintable()
    assert line.desk.status().answered == 10_000


@given(values=st.dictionaries(_keys, _json, max_size=6))
def test_what_the_published_schema_refuses_is_refused(values: dict[str, Any]) -> None:
    """What an integrator checks a request against is what the agent checks."""
    sent = {**GOOD, **values}
    try:
        read_request(json.dumps(sent).encode())
    except MalformedError:
        return
    jsonschema.validate(sent, messages.schemas()["command/1"])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("pause", {"camera": "top"}),
        ("retry", {"strip_ids": ["ab"], "model": None}),
        ("resend", {"from_seq": 1, "to_seq": 3}),
        ("set_threshold", {"camera": "top", "value": 0.5}),
        ("set_threshold", {"camera": "top", "clear": True}),
        ("rescan", {}),
        ("rollback", {"slot": "default"}),
        ("audit", {"since_ms": 0}),
    ],
)
def test_the_published_schemas_accept_what_the_agent_carries_out(
    line: Line, name: str, arguments: dict[str, Any]
) -> None:
    """A schema that is too narrow would keep people from asking; one that is too wide is caught by the agent."""
    values = {**GOOD, **arguments}
    jsonschema.validate(values, request_schema(name))
    line.say(f"{BASE}/cmd/{name}", json.dumps(values).encode())
    assert line.last["error"] not in ("malformed", "bad_arguments")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "surplus": 1}, request_schema(name))


def test_text_of_others_goes_nowhere_unprintable(box: Context, line: Line) -> None:
    """Terminals' commands in a camera's name reach neither answer nor event nor log as such."""
    line.say(f"{BASE}/cmd/pause", request(camera="\x1b]0;owned\x07\u202e"))
    assert line.last["error"] == "refused"
    assert line.last["detail"].isprintable()
    [event] = events(box)
    assert event["detail"].isprintable()
    assert event["arguments"].isprintable()
    assert revisions(box) == [1, 1, 1]
