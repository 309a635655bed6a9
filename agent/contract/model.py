"""The model contract: what a model file must look like, its and its metadata. The manifest beside it is in manifest.py.

Shared by the exporter, which writes such files, the supervisor, which reads manifests, and the worker, which checks
models. Pure: nothing here opens a file, and only the standard library is imported, because the supervisor stays small.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.contract.exposure import Exposure, format_exposure, parse_exposure
from agent.contract.measures import Reference, format_reference, parse_reference
from agent.errors import Reason, Reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONTRACT = "1"
INPUT_NAME = "input"
OUTPUT_NAME = "output"
CHANNELS = 3  # of the input: target and two references; of the output: heatmap and two of zeros
FLOAT = "tensor(float)"  # as onnxruntime names the type
INPUT_SCALES = ("unit", "gray8")
PRECISIONS = ("fp32", "int8")
PREFIX = "strip_agent."
MAX_SIDE_PX = 16384
MAX_GOLDEN_CHARACTERS = 32 * 1024 * 1024

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHANNEL_NAMES = re.compile(r"[a-z0-9_]{1,32}(,[a-z0-9_]{1,32}){0,31}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_VERSION = 2**53 - 1  # JSON readers in other languages hold whole numbers as doubles


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output as onnxruntime describes it: the shape holds int, str (a named axis) or None (unknown)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a loaded model says about itself; `metadata` is all of `metadata_props`."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the contract knows about a model. Of a file without metadata (`labelled` is False) most fields are empty."""

    labelled: bool
    height: int  # pixels
    width: int  # pixels
    input_scale: str  # unit: feed 0..1; gray8: feed 0..255; auto: nobody says, the trial finds out
    model_id: str = ""
    version: int = 0
    created: str = ""  # UTC, ISO 8601
    precision: str = ""
    checkpoint_sha256: str = ""
    threshold: float | None = None
    producer: str = ""
    golden: str = ""  # see agent/golden.py; "" when there is none
    golden_tolerance: float | None = None  # largest difference of any heatmap pixel, 0..1
    exposure: Exposure | None = None  # of the strips that it was calibrated with
    reference: Reference | None = None  # how those strips look
    input_channels: str = ""  # what the network was trained on: the graph computes it; names with commas between them


def check_model(description: ModelDescription, *, unlabelled_input_scale: str = "auto") -> ModelFacts:
    """Check names, axes, dtypes, shapes, metadata in this order; `Reject` with the reason of the first that fails."""
    strip, output = _check_names(description)
    _check_axes(strip, output)
    _check_dtypes(strip, output)
    height, width = _check_shapes(strip, output)
    return _check_metadata(description.metadata, height, width, unlabelled_input_scale)


def _check_names(description: ModelDescription) -> tuple[Port, Port]:
    inputs = [port.name for port in description.inputs]
    outputs = [port.name for port in description.outputs]
    if inputs != [INPUT_NAME] or outputs != [OUTPUT_NAME]:
        found = f"inputs {listed(inputs)} and outputs {listed(outputs)}"
        raise _refused(Reason.MODEL_NAMES, f"needs one input {INPUT_NAME!r}, one output {OUTPUT_NAME!r}; has {found}")
    return description.inputs[0], description.outputs[0]


def _check_axes(strip: Port, output: Port) -> None:
    for port in (strip, output):
        if len(port.shape) != 4:  # noqa: PLR2004 - batch, channel, row, column
            raise _refused(
                Reason.MODEL_AXES, f"{port.name} needs the axes batch, channel, row, column, has {port.shape}"
            )
    if isinstance(strip.shape[0], int):
        raise _refused(Reason.MODEL_AXES, f"the batch axis must be dynamic, it is fixed at {strip.shape[0]}")
    if not all(isinstance(length, int) for length in strip.shape[1:]):
        raise _refused(Reason.MODEL_AXES, f"channel, row, column of the input must be fixed, are {strip.shape[1:]}")


def _check_dtypes(strip: Port, output: Port) -> None:
    for port in (strip, output):
        if port.dtype != FLOAT:
            raise _refused(Reason.MODEL_DTYPES, f"{port.name} must be {FLOAT}, it is {port.dtype}")


def _check_shapes(strip: Port, output: Port) -> tuple[int, int]:
    channels, height, width = (int(length or 0) for length in strip.shape[1:])
    if channels != CHANNELS or not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise _refused(Reason.MODEL_SHAPES, f"the input must be (batch, {CHANNELS}, H, W), it is {strip.shape}")
    # A model without inferred shapes may leave the output's axes unnamed: the trial run then shows what comes out.
    for found, wanted in zip(output.shape[1:], (CHANNELS, height, width), strict=True):
        if isinstance(found, int) and found != wanted:
            wanted_shape = f"(batch, {CHANNELS}, {height}, {width})"
            raise _refused(Reason.MODEL_SHAPES, f"the output must be {wanted_shape}, it is {output.shape}")
    return height, width


def _check_metadata(metadata: Mapping[str, str], height: int, width: int, unlabelled_input_scale: str) -> ModelFacts:
    ours = {key.removeprefix(PREFIX): value for key, value in metadata.items() if key.startswith(PREFIX)}
    if not ours:
        return ModelFacts(labelled=False, height=height, width=width, input_scale=unlabelled_input_scale)
    facts = parse_metadata(ours)
    if (facts.height, facts.width) != (height, width):
        stated = f"{facts.height} x {facts.width}"
        raise _metadata_wrong(f"image_height x image_width says {stated}, the input is {height} x {width}")
    return facts


