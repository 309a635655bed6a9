"""A subscriber that misses nothing: strip results into SQLite, once each, and a word about every gap.

    pip install 'paho-mqtt>=2.1,<3'
    python subscriber.py HOST PORT results.db

What matters: a fixed client id, a session that outlives the connection, QoS 1, `event/#` and no retained topics, and a
message that is acknowledged only when it is on the disk. For TLS, before it connects:
client.tls_set("ca.crt", "historian.crt", "historian.key").
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TOPICS = [("strip-agent/+/event/strip/+", 1), ("strip-agent/+/replay/strip/+", 1)]
SESSION_SECONDS = 7 * 24 * 3600

TABLE = """
CREATE TABLE IF NOT EXISTS strips (
    msg_id TEXT PRIMARY KEY, stream TEXT, seq INTEGER, ts_ms INTEGER, agent TEXT, camera TEXT, strip_id TEXT,
    part_id TEXT, score REAL, threshold REAL, verdict TEXT, reason TEXT, quality INTEGER, preview_path TEXT
)
"""
COLUMNS = (
    "msg_id", "stream", "seq", "ts_ms", "agent", "camera", "strip_id", "part_id", "score", "threshold", "verdict",
    "reason", "quality", "preview_path",
)  # fmt: skip
INSERT = f"INSERT OR IGNORE INTO strips VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - no value from outside


class Historian:
    """Keeps each result once; a repeat has the same `msg_id`."""

    def __init__(self, file: str) -> None:
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.execute(TABLE)

    def take(self, payload: bytes) -> None:
        """Write a result to the disk."""
        result: dict[str, Any] = json.loads(payload)
        if result["schema"] != "strip-result/1":
            print(f"passed over: schema {result['schema']}", flush=True)
            return
        new = self._db.execute(INSERT, [result[column] for column in COLUMNS]).rowcount
        if new and not result["replayed"]:
            self._look_for_a_gap(result["agent"], result["stream"], result["seq"])

    def _look_for_a_gap(self, agent: str, stream: str, seq: int) -> None:
        """Numbers rise without gaps within a stream. A missing one may still come: the broker may repeat or reorder."""
        (before,) = self._db.execute(
            "SELECT max(seq) FROM strips WHERE stream = ? AND seq < ?", (stream, seq)
        ).fetchone()
        if before is not None and seq > before + 1:
            # On the box: strip-agent resend FROM TO brings them on replay/strip/<camera>.
            print(f"{agent}: missing {before + 1} to {seq - 1} of stream {stream}", flush=True)


def main() -> None:
    """Listen until Ctrl-C or SIGTERM."""
    host, port, file = sys.argv[1:]
    historian = Historian(file)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="historian", protocol=mqtt.MQTTv5, manual_ack=True)

    def on_connect(client: mqtt.Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        print(f"{reason}, session {'found' if flags.session_present else 'new'}", flush=True)
        client.subscribe(TOPICS)

    def on_message(client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        historian.take(message.payload)
        client.ack(message.mid, message.qos)  # now it is on the disk, and the broker may forget it

    client.on_connect = on_connect
    client.on_message = on_message
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_SECONDS
    client.connect(host, int(port), keepalive=30, clean_start=False, properties=properties)
    signal.signal(signal.SIGTERM, lambda *_: client.disconnect())
    client.loop_forever(retry_first_connection=True)


if __name__ == "__main__":
    main()
