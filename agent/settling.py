"""When a file has stopped changing, and which old ones the backlog rule skips. Nothing but logic.

`agent/watching/` looks at the files and brings what it saw, and the time, here. Which names are strips: `names.py`.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.names import AgeKey
    from agent.records import FileIdentity


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that was seen and has not settled yet."""

    identity: FileIdentity
    due: float  # monotonic seconds: a look at or after it that shows no change settles the file
    backlog: bool = False  # found by the first scan of this run, unchanged since
    skip: bool = False  # the backlog rule says not to score it
    hinted: bool = False  # a file event named it


class Settling:
    """The candidates of one camera. A file has settled when two looks, `settle_seconds` apart, agree.

    Every look is brought to `look`, whatever caused it. Backlog and live files stand in two queues; as the time to
    settle is one for all, the order of arrival is the order in which they fall due.
    """

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._live: dict[str, Candidate] = {}
        self._backlog: dict[str, Candidate] = {}
        self.vanished = 0  # candidates that were gone before they settled

    def __len__(self) -> int:
        return len(self._live) + len(self._backlog)

    def __contains__(self, path: str) -> bool:
        return path in self._live or path in self._backlog

    @property
    def backlog_waiting(self) -> int:
        """Number of candidates from the first scan."""
        return len(self._backlog)

    def look(
        self,
        path: str,
        seen: FileIdentity | None,
        now: float,
        *,
        backlog: bool = False,
        skip: bool = False,
        hinted: bool = False,
    ) -> Candidate | None:
        """Take in one look at `path` that ended at `now`; return the candidate if it has settled.

        `seen` is None when the file is gone. `backlog` and `skip` count only for a path that is no candidate yet.
        A change, or an event for a backlog file, starts the wait again and makes the file a live one.
        A settled candidate stays until `forget`, so that nothing is lost when handing it out fails.
        """
        candidate = self._live.get(path) or self._backlog.get(path)
        if seen is None:
            if candidate is not None:
                self.forget(path)
                self.vanished += 1
            return None
        if candidate is None:
            queue = self._backlog if backlog else self._live
            queue[path] = Candidate(seen, now + self._settle_seconds, backlog, skip, hinted)
            return None
        hinted = hinted or candidate.hinted
        if not seen.same_content_expected(candidate.identity) or (hinted and candidate.backlog):
            self.forget(path)
            self._live[path] = Candidate(seen, now + self._settle_seconds, hinted=hinted)
            return None
        candidate = replace(candidate, identity=seen, hinted=hinted)
        (self._backlog if candidate.backlog else self._live)[path] = candidate
        return candidate if now >= candidate.due else None

    def due(self, now: float, limit: int) -> list[str]:
        """Up to `limit` paths whose second look is due; live files come first."""
        paths: list[str] = []
        for queue in (self._live, self._backlog):
            for path, candidate in queue.items():
                if candidate.due > now or len(paths) >= limit:
                    break
                paths.append(path)
        return paths

    def next_due(self) -> float:
        """When the next second look is due, monotonic seconds; infinite without candidates."""
        heads = [next(iter(queue.values())).due for queue in (self._live, self._backlog) if queue]
        return min(heads, default=math.inf)

    def forget(self, path: str) -> Candidate | None:
        """Drop a candidate and return it: it was handed out, it is finished, or it cannot be looked at."""
        return self._live.pop(path, None) or self._backlog.pop(path, None)


class BacklogCutoff:
    """Decides which files of the first scan are skipped: all but the `newest` ones. Remembers only those."""

    def __init__(self, newest: int) -> None:
        self._newest = newest
        self._keys: list[AgeKey] = []

    def count(self, keys: Iterable[AgeKey]) -> None:
        """Take in files of the first scan, in any order."""
        for key in keys:
            if len(self._keys) < self._newest:
                heapq.heappush(self._keys, key)
            elif self._keys and key > self._keys[0]:
                heapq.heapreplace(self._keys, key)

    def skips(self, key: AgeKey) -> bool:
        """Whether a file is older than all of the newest; with fewer files than that none is."""
        return len(self._keys) == self._newest and not (self._keys and key >= self._keys[0])
