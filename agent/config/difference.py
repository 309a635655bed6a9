"""What is different between two configurations, and whether a running service can take it on: a pure function.

The documentation of each key asks the same table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import Config

LIVE = frozenset(
    {
        "scoring.threshold",
        "checks.incomplete_seconds",
        "inference.max_attempts",
        "heatmaps.keep_days",
        "heatmaps.keep_gib",
        "heatmaps.url_template",
        "ledger.keep_days",
        "log.level",
        "log.format",
    }
)
"""Keys outside of `cameras` that a reload applies. The others went to workers, the broker or files at the start."""

OF_THE_PAGE = "web."
"""Begins the keys that only `strip-agent web` reads, at its own start: to the service any value of them is the same."""

AT_THE_START = frozenset({"slot", "ignore_pixels", "ignore_mask"})
"""Keys of a camera that only a start applies: what workers hold, and which workers there are."""

WITHOUT_A_LOOK = frozenset({"threshold", "part_id_pattern"})
"""Keys of a camera that do not matter to the watching of its folder."""

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One key with another value: `scoring.threshold`, `cameras.top.threshold`; a whole camera is `cameras.top`.

    `before` and `after` are JSON, "" where a camera was or is not there.
    """

    key: str
    before: str
    after: str
    live: bool

    def __str__(self) -> str:
        """Write it as one line for people."""
        if not self.before:
            return f"{self.key} is new"
        return f"{self.key}: {self.before} -> {self.after}" if self.after else f"{self.key} is gone"


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that is different. It is applied as a whole, or not at all."""

    changes: tuple[Change, ...] = ()
    added: frozenset[str] = frozenset()
    """Cameras that are new."""
    removed: frozenset[str] = frozenset()
    """Cameras that are gone."""
    watched_anew: frozenset[str] = frozenset()
    """Cameras whose folder has to be watched in another way, or another folder."""

    @property
    def needs_restart(self) -> tuple[Change, ...]:
        """What no reload applies."""
        return tuple(change for change in self.changes if not change.live)


def applied_by_reload(path: tuple[str, ...]) -> bool:
    """Say whether a reload applies a key: ("scoring", "threshold"), ("cameras", "folder")."""
    return path[-1] not in AT_THE_START if path[0] == "cameras" else ".".join(path) in LIVE


def difference(old: Config, new: Config) -> Difference:
    """Compare what runs with what is wanted. In which order the cameras stand makes no difference."""
    before, after = ({camera.name: camera.model_dump(mode="json") for camera in one.cameras} for one in (old, new))
    changed = {name: dict(_changed_keys(before[name], after[name])) for name in before.keys() & after.keys()}
    slots = set(old.slots)
    changes = [*_outside_of_cameras(old, new)]
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            camera = after[name]
            changes.append(Change(f"cameras.{name}", "", _shown(camera["folder"]), live=True))
            changes += _only_at_a_start(name, camera, slots)
        elif name not in after:
            live = before[name]["slot"] in new.slots  # else the slot's worker would be left without a camera
            changes.append(Change(f"cameras.{name}", _shown(before[name]["folder"]), "", live=live))
        else:
            changes += (
                Change(f"cameras.{name}.{key}", *values, live=key not in AT_THE_START)
                for key, values in changed[name].items()
            )
    return Difference(
        tuple(changes),
        added=frozenset(after.keys() - before.keys()),
        removed=frozenset(before.keys() - after.keys()),
        watched_anew=frozenset(name for name, keys in changed.items() if keys.keys() - WITHOUT_A_LOOK),
    )


def _only_at_a_start(name: str, camera: Mapping[str, Any], slots: set[str]) -> Iterator[Change]:
    """Yield what keeps a new camera from being added to a running service."""
    if camera["slot"] not in slots:
        yield Change(f"cameras.{name}.slot", "null", _shown(camera["slot"]), live=False)
    for key in ("ignore_pixels", "ignore_mask"):
        if camera[key] is not None:
            yield Change(f"cameras.{name}.{key}", "null", _shown(camera[key]), live=False)


def _outside_of_cameras(old: Config, new: Config) -> Iterator[Change]:
    sections = (config.model_dump(mode="json", exclude={"cameras"}) for config in (old, new))
    for key, values in _changed_keys(*sections):
        yield Change(key, *values, live=key in LIVE or key.startswith(OF_THE_PAGE))


def _changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (dotted key, (value before, value after)) for each value that is another one."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from ((f"{key}.{rest}", values) for rest, values in _changed_keys(before, after))
        elif before != after:
            yield key, (_shown(before), _shown(after))


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
