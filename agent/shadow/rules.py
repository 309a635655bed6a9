"""What bounds a shadow, and what costs it its place: constants and pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.errors import Reason

SHARE = 0.25  # of one core: after each strip the shadow rests for three times as long as that took
LONGEST_REST_SECONDS = 60.0
DEADLINES = 2.0  # times inference.deadline_seconds: it gets what the others leave of the processor
STRIKES = 3  # lost workers, or models that do not load, until it is switched off
FORGIVEN_AFTER = 200  # strips that went well in a row
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 600.0

_FILE_IS_ANOTHER = frozenset(
    {
        Reason.FILE_VANISHED, Reason.FILE_REPLACED, Reason.SYMLINK, Reason.HARD_LINK, Reason.NOT_A_REGULAR_FILE,
        Reason.UNREADABLE,
    }
)  # fmt: skip
_NEEDS_MEMORY = frozenset({Reason.NO_MEMORY, Reason.MODEL_NEEDS_TOO_MUCH_MEMORY})


@dataclass(frozen=True, slots=True)
class Strikes:
    """What went wrong with a shadow's workers. What was the box's doing only makes the pauses longer."""

    number: int = 0
    box_faults: int = 0  # in a row
    went_well: int = 0  # strips in a row

    @property
    def is_out(self) -> bool:
        """Whether it is to be switched off."""
        return self.number >= STRIKES

    @property
    def pause_seconds(self) -> float:
        """How long no worker is started for it; 0.0 where nothing went wrong."""
        times = self.number + self.box_faults
        return min(FIRST_PAUSE_SECONDS * 3 ** (times - 1), LONGEST_PAUSE_SECONDS) if times else 0.0

    def with_judged(self) -> Strikes:
        """Count a strip that went well."""
        went_well = self.went_well + 1
        return Strikes(0 if went_well >= FORGIVEN_AFTER else self.number, 0, went_well)

    def with_lost(self, *, blames_box: bool) -> Strikes:
        """Count a worker that was lost, or a model that did not load."""
        if blames_box:
            return replace(self, box_faults=self.box_faults + 1)
        return Strikes(self.number + 1)


def rest_seconds(took_seconds: float) -> float:
    """Return how long a shadow rests after a strip that took so long: it uses no more than its share of a core."""
    return min(max(0.0, took_seconds) * (1 / SHARE - 1), LONGEST_REST_SECONDS)


def is_missed(reason: str, blame: str) -> bool:
    """Say whether what a worker could not judge is not there any more, or cannot be read: no word about the model."""
    return reason in _FILE_IS_ANOTHER or (blame != "" and reason not in _NEEDS_MEMORY)


def needs_memory(reason: str) -> bool:
    """Say whether a worker has no memory left: it is replaced, as if it had been lost."""
    return reason in _NEEDS_MEMORY
