"""The configuration's models: every key, its default and its limits. Reading the file is `config/file.py`.

What a strip is judged by, and what is kept of it, is `config/judging.py`.
The docstring below a key becomes its text in docs/configuration.md.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from agent.config.judging import ChecksSection, DriftSection, HeatmapsSection, ScoringSection
from agent.config.sparkplug import SparkplugSection, broken_sparkplug_rules
from agent.config.types import (
    AbsolutePath,
    BaseTopic,
    ClientId,
    FilePattern,
    Host,
    HostAndPort,
    IgnoredName,
    Name,
    PatternWithOneGroup,
    Seconds,
    SecretPath,
    Section,
)
from agent.config.web import WebSection
from agent.messages import CommandName  # noqa: TC001 - pydantic reads it
from agent.names import DEFAULT_IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator


class AgentSection(Section):
    """The box."""

    name: Name = "insp1"
    """Name of this box; unique on the broker. Part of the topics and the MQTT client id."""
    state_folder: AbsolutePath = Path("/var/lib/strip-agent")
    """The agent's own folder: ledger, store of models, lock, control socket."""
    site: Name | None = None
    """Where the box stands, for `mqtt.base_topic`."""
    area: Name | None = None
    """The same, one step down."""
    line: Name | None = None
    """The same, one step further down."""


class Camera(Section):
    """One camera and the folder it writes to."""

    name: Name
    """Name of the camera; part of topics, of heatmap paths and of every strip's identity."""
    folder: AbsolutePath
    """Folder the camera writes to, and all below it. It may be away. Changed: what waits is judged where it lies."""
    patterns: list[FilePattern] = Field(default=["**/*.tif", "**/*.tiff"], min_length=1)
    """Which files are strips, relative to the folder; `**` is any number of folders. Case does not matter."""
    ignore: list[IgnoredName] = Field(default=list(DEFAULT_IGNORE))
    """What NAS, desktops and copying tools put beside strips: passed over and counted, never judged. A name with `*`,
    at any depth, or a path relative to the folder; with `/` at the end only folders, and nothing in them. Case does not
    matter. A list of your own replaces this one. The first entry stands for every hidden name: `._x.tif`, `.DS_Store`,
    `.@__thumb/`, `.Trash-1000/`, `.stversions/`, `.~tmp~/`, `.rsync-partial/`, `.smbdelete...`, `.fuse_hidden...`,
    `.nfs...`, `.snapshot/`."""
    slot: Name = "default"
    """The model slot that scores this camera."""
    threshold: float | None = None
    """Overrides `scoring.threshold` for this camera."""
    ignore_pixels: AbsolutePath | None = None
    """CSV file with the columns `dead_x`, `dead_y`: 10 x 10 pixels of the heatmap around each are blanked before
    anything is scored. At most 10 % of the strip may be ignored. Read at the start; see ignored-pixels.md."""
    ignore_mask: AbsolutePath | None = None
    """PNG of the strip's size: what is not black is blanked as well."""
    part_id_pattern: PatternWithOneGroup | None = None
    """Regular expression with one group, searched in the file name; what it finds is published as `part_id`. Without a
    repetition inside a repetition: on some names those take for ever, and with them the service."""
    settle_seconds: Seconds = 0.5
    """A file is complete when two looks this far apart show the same size and modification time."""
    rescan_seconds: Annotated[float, Field(ge=0.1, le=86400)] = 30.0
    """The folder is read in full this often, whatever the file events said."""
    watch: Literal["auto", "events", "poll"] = "auto"
    """`auto` uses file events where the file system has them and only rescans where not (network shares)."""
    backlog: Literal["all", "none"] | Annotated[int, Field(ge=0, le=10**9)] = "all"
    """Strips that are there at the camera's first scan: score all, none, or this number of the newest."""
    when_done: Literal["keep", "move", "delete"] = "keep"
    """What happens to the camera's file once the broker has acknowledged its result."""
    done_folder: AbsolutePath | None = None
    """Where `when_done: move` puts the files."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand that moving and the folder to move to come together."""
        if self.when_done == "move" and self.done_folder is None:
            yield "when_done", "`move` needs done_folder as well, the folder to move files to"
        if self.when_done != "move" and self.done_folder is not None:
            yield "done_folder", f"it has no effect with `when_done: {self.when_done}`; write `when_done: move`"


class Trial(Section):
    """Limits while a pushed model is tried."""

    seconds: Annotated[float, Field(gt=0, le=86400)] = 120.0
    """A trial that takes longer refuses the model."""
    memory_mib: Annotated[int, Field(ge=64, le=10**7)] = 4096
    """Memory that a worker may allocate."""


