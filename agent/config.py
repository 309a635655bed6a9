"""The configuration's models: every key, its default and its limits. Reading the file is `config_file.py`.

The docstring below a key becomes its text in docs/configuration.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Seconds = Annotated[float, Field(ge=0, le=86400 * 365)]
WhatToSave = Literal["all", "anomalous", "none"]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, validate_default=True
    )


class _ReadableSection(_Section):
    """YAML and environment give paths as text and whole numbers where floats are meant; nothing else is converted."""

    @model_validator(mode="before")
    @classmethod
    def _paths_from_text(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        paths = {name for name, field in cls.model_fields.items() if "Path" in str(field.annotation)}
        return {key: _to_path(value) if key in paths else value for key, value in values.items()}


def _to_path(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_path(item) for item in value]
    return Path(value) if isinstance(value, str) and value else value


class AgentSection(_ReadableSection):
    """The box."""

    name: Name = "insp1"
    """Name of this box; unique on the broker. Part of the topics and the MQTT client id."""
    state_folder: Path = Path("/var/lib/strip-agent")
    """The agent's own folder: ledger, store of models, lock, control socket."""


class Camera(_ReadableSection):
    """One camera and the folder it writes to."""

    name: Name
    """Name of the camera; part of topics, of heatmap paths and of every strip's identity."""
    folder: Path
    """Folder the camera writes to, with all folders below it. It may appear later, vanish and come back."""
    patterns: Annotated[list[str], Field(min_length=1)] = ["**/*.tif", "**/*.tiff"]
    """Which files are strips, relative to the folder; `**` is any number of folders. Case does not matter."""
    slot: Name = "default"
    """The model slot that scores this camera."""
    threshold: float | None = None
    """Overrides `scoring.threshold` for this camera."""
    part_id_pattern: str | None = None
    """Regular expression with one group, searched in the file name; what it finds is published as `part_id`."""
    settle_seconds: Seconds = 0.5
    """A file is complete when two looks this far apart show the same size and modification time."""
    rescan_seconds: Annotated[float, Field(ge=0.1, le=86400)] = 30.0
    """The folder is read in full this often, whatever the file events said."""
    watch: Literal["auto", "events", "poll"] = "auto"
    """`auto` uses file events where the file system has them and only rescans where not (network shares)."""
    backlog: Literal["all", "none"] | Annotated[int, Field(ge=0)] = "all"
    """Strips that are there at the camera's first scan: score all, none, or this number of the newest."""
    when_done: Literal["keep", "move", "delete"] = "keep"
    """What happens to the camera's file once the broker has acknowledged its result."""
    done_folder: Path | None = None
    """Where `when_done: move` puts the files."""

    @field_validator("part_id_pattern")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"needs exactly one group in parentheses, it has {groups}")
        return pattern

    @model_validator(mode="after")
    def _done_folder_goes_with_move(self) -> Camera:
        if (self.when_done == "move") != (self.done_folder is not None):
            raise ValueError("done_folder and when_done: move go together: set both or neither")
        return self


class Trial(_Section):
    """Limits while a pushed model is tried."""

    seconds: Annotated[float, Field(gt=0)] = 120.0
    """A trial that takes longer refuses the model."""
    memory_mib: Annotated[int, Field(ge=64)] = 4096
    """Memory that a worker may allocate."""


