"""The model contract: what a model file must look like, its metadata, and the manifest beside it.

Shared by the exporter, which writes such files, the supervisor, which reads manifests, and the worker, which checks models.
Pure: nothing here opens a file. Only the standard library is imported, because the supervisor has to stay small;
`cryptography` is loaded the first time a signature is verified.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from agent.errors import Reason, Reject

CONTRACT = "1"
INPUT_NAME = "input"
OUTPUT_NAME = "output"
CHANNELS = 3  # of the input: target and two references; of the output: heatmap and two of zeros
FLOAT = "tensor(float)"  # as onnxruntime names the type
INPUT_SCALES = ("unit", "gray8")
PRECISIONS = ("fp32", "int8")
PREFIX = "strip_agent."
MANIFEST_SUFFIX = ".manifest.json"
MAX_MANIFEST_BYTES = 64 * 1024
MAX_SIDE_PX = 16384
MAX_GOLDEN_CHARACTERS = 32 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_VERSION = 2**53 - 1  # JSON readers in other languages hold whole numbers as doubles


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
    input_scale: str  # unit: feed 0..1; gray8: feed 0..255
    model_id: str = ""
    version: int = 0
    created: str = ""  # UTC, ISO 8601
    precision: str = ""
    checkpoint_sha256: str = ""
    threshold: float | None = None
    producer: str = ""
    golden: str = ""  # see agent/golden.py; "" when there is none
    golden_tolerance: float | None = None  # largest difference of any heatmap pixel, 0..1


def check_model(description: ModelDescription, *, unlabelled_input_scale: str = "unit") -> ModelFacts:
    """Check names, axes, dtypes, shapes and metadata in this order; `Reject` with the reason of the first that fails."""
    strip, output = _check_names(description)
    _check_axes(strip, output)
    _check_dtypes(strip, output)
    height, width = _check_shapes(strip, output)
    return _check_metadata(description.metadata, height, width, unlabelled_input_scale)


def _check_names(description: ModelDescription) -> tuple[Port, Port]:
    inputs = [port.name for port in description.inputs]
    outputs = [port.name for port in description.outputs]
    if inputs != [INPUT_NAME] or outputs != [OUTPUT_NAME]:
        found = f"inputs {_listed(inputs)} and outputs {_listed(outputs)}"
        raise _refused(
            Reason.MODEL_NAMES, f"needs one input {INPUT_NAME!r} and one output {OUTPUT_NAME!r}, has {found}"
        )
    return description.inputs[0], description.outputs[0]


def _check_axes(strip: Port, output: Port) -> None:
    for port in (strip, output):
        if len(port.shape) != 4:  # noqa: PLR2004 - batch, channel, row, column
            raise _refused(
                Reason.MODEL_AXES, f"{port.name} needs 4 axes (batch, channel, row, column), has {port.shape}"
            )
    if isinstance(strip.shape[0], int):
        raise _refused(Reason.MODEL_AXES, f"the batch axis must be dynamic, it is fixed at {strip.shape[0]}")
    if not all(isinstance(length, int) for length in strip.shape[1:]):
        raise _refused(
            Reason.MODEL_AXES, f"channel, row and column of the input must be fixed, they are {strip.shape[1:]}"
        )


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
        model_id=_matching(ours, "model_id", _NAME),
        version=_whole(ours, "version", _MAX_VERSION),
        created=_present(ours, "created"),
        precision=_one_of(ours, "precision", PRECISIONS),
        checkpoint_sha256=_matching(ours, "checkpoint_sha256", _SHA256) if "checkpoint_sha256" in ours else "",
        threshold=_fraction(ours, "threshold"),
        producer=ours.get("producer", ""),
        golden=golden,
        golden_tolerance=_golden_tolerance(ours, golden),
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
    if facts.checkpoint_sha256:
        ours["checkpoint_sha256"] = facts.checkpoint_sha256
    if facts.threshold is not None:
        ours["threshold"] = repr(facts.threshold)
    if facts.golden:
        ours["golden"] = facts.golden
        ours["golden_tolerance"] = repr(facts.golden_tolerance)
    parse_metadata(ours)
    return {PREFIX + key: value for key, value in ours.items()}


def _golden_tolerance(ours: Mapping[str, str], golden: str) -> float | None:
    tolerance = _fraction(ours, "golden_tolerance")
    if golden and (tolerance is None or tolerance <= 0):
        raise _metadata_wrong("golden needs a golden_tolerance above 0")
    return tolerance


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


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest beside a model binds together; `created` is UTC, ISO 8601."""

    sha256: str
    size: int  # bytes
    model_id: str
    version: int
    slot: str
    created: str
    rollback: bool


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest, the exact text that was signed, and the signature (b"" and "" when it is not signed)."""

    manifest: Manifest
    text: str
    signature: bytes
    key_id: str


def format_manifest(manifest: Manifest) -> str:
    """Give the text that is signed: JSON with sorted keys."""
    return json.dumps(asdict(manifest), sort_keys=True)


def format_manifest_file(text: str, signature: bytes, key_id: str) -> bytes:
    """Give the content of `MODEL.onnx.manifest.json`."""
    outer = {"manifest": text, "signature": base64.b64encode(signature).decode(), "key_id": key_id}
    return (json.dumps(outer, indent=1) + "\n").encode()


def parse_manifest_file(content: bytes) -> SignedManifest:
    """Read a manifest file; `Reject(MANIFEST_MALFORMED)` says what is wrong. Nothing is verified yet."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise _malformed(f"is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        outer = json.loads(content)
        text = outer["manifest"]
        signature = base64.b64decode(outer["signature"], validate=True)
        key_id = outer["key_id"]
        inner = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise _malformed(f"is not the JSON it should be ({type(error).__name__}: {error})") from error
    if not isinstance(key_id, str) or not isinstance(inner, dict):
        raise _malformed("key_id must be text and manifest an object")
    return SignedManifest(_parse_manifest(inner), text, signature, key_id)


