"""Watches how long the certificates of `mqtt.tls` hold, so that nobody learns of it from a connection that fails."""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import TYPE_CHECKING

from agent.config.certificate import JUDGED, Validity, read_file, validity_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import Tls

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0  # a renewed file ends the alarm within that time
ALARMS = {"expired": "certificate_expired", "expires_soon": "certificate_expires"}


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Certificates:
    """Looks at the files each minute. `alarms` may be called from any thread."""

    def __init__(
        self,
        tls: Tls,
        *,
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        """`clock` is monotonic seconds."""
        files = {f"mqtt.tls.{name}": getattr(tls, name) for name in JUDGED if tls.enabled}
        self._files: dict[str, Path] = {where: path for where, path in files.items() if path is not None}
        self._clock = clock
        self._utc_now = utc_now
        self._look_at = clock()
        self._known: dict[str, Validity] = {}
        self._said: dict[str, str] = {}

    def step(self) -> float:
        """Read the files when it is time; return for how many seconds it is not.

        Raises OSError where one cannot be read; the connection says so as well.
        """
        if self._clock() < self._look_at:
            return self._look_at - self._clock()
        self._look_at = self._clock() + LOOK_SECONDS
        for where, path in self._files.items():
            try:
                self._known[where] = validity_of(where, read_file(path))
            except ValueError:  # the connection says what is wrong with it
                self._known.pop(where, None)
            self._say(where, path)
        return LOOK_SECONDS

    def alarms(self) -> list[str]:
        """Return `certificate_expired` and `certificate_expires`, whichever is true of any file."""
        now = self._utc_now()
        states = {validity.state(now) for validity in list(self._known.values())}
        return [alarm for state, alarm in ALARMS.items() if state in states]

    def _say(self, where: str, path: Path) -> None:
        """Log once which file it is, and when."""
        known = self._known.get(where)
        state = "holds" if known is None else known.state(self._utc_now())
        if state in ALARMS and known is not None and self._said.get(where) != state:
            verb = "expired" if state == "expired" else "expires"
            log.warning("%s: %s %s on %s; renew it", where, path, verb, known.ends.strftime("%Y-%m-%d %H:%M UTC"))
        self._said[where] = state