class Probation(_Section):
    """What a new model is watched for during its first strips."""

    strips: Annotated[int, Field(ge=0)] = 50
    """Number of strips; 0 switches probation off."""
    max_faults: Annotated[int, Field(ge=0)] = 1
    """Faults of the model (crash, time-out, output that is not finite or out of range) that are still tolerated."""
    max_latency_ratio: Annotated[float, Field(gt=1)] | None = 5.0
    """Median inference time against the previous model's."""
    max_anomalous_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of anomalous strips that is still believed; null: any."""


class ModelsSection(_ReadableSection):
    """Where models come from and what they must prove."""

    inbox: Path = Path("/srv/models/inbox")
    """Folder that models are pushed to; for slots other than default a folder of that name inside it."""
    settle_seconds: Seconds = 1.0
    """A pushed file is complete when two looks this far apart agree."""
    unlabelled_input_scale: Literal["unit", "gray8"] = "unit"
    """Input scale of a model file without metadata: `unit` 0..1, `gray8` 0..255."""
    require_signature: bool = False
    """Take only models with a manifest signed by one of the trusted keys."""
    trusted_keys: list[Path] = []
    """Files with ed25519 public keys."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Number of accepted models to keep for each slot, the active and the previous one among them."""
    max_mib: Annotated[int, Field(ge=1)] = 1024
    """Larger model files are refused unread."""
    trial: Trial = Trial()
    switch: Literal["side_by_side", "stop_first"] = "side_by_side"
    """`stop_first` needs memory for one model only; strips wait during a trial."""
    probation: Probation = Probation()


class InferenceSection(_Section):
    """Running the model."""

    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    """Threads of one worker; `auto`: the cores this service may use."""
    deadline_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A worker that takes longer over one strip is killed and replaced."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """A strip that kills or hangs the worker this often is published as invalid."""


class ChecksSection(_Section):
    """What a strip must be like to be judged."""

    incomplete_seconds: Seconds = 60.0
    """How long a file may stay unreadable or half written."""
    max_file_mib: Annotated[int, Field(ge=1, le=2048)] = 64
    """Larger files are refused unread."""
    out_of_range: Literal["rescale", "clip", "reject"] = "rescale"
    """Grey levels below 0 or above full scale: stretch the strip to full scale, clip them, or refuse it."""
    full_scale: Annotated[float, Field(gt=0)] | None = None
    """The grey level that is white, for example 4095 or 65535; null: 255."""
    min_contrast: Annotated[float, Field(ge=0)] = 2.0
    """Smallest standard deviation of each used channel, in grey levels of 0..255."""
    zero_rows: Literal["reject", "accept"] = "reject"
    """All-zero rows at the end of channels 0 to 2 are a file that was not written to its end."""


class ScoringSection(_Section):
    """How a heatmap becomes a score and a verdict."""

    method: Literal["max", "top_k_mean", "area"] = "max"
    """Maximum; mean of the `top_k` highest pixels; number of pixels at or above `pixel_threshold`."""
    top_k: Annotated[int, Field(ge=1)] = 100
    """Number of pixels for `top_k_mean`."""
    threshold: float | None = None
    """A score at or above it is anomalous; null: the model's own, else 0.5. `area` needs one, in pixels."""
    pixel_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A pixel at or above it belongs to a defect region."""
    min_area_px: Annotated[int, Field(ge=1)] = 1
    """Smaller regions do not count in `area` and `defect_count`; they never change `max`."""


class HeatmapsSection(_ReadableSection):
    """Which heatmaps are written and how long they are kept."""

    folder: Path | None = None
    """null: `heatmaps` in the state folder."""
    png: WhatToSave = "all"
    """Pictures for people."""
    tiff: WhatToSave = "anomalous"
    """Lossless float32 heatmaps."""
    keep_days: Annotated[float, Field(gt=0)] | None = 30.0
    """Heatmaps of acknowledged results are removed when older; null: never."""
    keep_gib: Annotated[float, Field(gt=0)] | None = 20.0
    """The oldest are removed above this total; null: no limit."""
    min_free_gib: Annotated[float, Field(ge=0)] = 2.0
    """Below this much free space no heatmaps are written; scoring goes on."""
    url_template: str | None = None
    r"""Makes `preview_url`; knows {path} and {path_windows}."""

    @field_validator("url_template")
    @classmethod
    def _known_fields(cls, template: str | None) -> str | None:
        if template is not None:
            rest = template.replace("{path}", "").replace("{path_windows}", "")
            if "{" in rest or "}" in rest or rest == template:
                raise ValueError("must contain {path} or {path_windows} and no other braces")
        return template


class Tls(_ReadableSection):
    """Encryption to the broker."""

    enabled: bool = False
    """Use TLS 1.2 or newer; the broker's name is always checked."""
    ca_file: Path | None = None
    """Certificate authority; null: the system's."""
    cert_file: Path | None = None
    """Client certificate."""
    key_file: Path | None = None
    """Key of the client certificate."""

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Tls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: set both or neither")
        return self