class Probation(Section):
    """What a new model is watched for during its first strips."""

    strips: Annotated[int, Field(ge=0, le=10**9)] = 50
    """Number of strips; 0 switches probation off."""
    max_faults: Annotated[int, Field(ge=0, le=10**9)] = 1
    """Faults of the model (crash, time-out, output that is not finite or out of range) that are still tolerated."""
    max_latency_ratio: Annotated[float, Field(gt=1)] | None = 5.0
    """Median inference time against the previous model's."""
    max_anomalous_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of anomalous strips that is still believed; null: any."""


class ModelsSection(Section):
    """Where models come from and what they must prove."""

    inbox: AbsolutePath = Path("/srv/models/inbox")
    """Folder that models are pushed to; for slots other than default a folder of that name inside it."""
    settle_seconds: Seconds = 1.0
    """A pushed file is complete when two looks this far apart agree."""
    unlabelled_input_scale: Literal["auto", "unit", "gray8"] = "auto"
    """Input scale of a model file without metadata: `unit` 0..1, `gray8` 0..255, `auto`: the trial finds out."""
    require_signature: bool = False
    """Take only models with a manifest signed by one of the trusted keys."""
    trusted_keys: list[AbsolutePath] = Field(default=[])
    """Files with ed25519 public keys."""
    keep: Annotated[int, Field(ge=2, le=1000)] = 3
    """Number of accepted models to keep for each slot, the active and the previous one among them."""
    max_mib: Annotated[int, Field(ge=1, le=10**6)] = 1024
    """Larger model files are refused unread."""
    trial: Trial = Trial()
    switch: Literal["side_by_side", "stop_first"] = "side_by_side"
    """`stop_first` needs memory for one model only; strips wait during a trial."""
    probation: Probation = Probation()

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand a key where signatures are required."""
        if self.require_signature and not self.trusted_keys:
            yield "trusted_keys", "`require_signature: true` needs at least one file with a public key here"


class InferenceSection(Section):
    """Running the model."""

    provider: Literal["auto", "cpu", "openvino", "cuda", "tensorrt"] = "auto"
    """What computes; `auto`: CUDA where the installed onnxruntime has it, else the cpu. In the place of what cannot be
    used, or does not reproduce the golden strip, the cpu computes, with an alarm (install.md)."""
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = "auto"
    """Threads of one worker; `auto`: the cores this service may use."""
    deadline_seconds: Annotated[float, Field(gt=0, le=86400)] = 30.0
    """A worker that takes longer over one strip is killed and replaced."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """A strip that kills or hangs the worker this often is published as invalid."""


class Tls(Section):
    """Encryption to the broker."""

    enabled: bool = False
    """Use TLS 1.2 or newer; the broker's name is always checked."""
    ca_file: AbsolutePath | None = None
    """Certificate authority; null: the system's."""
    cert_file: AbsolutePath | None = None
    """Client certificate."""
    key_file: AbsolutePath | None = None
    """Key of the client certificate."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand the key with the certificate, and no files that would not be used."""
        if self.cert_file is not None and self.key_file is None:
            yield "cert_file", "a client certificate needs key_file as well"
        if self.key_file is not None and self.cert_file is None:
            yield "key_file", "a client key needs cert_file as well"
        for key in ("ca_file", "cert_file", "key_file"):
            if not self.enabled and getattr(self, key) is not None:
                yield key, "it has no effect without TLS; write `enabled: true`"


