"""What supervisor and worker say to each other: one JSON object per line over a socket pair.

    supervisor -> worker    Setup, then any number of Job
    worker -> supervisor    Loaded or Refused, then one Judged or Failed for each Job, in order

Pixels never travel. JSON is written with ASCII escapes, so that file names of any bytes pass unharmed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from agent.config import ChecksSection, HeatmapsSection, ScoringSection
from agent.records import FileIdentity, HeatmapFiles, Judgement, Strip

if TYPE_CHECKING:
    from pathlib import Path

    from agent.config import Config

MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Setup:
    """All that a worker needs to know for its whole life. Folders and files are absolute paths."""

    model_file: str
    model_sha256: str
    lock_file: str
    heatmap_folder: str
    role: Literal["candidate", "worker"]  # a candidate is the first to go when memory runs out
    threads: int | None  # None: the cores this process may use
    memory_mib: int | None
    unlabelled_input_scale: str
    checks: dict[str, Any]
    scoring: dict[str, Any]
    heatmaps: dict[str, Any]

    @classmethod
    def of(cls, config: Config, model_file: Path, sha256: str, role: Literal["candidate", "worker"]) -> Setup:
        """Take everything else out of the configuration."""
        return cls(
            model_file=str(model_file),
            model_sha256=sha256,
            lock_file=str(config.agent.state_folder / "workers.lock"),
            heatmap_folder=str(config.heatmap_folder),
            role=role,
            threads=None if config.inference.threads == "auto" else config.inference.threads,
            memory_mib=config.models.trial.memory_mib,
            unlabelled_input_scale=config.models.unlabelled_input_scale,
            checks=config.checks.model_dump(),
            scoring=config.scoring.model_dump(),
            heatmaps=config.heatmaps.model_dump(mode="json"),
        )

    @property
    def sections(self) -> tuple[ChecksSection, ScoringSection, HeatmapsSection]:
        """The configuration's sections of the same names."""
        heatmaps = {key: value for key, value in self.heatmaps.items() if key != "folder"}
        return ChecksSection(**self.checks), ScoringSection(**self.scoring), HeatmapsSection(**heatmaps)


@dataclass(frozen=True, slots=True)
class Job:
    """One strip to judge. `threshold` None: the model's own, else 0.5."""

    strip_id: str
    camera: str
    folder: str
    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    revision: int
    threshold: float | None

    @classmethod
    def of(cls, strip: Strip, folder: str, threshold: float | None) -> Job:
        """Make one out of a strip of the ledger; `folder` is its camera's."""
        found = strip.identity
        return cls(strip.strip_id, strip.camera, folder, strip.path, found.size_bytes, found.mtime_ns, found.ctime_ns,
                   strip.revision, threshold)  # fmt: skip

    @property
    def identity(self) -> FileIdentity:
        """What the ledger says the file is."""
        return FileIdentity(self.size_bytes, self.mtime_ns, self.ctime_ns)


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


@dataclass(frozen=True, slots=True)
class Refused:
    """The model is not to be used. `box_fault`: the box could not try it; the file is not to blame."""

    reason: str
    detail: str
    box_fault: bool


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


Message = Setup | Job | Loaded | Refused | Judged | Failed
_KINDS = {kind.__name__: kind for kind in (Setup, Job, Loaded, Refused, Failed)}


def encode(message: Message) -> bytes:
    """Turn a message into its line."""
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Turn a line into its message; raises ValueError for anything else."""
    fields = json.loads(line)
    kind = fields.pop("kind")
    try:
        if kind == "Judged":
            judgement = fields["judgement"]
            return Judged(
                fields["strip_id"], Judgement(**judgement | {"heatmaps": HeatmapFiles(**judgement["heatmaps"])})
            )
        message: Message = _KINDS[kind](**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no message of the worker's protocol: {line[:200]!r}") from error
    return message