class MqttSection(_ReadableSection):
    """The broker."""

    host: Annotated[str, Field(min_length=1)] = "localhost"
    """Host name or address of the broker."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """TCP port; with TLS usually 8883."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """`auto` tries MQTT 5 and falls back where the broker does not know it."""
    client_id: str | None = None
    """null: the agent's name. Two boxes with one client id throw each other out."""
    keepalive_seconds: Annotated[int, Field(ge=5, le=3600)] = 15
    """A dead link is noticed after about one and a half times this."""
    username: str | None = None
    """User at the broker."""
    password_file: Path | None = None
    """File with the password; a bare name is looked up among systemd's credentials first."""
    tls: Tls = Tls()
    base_topic: Annotated[str, Field(pattern=r"^[^+#\x00-\x1f/]+(/[^+#\x00-\x1f/]+)*$", max_length=200)] | None = None
    """First part of every topic; null: strip-agent/<agent.name>."""

    @field_validator("protocol", mode="before")
    @classmethod
    def _number_is_fine(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class OutboxSection(_Section):
    """Results that the broker has not acknowledged."""

    max_messages: Annotated[int, Field(ge=10)] = 1_000_000
    """Above it the oldest is dropped, named in the audit."""


class LedgerSection(_Section):
    """The ledger."""

    keep_days: Annotated[float, Field(gt=0)] = 90.0
    """Acknowledged strips whose file is gone are forgotten after this; daily totals stay."""


class LogSection(_Section):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines that are written."""
    format: Literal["auto", "human", "json", "journal"] = "auto"
    """`auto`: journal under systemd, else human."""


class Config(_Section):
    """The whole configuration file."""

    agent: AgentSection = AgentSection()
    cameras: Annotated[list[Camera], Field(min_length=1)]
    models: ModelsSection = ModelsSection()
    inference: InferenceSection = InferenceSection()
    checks: ChecksSection = ChecksSection()
    scoring: ScoringSection = ScoringSection()
    heatmaps: HeatmapsSection = HeatmapsSection()
    mqtt: MqttSection = MqttSection()
    outbox: OutboxSection = OutboxSection()
    ledger: LedgerSection = LedgerSection()
    log: LogSection = LogSection()

    @field_validator("cameras")
    @classmethod
    def _names_differ(cls, cameras: list[Camera]) -> list[Camera]:
        names = [camera.name.lower() for camera in cameras]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two cameras share a name: {', '.join(twice)}")
        return cameras

    @model_validator(mode="after")
    def _area_needs_a_threshold(self) -> Config:
        if self.scoring.method == "area" and self.scoring.threshold is None:
            missing = [camera.name for camera in self.cameras if camera.threshold is None]
            if missing:
                raise ValueError(f"scoring.method: area needs a threshold in pixels (cameras {', '.join(missing)})")
        return self

    @property
    def heatmap_folder(self) -> Path:
        """Where heatmaps go."""
        return self.heatmaps.folder or self.agent.state_folder / "heatmaps"

    @property
    def base_topic(self) -> str:
        """First part of every topic."""
        return self.mqtt.base_topic or f"strip-agent/{self.agent.name}"

    @property
    def slots(self) -> list[str]:
        """Names of the slots that cameras use, in the order of the cameras."""
        return list(dict.fromkeys(camera.slot for camera in self.cameras))
