"""The demo's broker: both programs deliver, end with the demo, and their absence is one clear sentence."""

from __future__ import annotations

import queue
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from agent.demo import broker as broker_module
from agent.demo import subscriber as subscriber_module
from agent.demo.broker import Broker, broker_at, find_mosquitto, running_broker
from agent.demo.subscriber import Subscriber, Tally
from agent.errors import ExitCode, Fatal
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = [
    pytest.param(
        "mosquitto", marks=[pytest.mark.mosquitto, pytest.mark.skipif(not find_mosquitto(), reason="no mosquitto")]
    ),
    "amqtt",
]


def _listens(broker: Broker) -> bool:
    try:
        socket.create_connection((broker.host, broker.port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_message_goes_through_the_broker_and_it_ends_with_the_context(program: str, tmp_path: Path) -> None:
    """A subscriber gets what a publisher sent below its base topic, and nothing listens afterwards."""
    from paho.mqtt import publish  # noqa: PLC0415 - only this test publishes

    with running_broker(tmp_path, program) as broker:
        assert broker.name == program
        publish.single(
            "base/state/agent", '{"online": true}', qos=1, retain=True, hostname=broker.host, port=broker.port
        )
        subscriber = Subscriber(broker, "base")
        try:
            message = subscriber.messages.get(timeout=120)
        finally:
            subscriber.close(forget=True)
        assert (message.topic, message.payload) == ("state/agent", {"online": True})
        late = Subscriber(broker, "base")
        try:
            with pytest.raises(queue.Empty):
                late.messages.get(timeout=0.3)
        finally:
            late.close(forget=False)
    assert not _listens(broker)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_broker_ends_when_the_demo_is_killed(program: str, tmp_path: Path) -> None:
    """SIGKILL leaves no broker behind."""
    script = f"""
        import sys, time
        from pathlib import Path
        from agent.demo.broker import running_broker
        with running_broker(Path({str(tmp_path)!r}), {program!r}) as broker:
            print(broker.port, flush=True)
            time.sleep(60)
    """
    demo = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    with demo, demo.stdout:
        broker = Broker("127.0.0.1", int(demo.stdout.readline()), program)
        assert _listens(broker)
        demo.kill()
    wait_for(lambda: not _listens(broker), "the broker ends with the demo")


def test_without_any_broker_the_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both install lines and the way round are in the sentence."""
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with (
        pytest.raises(Fatal, match=r"(?s)--broker.*apt-get install mosquitto.*pip install") as caught,
        running_broker(tmp_path),
    ):
        pass
    assert caught.value.exit_code == ExitCode.FAILED


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is in the error, not only in a file."""
    command = [sys.executable, "-c", "raise SystemExit('no listener today')"]
    monkeypatch.setattr(broker_module, "_command", lambda *_arguments: command)
    with pytest.raises(Fatal, match="no listener today"), running_broker(tmp_path, "amqtt"):
        pass


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("localhost:1884", "localhost", 1884), ("plc7", "plc7", 1883), ("[::1]:1883", "::1", 1883)],
)
def test_a_broker_of_the_users_own_is_named_by_host_and_port(address: str, host: str, port: int) -> None:
    """The usual ways to write an address are understood."""
    assert broker_at(address) == Broker(host, port, "your broker")


@pytest.mark.parametrize("address", ["", ":1883", "host:", "host:mqtt", "host:0", "host:70000"])
def test_an_address_that_is_none_is_wrong_usage(address: str) -> None:
    """Exit code 2, and the sentence shows how to write it."""
    with pytest.raises(Fatal, match="HOST:PORT") as caught:
        broker_at(address)
    assert caught.value.exit_code == ExitCode.USAGE


def test_nobody_listens_at_the_users_address() -> None:
    """A broker that is not there is one sentence, not a trace."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Fatal, match="no broker answers"):
        Subscriber(Broker("127.0.0.1", port, "your broker"), f"base-{uuid4().hex}")


def test_a_broker_that_is_silent_or_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo does not wait for ever for somebody who speaks no MQTT."""
    monkeypatch.setattr(subscriber_module, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = Broker("127.0.0.1", silent.getsockname()[1], "your broker")
        with pytest.raises(Fatal, match=r"does not let us in: no answer"):
            Subscriber(broker, "base")


def test_the_tally_counts_each_result_once_and_sees_gaps() -> None:
    """A repeated message is a repeat, not a result; a missing number is a lost message."""

    def result(seq: int, file: str, verdict: str = "ok") -> dict[str, object]:
        return {"msg_id": f"s-{seq}", "stream": "s", "seq": seq, "camera": "top", "file": file, "verdict": verdict}

    tally = Tally()
    assert tally.add(result(1, "a"))
    assert not tally.add(result(1, "a"))
    assert tally.add(result(3, "b", "invalid"))
    assert (len(tally.results), tally.repeats, tally.gaps) == (2, 1, 1)
    assert tally.count("invalid") == 1
    assert tally.add(result(2, "c"))
    assert tally.gaps == 0
