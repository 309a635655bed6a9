"""A real broker for tests, and a subscriber that keeps everything.

`Broker` is a mosquitto child process on a free port of the loopback interface. Where mosquitto is not installed it is
amqtt (MQTT 3.1.1 only, no access lists, forgets everything), a child process too because it leaves sockets open;
`Broker.kind` says which one it is, and `describe()` puts it into a sentence.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


def _find_mosquitto() -> str | None:
    if os.environ.get("TEST_BROKER") == "amqtt":  # to see what a machine without mosquitto sees
        return None
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


MOSQUITTO = _find_mosquitto()
Kind = Literal["mosquitto", "amqtt"]
KIND: Kind = "mosquitto" if MOSQUITTO else "amqtt"
_DEADLINE_SECONDS = 150.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.002, 0.05

_AMQTT_PROGRAM = """
import asyncio, signal, sys
from amqtt.broker import Broker

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await stop.wait()
    await broker.shutdown()

asyncio.run(main())
"""

ANYBODY = "allow_anonymous true\nmax_queued_messages 0"
PERSISTENT = f"{ANYBODY}\npersistence true\nautosave_on_changes true\nautosave_interval 1"


def describe() -> str:
    """Say which broker the tests use."""
    return "broker of the tests: " + (MOSQUITTO or "amqtt, because mosquitto is not installed")


def wait_for(condition: Callable[[], object], what: str, seconds: float = _DEADLINE_SECONDS) -> None:
    """Wait until `condition` holds; AssertionError after `seconds`.

    To look costs processor time here and in the service that is asked, which others wait for: the longer it has taken,
    the rarer the looks.
    """
    deadline = time.monotonic() + seconds
    pause_seconds = _SHORTEST_PAUSE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause_seconds)
        pause_seconds = min(1.25 * pause_seconds, _LONGEST_PAUSE_SECONDS)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on.

    It is none of those that the system gives to connections: a broker that is away for a moment would find its port
    taken by any client of another test, and a client that tries to reach it could be connected with itself.
    """
    first_given_away = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(10_000, max(first_given_away, 20_000))
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port


class Broker:
    """Starts at once; `stop`, `kill` and `start` again as often as you like, always on the same port."""

    def __init__(self, folder: Path, config: str = ANYBODY, *, start: bool = True, kind: Kind = KIND) -> None:
        """`config` is mosquitto's, without the listener; amqtt ignores it. `folder` gets the files."""
        self.kind: Kind = kind
        self.host = "127.0.0.1"
        self.port = free_port()
        self._folder = folder
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file = folder / "broker.log"
        if start:
            self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        if self.kind == "mosquitto":
            self._write_config()
            command = [str(MOSQUITTO), "-c", str(self._folder / "mosquitto.conf")]
        else:
            command = [sys.executable, "-c", _AMQTT_PROGRAM, str(self.port)]
        with self._log_file.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_for(self._accepts, f"the broker accepts connections (see {self._log_file})")

    def reload(self, config: str) -> None:
        """Give mosquitto a new configuration (access lists, users) without a restart."""
        self._config = config
        self._write_config()
        self.signal(signal.SIGHUP)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop it in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop it as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log_file.read_text(errors="replace")

    def _write_config(self) -> None:
        lines = [f"listener {self.port} 127.0.0.1", self._config]
        if os.geteuid() == 0:  # mosquitto would change to a user that cannot read a test's folder
            lines.append("user root")
        if "persistence true" in self._config:
            lines.append(f"persistence_location {self._folder}/")
        (self._folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    def _end(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(_DEADLINE_SECONDS)
            self._process = None

    def _accepts(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"{self.kind} ended at once: {self.log}")
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1.0):
            return True
        return False


@dataclass(frozen=True, slots=True)
class Message:
    """What a subscriber received. `retain` is set on what the broker had kept, not on what came live."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    content_type: str
    user_properties: tuple[tuple[str, str], ...]


class Subscriber:
    """Keeps every message of a topic filter, in the order of arrival, across restarts of the broker."""

    def __init__(
        self,
        port: int,
        topic_filter: str = "#",
        *,
        protocol: Literal["5", "3.1.1"] | None = None,
        keep_session: bool = False,
        **login: str,
    ) -> None:
        """Subscribe with QoS 1 and wait until that is granted. `login`: username and password.

        `keep_session` asks the broker to keep what it has for this subscriber across disconnections; across a restart
        of the broker it does so only with `persistence true` (PERSISTENT).
        """
        protocol = protocol or ("5" if KIND == "mosquitto" else "3.1.1")
        self._filter = topic_filter
        self._lock = threading.Lock()
        self._messages: list[Message] = []
        self._subscribed, self._left = threading.Event(), threading.Event()
        self._keep_session = keep_session
        self._v5 = protocol == "5"
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"subscriber-{id(self)}",
            protocol=MQTTProtocolVersion.MQTTv5 if self._v5 else MQTTProtocolVersion.MQTTv311,
            clean_session=None if self._v5 else not keep_session,
        )
        if login:
            self._client.username_pw_set(login["username"], login["password"])
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_unsubscribe = lambda *_: self._left.set()
        self._client.on_message = self._on_message
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho's annotation is missing
            properties.SessionExpiryInterval = 3600 if keep_session else 0
            self._client.connect("127.0.0.1", port, keepalive=60, clean_start=not keep_session, properties=properties)
        else:
            self._client.connect("127.0.0.1", port, keepalive=60)
        self._client.loop_start()
        assert self._subscribed.wait(_DEADLINE_SECONDS), "not subscribed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave; where no session is kept the broker knows that it has none to pass a message on to from now on."""
        if not self._keep_session:
            # DISCONNECT is not answered: what is published behind it could still find this subscriber.
            self._client.unsubscribe(self._filter)
            with contextlib.suppress(AssertionError):  # a broker that is away, or stands still
                wait_for(lambda: self._left.is_set() or not self._client.is_connected(), "unsubscribed", 30.0)
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish something, QoS 1."""
        self._client.publish(topic, payload, 1, retain)

    def messages(self, topic_part: str = "") -> list[Message]:
        """Everything received so far on topics that contain `topic_part`."""
        with self._lock:
            return [message for message in self._messages if topic_part in message.topic]

    def payloads(self, topic_part: str = "") -> list[bytes]:
        """Their payloads."""
        return [message.payload for message in self.messages(topic_part)]

    def wait_for_subscription(self, seconds: float = _DEADLINE_SECONDS) -> None:
        """Wait until it is subscribed again after the broker went away."""
        assert self._subscribed.wait(seconds), "not subscribed again"

    def expect_reconnect(self) -> None:
        """Call before the broker goes away, so that `wait_for_subscription` waits for the next subscription."""
        self._subscribed.clear()

    def _on_connect(self, client: paho.Client, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure and self._v5:
            # Keep the flag as it was published: a retained message must show that it is one.
            client.subscribe(self._filter, options=SubscribeOptions(qos=1, retainAsPublished=True))
        elif not reason.is_failure:
            client.subscribe(self._filter, qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed.set()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        found = message.properties
        kept = Message(
            message.topic,
            bytes(message.payload),
            message.qos,
            bool(message.retain),
            getattr(found, "ContentType", ""),
            tuple(getattr(found, "UserProperty", ())),
        )
        with self._lock:
            self._messages.append(kept)
