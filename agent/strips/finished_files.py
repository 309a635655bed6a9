"""One camera's files once their strips are done: moved or removed, and their rows forgotten when they are gone.

Each camera has a loop of its own for this: its folder may be a share that hangs for ever.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.clock import DAY_MS, now_ms
from agent.errors import Reject
from agent.records import FileIdentity, show_name
from agent.regular_files import open_folder_below, split_path
from agent.strips.disposal import Disposal, dispose

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Camera
    from agent.ledger import Ledger
    from agent.records import Strip

log = logging.getLogger(__name__)

BATCH = 200
ROWS_EVERY_SECONDS = 3600.0
STAYING_EVERY_SECONDS = 60.0
PAUSE_SECONDS = 10.0
ALARM_AFTER_SECONDS = 60.0


class CameraFiles:
    """One step disposes of some files that are due, and from time to time looks through some old rows."""

    def __init__(
        self,
        camera: Camera,
        ledger: Ledger,
        keep_days: float,
        folder_is_away: Callable[[str], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._camera = camera
        self._ledger = ledger
        self.keep_days = keep_days  # a reload may set it, at any time
        self._folder_is_away = folder_is_away
        self._clock = clock
        self._wall_ms = wall_ms
        self._dispose_at = self._staying_at = self._rows_at = clock()
        self._disposed_up_to = self._staying_up_to = self._looked_up_to = 0  # rows; after an error the next ones work
        self._errors_since: float | None = None  # the first of them that no whole round without one has followed
        self._round_has_errors = False
        self._error = ""  # the last one, while there are any
        self._waits_since: float | None = None  # for the file system, which may hang for ever
        self._ended = False

    def end(self) -> None:
        """Touch no file but the one that is under way: a reload may say something else of the others.

        For any thread.
        """
        self._ended = True

    def step(self) -> float:
        """Do what is due; return for how many seconds nothing is. Raises Retry where the ledger cannot."""
        if self._folder_is_away(self._camera.name):
            return 0.0
        disposes = self._camera.when_done != "keep"
        if disposes and self._clock() >= self._dispose_at:
            self._dispose()
        if disposes and self._clock() >= self._staying_at:
            self._look_at_staying()
        if self._clock() >= self._rows_at:
            if not disposes:  # it may have been another word before
                self._ledger.strips.keep_files(self._camera.name)
            self.forget_old_rows()
        due = min(self._rows_at, self._dispose_at, self._staying_at) if disposes else self._rows_at
        return max(0.0, due - self._clock())

    @property
    def error(self) -> str:
        """Why files cannot be moved or removed, "" where they can. For any thread."""
        waits_since = self._waits_since
        waited = 0.0 if waits_since is None else self._clock() - waits_since
        if waited >= ALARM_AFTER_SECONDS:
            return f"to {self._camera.when_done} a file has not come back for {waited:.0f} s (a share that hangs?)"
        return self._error

    def alarms(self) -> list[str]:
        """Name what needs attention: files that cannot be moved or removed for a minute. For any thread."""
        began = [since for since in (self._errors_since, self._waits_since) if since is not None]
        long = bool(began) and self._clock() - min(began) >= ALARM_AFTER_SECONDS
        return [f"camera_{self._camera.name}_files_cannot_be_disposed_of"] if long else []

    def _dispose_of(self, strip: Strip, digest: str) -> Disposal:
        self._waits_since = self._clock()
        try:
            return dispose(self._camera.folder, strip, digest, self._camera.done_folder)
        finally:
            self._waits_since = None

    def _dispose(self) -> None:
        camera, strips = self._camera, self._ledger.strips
        due = strips.due_for_disposal(camera.name, self._disposed_up_to, BATCH)
        if not due:
            self._disposed_up_to = 0
            if not self._round_has_errors:
                self._errors_since, self._error = None, ""
            self._round_has_errors = False
            return
        begun_before = strips.begin_disposal([strip.row for strip, _ in due])
        for strip, digest in due:
            if self._ended:
                return
            if strip.folder not in ("", str(self._camera.folder)):  # nothing allows a change there any more
                self._record(strip, Disposal("", f"{strip.folder} is not the camera's folder any more"))
                continue
            try:
                disposal = self._dispose_of(strip, digest)
            except OSError as error:
                self._failed(strip, error)
                return
            if disposal.outcome == "gone":
                if self._folder_proves_nothing():
                    self._dispose_at = self._clock() + PAUSE_SECONDS
                    return
                if strip.row in begun_before:  # by the agent itself, before it could say so
                    disposal = Disposal("done")
            self._record(strip, disposal)
        self._disposed_up_to = due[-1][0].row

    def _failed(self, strip: Strip, error: OSError) -> None:
        camera = self._camera
        log.warning("camera %s: cannot %s %s: %s", camera.name, camera.when_done, show_name(strip.path), error)
        if self._errors_since is None:
            self._errors_since = self._clock()
        self._round_has_errors = True
        self._error = f"cannot {camera.when_done} {show_name(strip.path)}: {error.strerror or error}"
        self._dispose_at = self._clock() + PAUSE_SECONDS
        self._disposed_up_to = strip.row

    def _record(self, strip: Strip, disposal: Disposal) -> None:
        if disposal.outcome != "done":
            why = f" ({disposal.why})" if disposal.why else ""
            log.warning(
                "camera %s: %s is not touched: %s%s",
                self._camera.name, show_name(strip.path), disposal.outcome or "stays", why,
            )  # fmt: skip
        self._ledger.strips.disposed(strip.row, disposal.outcome, disposal.why)

    def _look_at_staying(self) -> None:
        """Look again at some of the files that nothing may touch: people may have taken them away."""
        batch = self._ledger.strips.staying(self._camera.name, self._staying_up_to, BATCH)
        self._staying_up_to = batch[-1][0].row if batch else 0
        if not batch:
            self._staying_at = self._clock() + STAYING_EVERY_SECONDS
        for strip, digest in batch:
            if self._ended:
                return
            try:
                disposal = self._dispose_of(strip, digest)
            except OSError as error:
                log.info("camera %s: %s still stays: %s", self._camera.name, show_name(strip.path), error)
                continue
            if disposal.outcome != "stays" and not (disposal.outcome == "gone" and self._folder_proves_nothing()):
                self._record(strip, disposal)

    def forget_old_rows(self) -> int:
        """Look through a batch of old rows and forget those whose files are gone; return how many that were."""
        now = self._ledger.purge.age_now(self._wall_ms(), self._clock())
        before = int(now - self.keep_days * DAY_MS)
        if not now or self._folder_is_away(self._camera.name):
            self._rows_at = self._clock() + PAUSE_SECONDS
            return 0
        if self._camera.when_done == "keep" and self._folder_proves_nothing():
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
            return 0
        batch = self._ledger.purge.old_strips(self._camera.name, before, self._looked_up_to, BATCH)
        gone = [strip.row for strip in batch if self._file_is_gone(strip)]
        self._ledger.purge.forget(gone)
        self._looked_up_to = batch[-1].row if batch else 0
        if not batch:
            self._rows_at = self._clock() + ROWS_EVERY_SECONDS
        return len(gone)

    def _folder_proves_nothing(self) -> bool:
        """Say whether the folder is empty: then it may be the place of a share that is not mounted."""
        try:
            with os.scandir(self._camera.folder) as entries:
                return next(entries, None) is None
        except OSError:
            return True

    def _file_is_gone(self, strip: Strip) -> bool:
        """Look whether a scan could find the strip again, maybe with other times."""
        try:
            with ExitStack() as stack:
                folders, name = split_path(strip.path)
                root = os.open(self._camera.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, root)
                folder = open_folder_below(stack, root, folders, strip.path)
                found = FileIdentity.of(os.stat(name, dir_fd=folder, follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except (OSError, Reject):
            return False
        if found.same_content_expected(strip.identity):
            return False
        return found.size_bytes != strip.identity.size_bytes or self._ledger.strips.has_newer_version(strip)
