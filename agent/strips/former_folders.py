"""Folders that cameras had before a change of the configuration: strips may wait whose files lie there.

A strip is read from the folder in which it was taken in. Where it is not there it is looked for in the camera's present
one, as the operator may have moved the files along.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import Blame, Reason, Reject, Retry
from agent.watching import Probe

if TYPE_CHECKING:
    from agent.config import Camera
    from agent.strips.folder import CameraFolder
    from agent.wire import Job


class FormerFolders:
    """Where strips are read that wait since before their camera's folder was changed. For one thread."""

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}
        self._looked_for_here: set[int] = set()  # rows of strips that are not, or not to be seen, where they were

    def place(self, row: int, taken_in: str, camera: Camera) -> str:
        """Return the folder to read a strip from that was taken in from `taken_in`, "" where that is not known."""
        return str(camera.folder) if not taken_in or row in self._looked_for_here else taken_in

    def answers(self, folder: str, path: str) -> bool:
        """Say whether reading `path` in a former folder comes back soon; while it does not, it is one of `hanging`."""
        return self._probe(folder).answers(path)

    @property
    def hanging(self) -> list[str]:
        """The former folders that do not answer."""
        return [folder for folder, probe in self._probes.items() if probe.hangs]

    def error(
        self, job: Job, camera: Camera, here: CameraFolder, reason: Reason, *, patience_is_over: bool
    ) -> Retry | Reject | None:
        """Say what it means that the strip could not be read; None where it means the same as of any other strip.

        It is vanished only where both folders say so. A former folder may be away for ever.
        """
        strip, now = job.strip, str(camera.folder)
        if job.folder != now:
            if reason is not Reason.FILE_VANISHED:
                return None
            self._looked_for_here.add(strip.row)
            return Retry(Reason.UNREADABLE, f"it is not in {job.folder}, where it was taken in", Blame.BOX)
        if strip.folder in ("", now) or reason not in (Reason.FILE_VANISHED, Reason.FILE_REPLACED):
            return None
        self._looked_for_here.discard(strip.row)
        is_here = reason is Reason.FILE_VANISHED and not here.is_gone(strip.path)
        if not is_here and self._probe(strip.folder).is_gone_from_there(strip.path):
            return Reject(Reason.FILE_VANISHED, f"neither {strip.folder}, where it was taken in, nor {now} has it")
        if patience_is_over:
            return Reject(Reason.UNREADABLE, f"{strip.folder}, where it was taken in, is away or empty")
        return Retry(Reason.UNREADABLE, f"{strip.folder}, where it was taken in, may be away", Blame.BOX)

    def forget(self, row: int) -> None:
        """Take out a strip that waits no more."""
        self._looked_for_here.discard(row)

    def _probe(self, folder: str) -> Probe:
        return self._probes.setdefault(folder, Probe(Path(folder)))