class MqttSection(Section):
    """The broker."""

    host: Host = "localhost"
    """Host name or address of the broker."""
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    """TCP port; with TLS usually 8883."""
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """`auto` tries MQTT 5 and falls back where the broker does not know it."""
    client_id: ClientId | None = None
    """null: the agent's name. Two boxes with one client id throw each other out."""
    keepalive_seconds: Annotated[int, Field(ge=5, le=3600)] = 15
    """A dead link is noticed after about one and a half times this."""
    username: str | None = None
    """User at the broker."""
    password_file: SecretPath | None = None
    """File with the password; a bare name is looked up among systemd's credentials first."""
    tls: Tls = Tls()
    base_topic: BaseTopic | None = None
    """First part of every topic; knows {agent}, {site}, {area} and {line} of `agent`. null: strip-agent/{agent}."""
    retain: bool = True
    """false: no message is retained, for brokers that keep none; `state/` then reaches only who is subscribed."""
    commands: list[CommandName] = Field(default=[])
    """Commands that may be given over MQTT (docs/commands.md); nothing is subscribed for the others."""

    payload: Literal["json", "sparkplug", "both"] = "json"
    """`sparkplug`: Sparkplug B 3.0 instead of the JSON messages; `both`: each over a connection of its own."""
    sparkplug: SparkplugSection = SparkplugSection()

    @field_validator("protocol", mode="before")
    @classmethod
    def _number_is_fine(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand a user with the password."""
        if self.password_file is not None and self.username is None and self.protocol != "5":
            yield "password_file", "a password needs username as well (MQTT 3.1.1 has no password without a user)"


class OutboxSection(Section):
    """Results that the broker has not acknowledged."""

    max_messages: Annotated[int, Field(ge=10, le=10**9)] = 1_000_000
    """Above it the oldest result is dropped, named in the audit. What is no result has the same limit of its own."""
    hold_until_subscribed: bool = False
    """true: what the broker would take while nobody subscribes to it waits in the outbox. Needs MQTT 5."""


class LedgerSection(Section):
    """The ledger."""

    keep_days: Annotated[float, Field(gt=0, le=36500)] = 90.0
    """Acknowledged strips whose file and heatmaps are gone are forgotten after this; daily totals stay. Those of a
    camera that is not configured any more once it has been away for as long, whether their files are there or not."""


class LogSection(Section):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important lines that are written."""
    format: Literal["auto", "human", "json", "journal"] = "auto"
    """`auto`: journal under systemd, else human."""


class MetricsSection(Section):
    """Figures for Prometheus, see docs/monitoring.md; needs the extra `metrics`."""

    listen: HostAndPort | None = None
    """Where `/metrics` is served, e.g. `127.0.0.1:9464`; null: nowhere. Whoever reaches it may read it."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand the library."""
        if self.listen is not None and find_spec("prometheus_client") is None:
            yield "listen", "it needs the package prometheus-client: pip install 'strip-agent[metrics]'"


class Config(Section):
    """The whole configuration file."""

    agent: AgentSection = AgentSection()
    cameras: Annotated[list[Camera], Field(min_length=1)]
    """The cameras; there must be one at least."""
    models: ModelsSection = ModelsSection()
    inference: InferenceSection = InferenceSection()
    checks: ChecksSection = ChecksSection()
    scoring: ScoringSection = ScoringSection()
    heatmaps: HeatmapsSection = HeatmapsSection()
    mqtt: MqttSection = MqttSection()
    outbox: OutboxSection = OutboxSection()
    ledger: LedgerSection = LedgerSection()
    log: LogSection = LogSection()
    metrics: MetricsSection = MetricsSection()
    drift: DriftSection = DriftSection()
    web: WebSection = WebSection()

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand different cameras, thresholds that a score can reach, and what topics and holding need."""
        mqtt, holds = self.mqtt, self.outbox.hold_until_subscribed
        if holds and mqtt.protocol == "3.1.1":
            why = "MQTT 3.1.1 does not tell whether anybody subscribes; see mqtt.protocol"
            yield "outbox.hold_until_subscribed", why
        yield from broken_sparkplug_rules(mqtt.sparkplug, mqtt.payload, self.agent.site, holds=holds)
        for key in ("site", "area", "line"):
            if f"{{{key}}}" in self._base_topic and getattr(self.agent, key) is None:
                yield "mqtt.base_topic", f"it names {{{key}}}, which needs agent.{key}"
        names = [camera.name.lower() for camera in self.cameras]
        area = self.scoring.method == "area"
        thresholds = {"scoring.threshold": self.scoring.threshold}
        for number, camera in enumerate(self.cameras):
            thresholds[f"cameras.{number}.threshold"] = camera.threshold
            if camera.name.lower() in names[:number]:
                yield f"cameras.{number}.name", f"two cameras are named '{camera.name}' (case does not count)"
            if area and camera.threshold is None and self.scoring.threshold is None:
                yield f"cameras.{number}.threshold", "`scoring.method: area` needs it here or as scoring.threshold"
        for place, threshold in thresholds.items():
            if threshold is not None and area and threshold <= 0:
                yield place, f"found {threshold:g}; with `scoring.method: area` it is a number of pixels above 0"
            if threshold is not None and not area and not 0 <= threshold <= 1:
                yield place, f"found {threshold:g}; with `scoring.method: {self.scoring.method}` it is from 0 to 1"

    @property
    def heatmap_folder(self) -> Path:
        """Where heatmaps go."""
        return self.heatmaps.folder or self.agent.state_folder / "heatmaps"

    @property
    def base_topic(self) -> str:
        """First part of every topic."""
        agent = self.agent
        return self._base_topic.format(agent=agent.name, site=agent.site, area=agent.area, line=agent.line)

    @property
    def _base_topic(self) -> str:
        return self.mqtt.base_topic or "strip-agent/{agent}"

    @property
    def slots(self) -> list[str]:
        """Names of the slots that cameras use, in the order of the cameras."""
        return list(dict.fromkeys(camera.slot for camera in self.cameras))
