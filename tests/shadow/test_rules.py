"""What bounds a shadow, as tables."""

from __future__ import annotations

import pytest

from agent.errors import Reason
from agent.shadow.rules import (
    FIRST_PAUSE_SECONDS,
    FORGIVEN_AFTER,
    LONGEST_PAUSE_SECONDS,
    LONGEST_REST_SECONDS,
    SHARE,
    STRIKES,
    Strikes,
    is_missed,
    needs_memory,
    rest_seconds,
)


@pytest.mark.parametrize("took", [0.001, 0.1, 1.0, 5.0])
def test_a_shadow_uses_its_share_of_a_core_and_no_more(took: float) -> None:
    """Whatever a strip takes, the rest after it makes that the share."""
    assert took / (took + rest_seconds(took)) == pytest.approx(SHARE)


def test_a_rest_has_an_end() -> None:
    """A strip that waited for a processor for very long, or a clock that went back."""
    assert rest_seconds(10_000) == LONGEST_REST_SECONDS
    assert rest_seconds(-1) == 0


def test_strikes_pause_longer_each_time_and_end_it() -> None:
    """Ten seconds, half a minute, out."""
    strikes, pauses = Strikes(), []
    while not strikes.is_out:
        strikes = strikes.with_lost(blames_box=False)
        pauses.append(strikes.pause_seconds)
    assert len(pauses) == STRIKES
    assert pauses == [FIRST_PAUSE_SECONDS * 3**number for number in range(STRIKES)]


def test_what_goes_well_for_long_is_forgiven_and_a_little_is_not() -> None:
    """A model that crashes on every hundredth strip is out all the same."""
    strikes = Strikes().with_lost(blames_box=False)
    for _ in range(FORGIVEN_AFTER - 1):
        strikes = strikes.with_judged()
    assert strikes.number == 1
    assert strikes.with_judged().number == 0
    assert strikes.with_lost(blames_box=False).number == 2


def test_the_box_is_never_held_against_a_shadow() -> None:
    """It only waits longer, up to a limit, and the first strip that goes well ends that."""
    strikes = Strikes()
    for _ in range(50):
        strikes = strikes.with_lost(blames_box=True)
    assert not strikes.is_out
    assert strikes.pause_seconds == LONGEST_PAUSE_SECONDS
    assert strikes.with_judged().pause_seconds == 0


@pytest.mark.parametrize(
    ("reason", "blame", "missed", "memory"),
    [
        (Reason.FILE_VANISHED, "", True, False),
        (Reason.FILE_REPLACED, "", True, False),
        (Reason.INCOMPLETE, "file", True, False),
        (Reason.IO_ERROR, "box", True, False),
        (Reason.NO_MEMORY, "box", False, True),
        (Reason.MODEL_NEEDS_TOO_MUCH_MEMORY, "", False, True),
        (Reason.OUTPUT_NON_FINITE, "", False, False),
        (Reason.EXPOSURE_DIFFERS, "", False, False),
    ],
)
def test_what_an_answer_without_a_judgement_says(reason: Reason, blame: str, *, missed: bool, memory: bool) -> None:
    """A file that is gone is missed, a worker without memory is lost, all else is the model's word: invalid."""
    assert (is_missed(reason, blame), needs_memory(reason)) == (missed, memory)
