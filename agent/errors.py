"""Kinds of errors, reason codes, and the one function that decides what an error means for a strip.

Code that touches the outside raises one of three errors:

    Retry(reason)     not now; the same thing may work later
    Reject(reason)    never; the strip or the model is refused with this reason
    Fatal(exit_code)  the process cannot go on

`decide` turns them into what happens to the strip. It is a pure function and is tested as a table.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes of every command; systemd's unit knows 78 as "do not restart me"."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INTERNAL = 70
    CONFIG = 78


class Reason(StrEnum):
    """Why something was refused. Each one is explained in docs/reasons.md, which a test checks."""

    # The strip's file
    FILE_VANISHED = "file_vanished"
    FILE_REPLACED = "file_replaced"
    SYMLINK = "symlink"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    EMPTY_FILE = "empty_file"
    INCOMPLETE = "incomplete"
    # Its TIFF structure
    NOT_A_TIFF = "not_a_tiff"
    DAMAGED_TIFF = "damaged_tiff"
    UNSUPPORTED_CODEC = "unsupported_codec"
    UNSUPPORTED_DTYPE = "unsupported_dtype"
    WRONG_SHAPE = "wrong_shape"
    DECOMPRESSION_BOMB = "decompression_bomb"
    # Its pixels
    NON_FINITE = "non_finite"
    UNIT_RANGE_SUSPECTED = "unit_range_suspected"
    LOW_CONTRAST = "low_contrast"
    EXPOSURE_DIFFERS = "exposure_differs"
    TARGET_EQUALS_REFERENCE = "target_equals_reference"
    OUT_OF_RANGE = "out_of_range"
    # Judging it
    WORKER_CRASHED = "worker_crashed"
    WORKER_TIMEOUT = "worker_timeout"
    INFERENCE_FAILED = "inference_failed"
    OUTPUT_WRONG_SHAPE = "output_wrong_shape"
    OUTPUT_NON_FINITE = "output_non_finite"
    OUTPUT_OUT_OF_RANGE = "output_out_of_range"
    OUTPUT_OTHER_CHANNELS = "output_other_channels"
    IGNORED_PIXELS_MISFIT = "ignored_pixels_misfit"
    # A model file; names, axes, dtypes, shapes and metadata are examined in this order
    FILE_NAME = "file_name"
    MODEL_UNREADABLE = "model_unreadable"
    MODEL_CRASHED = "model_crashed"
    MODEL_TRIAL_TIMEOUT = "model_trial_timeout"
    MODEL_NAMES = "model_names"
    MODEL_AXES = "model_axes"
    MODEL_DTYPES = "model_dtypes"
    MODEL_SHAPES = "model_shapes"
    MODEL_METADATA = "model_metadata"
    MODEL_TOO_LARGE = "model_too_large"
    MODEL_NEEDS_TOO_MUCH_MEMORY = "model_needs_too_much_memory"
    MODEL_TOO_SLOW = "model_too_slow"
    HARD_LINK = "hard_link"
    MODEL_BLIND = "model_blind"
    INPUT_SCALE_DOUBTFUL = "input_scale_doubtful"
    VERSION_TOO_LOW = "version_too_low"
    VERSION_IMPLAUSIBLE = "version_implausible"
    SEEN_BEFORE = "seen_before"
    GOLDEN_DAMAGED = "golden_damaged"
    GOLDEN_MISMATCH = "golden_mismatch"
    # An accepted model that turned bad
    LOST_WORKERS = "lost_workers"
    PROBATION_FAULTS = "probation_faults"
    PROBATION_LATENCY = "probation_latency"
    PROBATION_ANOMALOUS_RATE = "probation_anomalous_rate"
    STORE_DAMAGED = "store_damaged"
    OPERATOR = "operator"
    # Its manifest
    MANIFEST_MISSING = "manifest_missing"
    MODEL_MISSING = "model_missing"
    MANIFEST_WRONG_SLOT = "manifest_wrong_slot"
    MANIFEST_CONTRADICTED = "manifest_contradicted"
    MANIFEST_MALFORMED = "manifest_malformed"
    DIGEST_MISMATCH = "digest_mismatch"
    SIGNATURE_MISSING = "signature_missing"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE_INVALID = "signature_invalid"
    # The box
    NO_SPACE = "no_space"
    NO_MEMORY = "no_memory"
    KILLED = "killed"
    WORKER_ENDED = "worker_ended"
    BOX_BUSY = "box_busy"
    IO_ERROR = "io_error"


class Blame(Enum):
    """Whose fault a `Retry` is; it decides how long and how often it is tried again."""

    FILE = "file"  # half written or locked: until checks.incomplete_seconds
    BOX = "box"  # no space, no memory, I/O: for ever, never counted as an attempt
    WORKER = "worker"  # crashed or hung on this strip: inference.max_attempts


class AgentError(Exception):
    """Base of the three kinds of errors below."""


class Retry(AgentError):
    """Not now; the same thing may work later."""

    def __init__(self, reason: Reason, detail: str, blame: Blame) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.blame = blame

    @classmethod
    def of_box(cls, error: OSError, what: str) -> Retry:
        """Make one out of an error of the operating system that is nobody's fault but the box's."""
        reasons = {errno.ENOSPC: Reason.NO_SPACE, errno.EDQUOT: Reason.NO_SPACE, errno.ENOMEM: Reason.NO_MEMORY}
        return cls(reasons.get(error.errno or 0, Reason.IO_ERROR), f"{what}: {error}", Blame.BOX)


class Reject(AgentError):
    """Never; refused for this reason. `model_fault` says that the model, not the input, is to blame."""

    def __init__(self, reason: Reason, detail: str, *, model_fault: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.model_fault = model_fault


class Fatal(AgentError):
    """The process cannot go on; the command line exits with this code."""

    def __init__(self, exit_code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Action(Enum):
    """What happens to a strip after an error."""

    REJECT = "reject"  # publish it as invalid
    WAIT = "wait"  # look at it again later; nothing is counted
    REQUEUE = "requeue"  # one attempt is gone; again, alone, at the end of the queue
    HOLD = "hold"  # the model or the box is to blame: the strip stays pending, the slot stops


@dataclass(frozen=True, slots=True)
class Decision:
    """What `decide` found: the action, and the reason that will be published or shown."""

    action: Action
    reason: Reason
    detail: str


LOST_STRIPS_THAT_BLAME_THE_MODEL = 3


def decide(
    error: Retry | Reject,
    *,
    attempts: int,
    max_attempts: int,
    waited_seconds: float,
    incomplete_seconds: float,
    different_strips_lost_in_a_row: int,
) -> Decision:
    """Decide what happens to a strip after `error`.

    `attempts` counts this one too when the worker is to blame, and so does `different_strips_lost_in_a_row`.
    `waited_seconds` is how long this strip has been waiting for its file to become readable.
    """
    if isinstance(error, Reject):
        return Decision(Action.REJECT, error.reason, error.detail)
    if error.blame is Blame.BOX:
        return Decision(Action.WAIT, error.reason, error.detail)
    if error.blame is Blame.FILE:
        given_up = waited_seconds >= incomplete_seconds
        return Decision(Action.REJECT if given_up else Action.WAIT, error.reason, error.detail)
    if different_strips_lost_in_a_row >= LOST_STRIPS_THAT_BLAME_THE_MODEL:
        return Decision(Action.HOLD, error.reason, error.detail)
    if attempts >= max_attempts:
        return Decision(Action.REJECT, error.reason, error.detail)
    return Decision(Action.REQUEUE, error.reason, error.detail)
