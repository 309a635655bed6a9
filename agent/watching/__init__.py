"""Watching the cameras' folders: events as hints, the scan as the truth.

Read on in `watcher.py`. `scan.py` reads folders in slices, `events.py` is the edge to watchdog, `mounts.py` knows which
file systems have events. What "matches" means is in `agent/names.py`, "settled" and "backlog" in `agent/settling.py`.
"""

from agent.watching.probe import Probe
from agent.watching.status import WatchStatus
from agent.watching.watcher import CameraWatcher

__all__ = ["CameraWatcher", "Probe", "WatchStatus"]
