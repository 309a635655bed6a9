"""Each camera's own parts and loops: made, started, ended and replaced without a touch to the others.

intake-<camera>  watch the folder, begin what has settled
files-<camera>   move or remove its files that are done
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent.errors import Retry
from agent.strips.finished_files import CameraFiles
from agent.strips.folder import CameraFolder
from agent.strips.intake import Before, Intake
from agent.watching import CameraWatcher, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent.config import Camera, Config
    from agent.ledger import Ledger
    from agent.loops import Loops
    from agent.watching import WatchStatus

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
END_SECONDS = 2.0  # a step that takes longer hangs on a share, and is left behind


@dataclass(frozen=True, slots=True)
class _Parts:
    """Those of one camera."""

    intake: Intake
    folder: CameraFolder
    files: CameraFiles


class Cameras:
    """The parts of all cameras, by name. What is read here may be read from any thread, one at a time changes them."""

    def __init__(
        self, config: Config, ledger: Ledger, loops: Loops, tidy: Callable[[str, Callable[[], float]], None]
    ) -> None:
        """`tidy(loop, step)` calls a step that may fail on a disk, and pauses for as long as it says."""
        self._ledger = ledger
        self._loops = loops
        self._tidy = tidy
        self.folders: dict[str, CameraFolder] = {}
        """Of all cameras that there are or have been: strips of one that is gone may be under way."""
        self._parts: dict[str, _Parts] = {}  # of those that there are; replaced as a whole
        self._put({camera.name: self._make(camera, config, None) for camera in config.cameras})

    @property
    def intakes(self) -> dict[str, Intake]:
        """What begins strips, by camera."""
        return {name: parts.intake for name, parts in self._parts.items()}

    @property
    def files(self) -> dict[str, CameraFiles]:
        """What moves or removes files, by camera."""
        return {name: parts.files for name, parts in self._parts.items()}

    def watched(self) -> dict[str, WatchStatus]:
        """Tell how each folder is."""
        return {name: parts.intake.watcher.status() for name, parts in self._parts.items()}

    def ask(self, names: Collection[str]) -> dict[str, Before]:
        """Ask the ledger what `replace` needs to know; raises Retry, and nothing has changed then."""
        return {name: Before.of(self._ledger, name) for name in names}

    def start(self, names: Collection[str], ring: Callable[[str], None]) -> None:
        """Start the loops of some cameras; `ring(slot)` is called when strips have been begun."""
        for name in names:
            parts = self._parts[name]
            watcher = parts.intake.watcher
            self._loops.start(f"intake-{name}", partial(_take_in, parts.intake, ring), watcher.close)
            self._loops.start(f"files-{name}", partial(self._tidy, f"files-{name}", parts.files.step))

    def replace(self, config: Config, gone: Collection[str], new: dict[str, Before]) -> None:
        """End the parts of the cameras that are `gone`, make those of the `new` ones, and tell the others.

        A camera may be in both: its folder is watched anew. What hangs is left behind. The new ones are not started.
        """
        old = {name: self._parts[name] for name in gone}
        for parts in old.values():
            parts.intake.end()
            parts.files.end()

        def wake() -> None:
            for parts in old.values():
                parts.intake.watcher.request_scan()  # which rings; the scan itself has no time to begin

        left = self._loops.end([f"{kind}-{name}" for name in gone for kind in ("intake", "files")], wake, END_SECONDS)
        if left:
            log.warning("%s: does not come back from a folder, and is left behind", ", ".join(sorted(left)))
        configured = {camera.name: camera for camera in config.cameras}
        made = {}
        for name, before in new.items():
            scanned = before.was_scanned or (name in old and old[name].intake.first_scan_recorded)
            made[name] = self._make(configured[name], config, Before(scanned, before.strips_wait_in))
        for name, parts in self._parts.items():
            if name not in old:
                parts.intake.camera = configured[name]
                parts.files.keep_days = config.ledger.keep_days
        kept = {name: parts for name, parts in self._parts.items() if name not in old} | made
        self._put({name: kept[name] for name in configured})

    def _put(self, parts: dict[str, _Parts]) -> None:
        self.folders.update((name, one.folder) for name, one in parts.items())
        self._parts = parts

    def _make(self, camera: Camera, config: Config, before: Before | None) -> _Parts:
        before = before or self._before_the_start(camera)
        watcher = CameraWatcher(camera, known=self._ledger.strips.known, first_scan_ever=not before.was_scanned)
        folder = CameraFolder(watcher, Probe(camera.folder))
        return _Parts(
            Intake(camera, watcher, self._ledger, config.checks.max_file_mib << 20, before),
            folder,
            CameraFiles(camera, self._ledger, config.ledger.keep_days, lambda _: folder.is_away),
        )

    def _before_the_start(self, camera: Camera) -> Before:
        """Ask the ledger; what an older version has taken in lies in the folder that the camera has now."""
        before = Before.of(self._ledger, camera.name)
        if "" in before.strips_wait_in:
            try:
                self._ledger.folders.note(camera.name, str(camera.folder))
            except Retry as error:  # they are looked for there all the same, until the camera gets another one
                log.warning("camera %s: cannot note where its strips lie: %s", camera.name, error)
        return before


def _take_in(intake: Intake, ring: Callable[[str], None]) -> None:
    intake.watcher.wait(POLL_SECONDS)
    if intake.step():
        ring(intake.camera.slot)