def parse_metadata(ours: Mapping[str, str]) -> ModelFacts:
    """Read the metadata, keys without the prefix; `Reject(MODEL_METADATA)` names the first key that is wrong."""
    if (contract := ours.get("contract")) != CONTRACT:
        raise _metadata_wrong(f"contract is {contract!r}, this software knows {CONTRACT!r}")
    golden = ours.get("golden", "")
    if len(golden) > MAX_GOLDEN_CHARACTERS:
        raise _metadata_wrong(f"golden is longer than {MAX_GOLDEN_CHARACTERS} characters")
    return ModelFacts(
        labelled=True,
        height=_whole(ours, "image_height", MAX_SIDE_PX),
        width=_whole(ours, "image_width", MAX_SIDE_PX),
        input_scale=_one_of(ours, "input_scale", INPUT_SCALES),
        model_id=_matching(ours, "model_id", NAME),
        version=_whole(ours, "version", MAX_VERSION),
        created=_present(ours, "created"),
        precision=_one_of(ours, "precision", PRECISIONS),
        checkpoint_sha256=_matching(ours, "checkpoint_sha256", SHA256) if "checkpoint_sha256" in ours else "",
        threshold=_fraction(ours, "threshold"),
        producer=ours.get("producer", ""),
        golden=golden,
        golden_tolerance=_golden_tolerance(ours, golden),
        exposure=_exposure(ours),
        reference=_reference(ours),
        input_channels=_matching(ours, "input_channels", CHANNEL_NAMES) if "input_channels" in ours else "",
    )


def format_metadata(facts: ModelFacts, **more: str) -> dict[str, str]:
    """Write `facts` as `metadata_props`, prefix included; `more` are further keys that tell where the model comes from.

    Raises `Reject(MODEL_METADATA)` for facts that `parse_metadata` would not read back.
    """
    ours = {
        "contract": CONTRACT,
        "model_id": facts.model_id,
        "version": str(facts.version),
        "created": facts.created,
        "input_scale": facts.input_scale,
        "image_height": str(facts.height),
        "image_width": str(facts.width),
        "precision": facts.precision,
        "producer": facts.producer,
    } | more
    if facts.input_channels:
        ours["input_channels"] = facts.input_channels
    if facts.checkpoint_sha256:
        ours["checkpoint_sha256"] = facts.checkpoint_sha256
    if facts.threshold is not None:
        ours["threshold"] = repr(facts.threshold)
    if facts.golden:
        ours["golden"] = facts.golden
        ours["golden_tolerance"] = repr(facts.golden_tolerance)
    if facts.exposure is not None:
        ours["calibration_level"] = format_exposure(facts.exposure)
    if facts.reference is not None:
        ours["calibration_measures"] = format_reference(facts.reference)
    parse_metadata(ours)
    return {PREFIX + key: value for key, value in ours.items()}


def _golden_tolerance(ours: Mapping[str, str], golden: str) -> float | None:
    tolerance = _fraction(ours, "golden_tolerance")
    if golden and (tolerance is None or tolerance <= 0):
        raise _metadata_wrong("golden needs a golden_tolerance above 0")
    return tolerance


def _exposure(ours: Mapping[str, str]) -> Exposure | None:
    if "calibration_level" not in ours:
        return None
    try:
        return parse_exposure(ours["calibration_level"])
    except ValueError as error:
        raise _metadata_wrong(f"calibration_level: {error}") from error


def _reference(ours: Mapping[str, str]) -> Reference | None:
    if "calibration_measures" not in ours:
        return None
    try:
        return parse_reference(ours["calibration_measures"])
    except ValueError as error:
        raise _metadata_wrong(f"calibration_measures: {error}") from error


def _present(ours: Mapping[str, str], key: str) -> str:
    if key not in ours:
        raise _metadata_wrong(f"{key} is missing")
    return ours[key]


def _matching(ours: Mapping[str, str], key: str, pattern: re.Pattern[str]) -> str:
    value = _present(ours, key)
    if not pattern.fullmatch(value):
        raise _metadata_wrong(f"{key} is {value[:80]!r}, which does not match {pattern.pattern}")
    return value


def _one_of(ours: Mapping[str, str], key: str, choices: tuple[str, ...]) -> str:
    value = _present(ours, key)
    if value not in choices:
        raise _metadata_wrong(f"{key} is {value[:80]!r}, known are {', '.join(choices)}")
    return value


def _whole(ours: Mapping[str, str], key: str, largest: int) -> int:
    value = _present(ours, key)
    if not re.fullmatch(r"[0-9]{1,16}", value) or not 0 < int(value) <= largest:
        raise _metadata_wrong(f"{key} is {value[:80]!r}, it must be a whole number from 1 to {largest}")
    return int(value)


def _fraction(ours: Mapping[str, str], key: str) -> float | None:
    if key not in ours:
        return None
    try:
        value = float(ours[key])
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise _metadata_wrong(f"{key} is {ours[key][:80]!r}, it must be a number from 0 to 1")
    return value


def _refused(reason: Reason, detail: str) -> Reject:
    return Reject(reason, detail, model_fault=True)


def _metadata_wrong(detail: str) -> Reject:
    return _refused(Reason.MODEL_METADATA, f"metadata {detail}")


def listed(names: Iterable[str]) -> str:
    """Show names from outside in a message, shortened and quoted."""
    return ", ".join(repr(name[:64]) for name in names) or "none"
