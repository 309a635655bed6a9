"""rumqttd, a broker in Rust, out of the wheel `iotcore`: MQTT 3.1.1 on one port, MQTT 5 on another.

rumqttd.py FOLDER PORT PORT_OF_MQTT_5
"""

from __future__ import annotations

import sys
from pathlib import Path

from iotcore import Broker

SETTINGS = """
id = 0
[router]
id = 0
max_connections = 50
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 10
"""
LISTENER = """
[{section}.1]
name = "{section}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{section}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 100
dynamic_filters = true
"""


def main() -> None:
    """Serve until a signal comes."""
    folder, old_port, new_port = sys.argv[1:]
    file = Path(folder) / "rumqttd.toml"
    listeners = LISTENER.format(section="v4", port=old_port) + LISTENER.format(section="v5", port=new_port)
    file.write_text(SETTINGS + listeners)
    Broker(config_path=str(file)).run_forever()


if __name__ == "__main__":
    main()