def _parse_manifest(inner: dict[str, object]) -> Manifest:
    kinds = {"sha256": str, "size": int, "model_id": str, "version": int, "slot": str, "created": str, "rollback": bool}
    for key, kind in kinds.items():
        if type(inner.get(key)) is not kind:
            raise _malformed(f"{key} is missing or not of type {kind.__name__}")
    if unknown := sorted(inner.keys() - kinds.keys()):
        raise _malformed(f"holds the unknown keys {_listed(unknown)}")
    manifest = Manifest(**inner)  # type: ignore[arg-type]  # the loop above checked each type
    for key, pattern in (("sha256", _SHA256), ("model_id", _NAME), ("slot", _NAME)):
        if not pattern.fullmatch(getattr(manifest, key)):
            raise _malformed(f"{key} does not match {pattern.pattern}")
    if not 0 < manifest.version <= _MAX_VERSION or manifest.size <= 0:
        raise _malformed("version and size must be positive whole numbers")
    return manifest


def check_manifest_fits(manifest: Manifest, *, sha256: str, size: int) -> None:
    """Check that the manifest speaks of the file with this digest and size; `Reject(DIGEST_MISMATCH)` otherwise."""
    if (manifest.sha256, manifest.size) != (sha256, size):
        stated = f"{manifest.size} bytes with digest {manifest.sha256[:12]}"
        raise Reject(Reason.DIGEST_MISMATCH, f"the manifest speaks of {stated}, the file has {size} with {sha256[:12]}")


def load_public_key(pem: bytes) -> tuple[str, bytes]:
    """Read an ed25519 public key (PEM) and give (key_id, 32 raw bytes); `ValueError` when it is something else."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - see the docstring
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"is a public key of another kind ({type(key).__name__}), ed25519 is needed")
    raw = key.public_bytes_raw()
    return make_key_id(raw), raw


def make_key_id(public_key: bytes) -> str:
    """Name a public key (32 raw bytes): the first 16 hexadecimal digits of its sha256."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def verify_signature(signed: SignedManifest, trusted_keys: Mapping[str, bytes]) -> None:
    """Check the signature against `trusted_keys` (key_id -> 32 raw bytes).

    Raises `Reject` with KEY_UNKNOWN or SIGNATURE_INVALID.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see the docstring of this file
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    key = trusted_keys.get(signed.key_id)
    if key is None:
        raise Reject(Reason.KEY_UNKNOWN, f"signed with key {signed.key_id[:64]!r}, trusted are {_listed(trusted_keys)}")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, signed.text.encode())
    except InvalidSignature as error:
        raise Reject(Reason.SIGNATURE_INVALID, f"the signature does not fit key {signed.key_id}") from error


def _refused(reason: Reason, detail: str) -> Reject:
    return Reject(reason, detail, model_fault=True)


def _metadata_wrong(detail: str) -> Reject:
    return _refused(Reason.MODEL_METADATA, f"metadata {detail}")


def _malformed(detail: str) -> Reject:
    return Reject(Reason.MANIFEST_MALFORMED, f"the manifest {detail}")


def _listed(names: object) -> str:
    return ", ".join(repr(str(name)[:64]) for name in names) or "none"  # type: ignore[attr-defined]
