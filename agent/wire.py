"""What supervisor and worker say to each other: one JSON object per line over a socket pair.

    supervisor -> worker    Setup, then any number of Job
    worker -> supervisor    Opening, then Loaded or Refused, then for each Job, in order:
                            Reading while its file comes slowly, Judging once it has all of it, Writing when only
                            the heatmaps are left to be written, Judged or Failed

What the worker says of a file that it reads ahead comes before the answer to the strip that it is at. Pixels never
travel. JSON is written with ASCII escapes, so that file names of any bytes pass unharmed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from agent.config import ChecksSection, HeatmapsSection, ScoringSection, ignored
from agent.config.ignored import IgnoreFiles
from agent.contract.threshold import Source  # noqa: TC001 - `decode` reads the annotations
from agent.records import Judgement, Strip  # noqa: TC001 - the same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.config import Config

MAX_LINE_BYTES = 1 << 20
HEATMAP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a worker needs to know for its whole life. Folders and files are absolute paths."""

    model_file: str
    model_sha256: str
    lock_file: str
    heatmap_folder: str
    role: Literal["candidate", "worker", "shadow"]  # all but a worker are the first to go when memory runs out
    threads: int | None  # None: the cores this process may use
    memory_mib: int | None
    unlabelled_input_scale: str
    checks: dict[str, Any]
    scoring: dict[str, Any]
    heatmaps: dict[str, Any]
    heatmap_seconds: float  # no strip waits longer for its heatmaps to be written
    ignored: dict[str, Any]  # camera -> IgnoreFiles, the agent's own copies
    provider: str = "cpu"  # what is to compute: auto, or the name of one
    measures: bool = False  # each strip is measured for drift

    @classmethod
    def of(cls, config: Config, model_file: Path, sha256: str, role: Literal["candidate", "worker", "shadow"]) -> Setup:
        """Take everything else out of the configuration. A shadow gets one thread and writes no heatmaps."""
        is_shadow = role == "shadow"
        threads = None if config.inference.threads == "auto" else config.inference.threads
        return cls(
            model_file=str(model_file),
            model_sha256=sha256,
            lock_file=str(config.agent.state_folder / "workers.lock"),
            heatmap_folder=str(config.heatmap_folder),
            role=role,
            threads=1 if is_shadow else threads,
            provider=config.inference.provider,
            memory_mib=config.models.trial.memory_mib,
            unlabelled_input_scale=config.models.unlabelled_input_scale,
            checks=config.checks.model_dump(),
            scoring=config.scoring.model_dump(),
            heatmaps=config.heatmaps.model_dump(mode="json") | ({"png": "none", "tiff": "none"} if is_shadow else {}),
            heatmap_seconds=min(HEATMAP_SECONDS, config.inference.deadline_seconds),
            ignored={camera: asdict(files) for camera, files in ignored.copies(config).items()},
            measures=config.drift.enabled and not is_shadow,
        )

    @property
    def sections(self) -> tuple[ChecksSection, ScoringSection, HeatmapsSection]:
        """The configuration's sections of the same names."""
        heatmaps = {key: value for key, value in self.heatmaps.items() if key != "folder"}
        return ChecksSection(**self.checks), ScoringSection(**self.scoring), HeatmapsSection(**heatmaps)

    @property
    def ignore_files(self) -> dict[str, IgnoreFiles]:
        """The files of cameras of which some pixels are ignored."""
        return {camera: IgnoreFiles(**files) for camera, files in self.ignored.items()}


@dataclass(frozen=True, slots=True)
class Job:
    """One strip to judge, in its camera's `folder`; `threshold` is in the unit of the score."""

    strip: Strip
    folder: str
    threshold: float
    threshold_source: Source = "default"

    @property
    def strip_id(self) -> str:
        """What its answer names."""
        return self.strip.strip_id


@dataclass(frozen=True, slots=True)
class Opening:
    """The worker is ready to open the model: what goes wrong before is not the model's fault."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is in memory, keeps the contract and has proved itself. Times are milliseconds."""

    labelled: bool
    model_id: str
    version: int
    height: int
    width: int
    golden: Literal["passed", "none"]
    golden_difference: float  # largest of any heatmap pixel, 0..1; 0.0 without a golden strip
    threshold: float | None
    load_ms: float
    run_ms: float  # the fastest of a few runs after the first
    cpu_ms: float  # processor time of the cheapest of them, of all threads together
    input_scale: str = "unit"  # or gray8; of a file that does not state it: what the trial found
    provider: str = "cpu"  # what computes
    provider_refused: str = ""  # why it is not what was asked for, "" where it is
    reference: str = ""  # how the calibration strips look, as the file states it; "" where it does not


@dataclass(frozen=True, slots=True)
class Refused:
    """The model is not to be used. `box_fault`: the box could not try it; the file is not to blame."""

    reason: str
    detail: str
    box_fault: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """A part of the strip's file has come since the last word."""

    strip_id: str


@dataclass(frozen=True, slots=True)
class Judging:
    """The strip's file is in the worker's memory, or cannot be read: from here on the time is the worker's."""

    strip_id: str


@dataclass(frozen=True, slots=True)
class Writing:
    """The strip is judged; its heatmaps are about to be written, within `heatmap_seconds`."""

    strip_id: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A strip has been judged."""

    strip_id: str
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class Failed:
    """A strip could not be judged: a Retry (blame file | box) or a Reject (blame "")."""

    strip_id: str
    reason: str
    detail: str
    blame: str
    model_fault: bool
    digest: str  # sha256 of the file's bytes, "" where it could not be read


Message = Setup | Job | Opening | Loaded | Refused | Reading | Judging | Writing | Judged | Failed
_KINDS = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """Turn a message into its line."""
    return json.dumps({"kind": type(message).__name__} | _fields_of(message), default=_fields_of).encode() + b"\n"


def _fields_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def decode(line: bytes) -> Message:
    """Turn a line into its message; raises ValueError for anything else."""
    try:
        fields = json.loads(line)
        message: Message = _builder(_KINDS[fields.pop("kind")])(fields)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no message of the worker's protocol: {line[:200]!r}") from error
    return message


@cache
def _builder(kind: Any) -> Callable[[Any], Any]:
    """Return what makes a value of the type that a message's field has; it raises ValueError where it is another."""
    if is_dataclass(kind):
        return _record_builder(kind)
    if isinstance(kind, UnionType):
        inner = _builder(get_args(kind)[0])
        may_be_none = NoneType in get_args(kind)
        return lambda value: None if value is None and may_be_none else inner(value)
    if get_origin(kind) is Literal:
        return _checked(kind, lambda value: isinstance(value, str) and value in get_args(kind))
    if kind is float:
        return _checked(kind, lambda value: isinstance(value, int | float) and not isinstance(value, bool))
    if kind is int:
        return _checked(kind, lambda value: isinstance(value, int) and not isinstance(value, bool))
    of = dict if get_origin(kind) is dict else kind
    return _checked(kind, lambda value: isinstance(value, of))


def _record_builder(kind: Any) -> Callable[[Any], Any]:
    builders = {name: _builder(field) for name, field in get_type_hints(kind).items()}

    def build(value: Any) -> Any:
        if not isinstance(value, dict) or value.keys() != builders.keys():
            raise ValueError(f"{kind} has the fields {', '.join(builders)}")
        return kind(**{name: make(value[name]) for name, make in builders.items()})

    return build


def _checked(kind: Any, fits: Callable[[Any], bool]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(f"{value!r} is no {kind}")
        return value

    return check
