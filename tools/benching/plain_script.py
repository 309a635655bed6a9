#!/usr/bin/env python
"""The script that people write today, as a peer to measure against: watch a folder, run the model, publish the score.

It keeps nothing: what is not published when it ends is lost, a bad file ends it, and a half-written one is judged.
Nobody should use it; nothing here is imported by the agent.

plain_script.py FOLDER MODEL PORT
"""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import agent  # noqa: F401 - switches onnxruntime's telemetry off

# isort: split
import numpy as np
import onnxruntime
import paho.mqtt.client as paho
import tifffile
from paho.mqtt.enums import CallbackAPIVersion
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

if TYPE_CHECKING:
    from watchdog.events import FileSystemEvent

TOPIC = "strip-agent/plain/event/strip/top"
WHITE = 255.0


class Closed(FileSystemEventHandler):
    """Puts the paths of files that were closed, or moved to their name, into a queue."""

    def __init__(self, paths: queue.Queue[str]) -> None:
        self._paths = paths

    def on_closed(self, event: FileSystemEvent) -> None:
        """Take a file that a writer has closed."""
        self._take(str(event.src_path))

    def on_moved(self, event: FileSystemEvent) -> None:
        """Take a file that was given its final name."""
        self._take(str(event.dest_path))

    def _take(self, path: str) -> None:
        if path.endswith(".tif") and not Path(path).name.startswith("."):
            self._paths.put(path)


def main() -> None:
    """Run until it is killed."""
    folder, model, port = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (fed,) = session.get_inputs()
    metadata = session.get_modelmeta().custom_metadata_map
    scale = 1.0 if metadata.get("strip_agent.input_scale") == "gray8" else WHITE
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", int(port))
    client.loop_start()
    paths: queue.Queue[str] = queue.Queue()
    observer = Observer()
    observer.schedule(Closed(paths), folder)
    observer.start()
    print("ready", flush=True)
    while True:
        path = paths.get()
        strip = tifffile.imread(path)[:3].astype(np.float32) / np.float32(scale)
        heatmap = session.run(None, {fed.name: strip[None]})[0][0, 0]
        client.publish(TOPIC, json.dumps({"file": Path(path).name, "score": float(heatmap.max())}), qos=1)


if __name__ == "__main__":
    main()
