"""What an error means for a strip, as a table."""

from __future__ import annotations

import pytest

from agent.errors import Action, Blame, Reason, Reject, Retry, decide

FILE = Retry(Reason.INCOMPLETE, "half", Blame.FILE)
BOX = Retry(Reason.NO_SPACE, "full", Blame.BOX)
WORKER = Retry(Reason.WORKER_CRASHED, "gone", Blame.WORKER)
REJECT = Reject(Reason.NON_FINITE, "NaN")


@pytest.mark.parametrize(
    ("error", "attempts", "waited", "lost_in_a_row", "expected"),
    [
        (REJECT, 0, 0.0, 0, Action.REJECT),
        (FILE, 0, 0.0, 0, Action.WAIT),
        (FILE, 0, 59.9, 0, Action.WAIT),
        (FILE, 0, 60.0, 0, Action.REJECT),
        (BOX, 0, 1e9, 0, Action.WAIT),
        (BOX, 9, 0.0, 9, Action.WAIT),
        (WORKER, 1, 0.0, 1, Action.REQUEUE),
        (WORKER, 2, 0.0, 1, Action.REJECT),
        (WORKER, 2, 0.0, 2, Action.REJECT),
        (WORKER, 1, 0.0, 3, Action.HOLD),
        (WORKER, 2, 0.0, 3, Action.HOLD),
    ],
)
def test_each_error_has_one_consequence(
    error: Retry | Reject, attempts: int, waited: float, lost_in_a_row: int, expected: Action
) -> None:
    """A strip is refused, waits, is tried again or stays pending by this table and nothing else."""
    decision = decide(
        error,
        attempts=attempts,
        max_attempts=2,
        waited_seconds=waited,
        incomplete_seconds=60.0,
        different_strips_lost_in_a_row=lost_in_a_row,
    )
    assert decision.action is expected
    assert decision.reason is error.reason
