"""One camera's folder, as the journey asks about it before it blames a strip or a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.watching.status import AWAY

if TYPE_CHECKING:
    from agent.watching import CameraWatcher, Probe


class CameraFolder:
    """What the watcher and the probe of one camera know together. `is_away` for any thread, the rest for one."""

    def __init__(self, watcher: CameraWatcher, probe: Probe) -> None:
        self._watcher = watcher
        self._probe = probe

    @property
    def is_away(self) -> bool:
        """Whether its files cannot be read now: it is missing, hangs, or has not been looked at yet."""
        return self._probe.hangs or self._watcher.status().state in (*AWAY, "starting")

    def answers(self, path: str) -> bool:
        """Say whether reading `path`, relative to the folder, comes back soon; while it does not, `is_away` is true."""
        return self._probe.answers(path)

    def is_gone(self, path: str) -> bool:
        """Say whether the folder itself says that `path` is not in it; False where that cannot be known."""
        return self._probe.is_gone(path, self._watcher.folder_identity)
