"""The configuration while the service runs: what its file says now, and the reload, which takes it on or does not.

All or nothing: a file that is no good, or that changes anything that only a start applies, changes nothing at all.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

from agent import sdnotify
from agent.clock import now_ms
from agent.control.commands import carry_out
from agent.control.context import CommandError, Who

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.config.difference import Difference
    from agent.config.on_disk import ConfigFile, OnDisk
    from agent.control.context import Context

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
READ_ANYWAY_SECONDS = 60.0  # what is wrong with a folder or a key heals without a change of the file
BY_SIGNAL = "SIGHUP"


class Reloader:
    """`asked` may be set in a signal's handler. One thread calls `step`, `reload` is for commands, the rest for any."""

    def __init__(
        self,
        file: ConfigFile,
        context: Context,
        apply: Callable[[Config, Difference], None],
        asked: threading.Event,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`apply` takes on another configuration; what it raises means that it has not."""
        self._file = file
        self._context = context
        self._apply = apply
        self._asked = asked
        self._clock = clock
        self._lock = threading.Lock()  # held while the file is read and compared
        self._found: OnDisk | None = None
        self._look_at = self._read_at = float("-inf")  # monotonic: the next look, the last reading
        self._reloaded_ms = 0

    def step(self, timeout_seconds: float) -> None:
        """Wait to be asked by a signal; reload then, or look whether the file says something else by now."""
        if self._asked.wait(timeout_seconds):
            self._asked.clear()
            carry_out(self._context, "reload", {}, Who(BY_SIGNAL))
            return
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        with self._lock:
            if self._file.has_changed() or now - self._read_at > READ_ANYWAY_SECONDS:
                self._read()

    def reload(self) -> dict[str, Any]:
        """Read the file and take it on as a whole. Raises CommandError with everything that is in the way."""
        sdnotify.reloading()
        try:
            with self._lock:
                found = self._read()
                self._apply(_usable(found), found.difference)
                self._reloaded_ms = now_ms()
                changes = [*map(str, found.difference.changes)]
                self._read()
        except CommandError as refused:
            log.error("reload: %s", refused)  # noqa: TRY400 - the stack tells nothing
            sdnotify.reloaded(f"reload: {refused}")
            raise
        except BaseException:
            sdnotify.reloaded("reload: an error, nothing is changed")
            raise
        for change in changes:
            log.warning("reload: %s", change)
        said = "; ".join(changes) or "nothing is different"
        log.info("reloaded: %s", said)
        sdnotify.reloaded(f"reloaded: {said}")
        return {"changes": changes}

    def facts(self) -> dict[str, Any]:
        """Tell how the file compares with what runs."""
        found = self._found
        return {
            "file": str(self._file.path),
            "state": found.state if found is not None else "same",
            "problems": list(found.problems) if found is not None else [],
            "changes": [*map(str, found.difference.changes)] if found is not None else [],
            "needs_restart": [*map(str, found.difference.needs_restart)] if found is not None else [],
            "reloaded_ms": self._reloaded_ms,
        }

    def alarms(self) -> list[str]:
        """Name what needs attention: a file that is no good, or that says something else than what runs."""
        state = self._found.state if self._found is not None else "same"
        return {"invalid": ["configuration_invalid"], "differs": ["configuration_not_applied"]}.get(state, [])

    def _read(self) -> OnDisk:
        self._read_at = self._clock()
        self._found = self._file.read(self._context.config)
        return self._found


def _usable(found: OnDisk) -> Config:
    """Return the configuration; raise CommandError where it cannot be taken on as a whole."""
    if found.config is None:
        raise CommandError("nothing is changed: " + "; ".join(found.problems))
    if found.difference.needs_restart:
        named = "; ".join(map(str, found.difference.needs_restart))
        raise CommandError(f"nothing is changed, as this needs a restart: {named}")
    return found.config
