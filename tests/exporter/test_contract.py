"""The contract's checks, their order and reasons; facts, manifests and golden strips come back as written."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.golden import FLOAT16_STEP, Golden, decode_golden, encode_golden
from agent.contract.manifest import (
    Manifest,
    check_manifest_fits,
    format_manifest,
    format_manifest_file,
    make_key_id,
    parse_manifest_file,
    verify_signature,
)
from agent.contract.model import ModelDescription, ModelFacts, Port, check_model, format_metadata, parse_metadata
from agent.errors import Reason, Reject

FACTS = ModelFacts(
    *(True, 40, 24, "gray8", "m-1", 7, "2026-01-01T00:00:00Z", "int8", "ab" * 32, 0.4, "x", "g", 0.01),
    input_channels="target,diff1",
)
INPUT = Port("input", "tensor(float)", ("batch", 3, 40, 24))
OUTPUT = Port("output", "tensor(float)", ("batch", 3, 40, 24))
GOOD = ModelDescription((INPUT,), (OUTPUT,), format_metadata(FACTS))
MANIFEST = Manifest("cd" * 32, 123, "m-1", 7, "default", "2026-01-01T00:00:00Z", rollback=False)


def _reason(description: ModelDescription) -> Reason:
    with pytest.raises(Reject) as refused:
        check_model(description)
    assert refused.value.model_fault
    return refused.value.reason


def test_facts_come_back_as_they_were_written() -> None:
    """Metadata is written and read without loss."""
    assert check_model(GOOD) == FACTS


def test_checks_are_made_in_the_stated_order() -> None:
    """Names, axes, dtypes, shapes, metadata: of several faults the first one is the reason."""
    wrong_metadata = replace(GOOD, metadata={"strip_agent.contract": "2"})
    assert _reason(wrong_metadata) is Reason.MODEL_METADATA
    shape = replace(INPUT, shape=("batch", 4, 40, 24))
    assert _reason(replace(wrong_metadata, inputs=(shape,))) is Reason.MODEL_SHAPES
    dtype = replace(shape, dtype="tensor(uint8)")
    assert _reason(replace(wrong_metadata, inputs=(dtype,))) is Reason.MODEL_DTYPES
    axes = replace(dtype, shape=(1, 4, 40, 24))
    assert _reason(replace(wrong_metadata, inputs=(axes,))) is Reason.MODEL_AXES
    name = replace(axes, name="x")
    assert _reason(replace(wrong_metadata, inputs=(name,))) is Reason.MODEL_NAMES


@pytest.mark.parametrize("shape", [("batch", 1, 40, 24), ("batch", 3, 41, 24), ("batch", 3, 40)])
def test_output_must_be_of_the_inputs_size(shape: tuple[int | str, ...]) -> None:
    """An output of another size or rank is refused."""
    assert _reason(replace(GOOD, outputs=(replace(OUTPUT, shape=shape),))) in (Reason.MODEL_SHAPES, Reason.MODEL_AXES)


def test_metadata_that_contradicts_the_shape_is_refused() -> None:
    """The stated image size is checked against the input."""
    metadata = {**GOOD.metadata, "strip_agent.image_height": "41"}
    assert _reason(replace(GOOD, metadata=metadata)) is Reason.MODEL_METADATA


def test_a_file_without_metadata_takes_the_configured_scale() -> None:
    """Made by somebody else: accepted, unlabelled, at the configured input scale."""
    facts = check_model(replace(GOOD, metadata={"other": "x"}), unlabelled_input_scale="gray8")
    assert (facts.labelled, facts.input_scale, facts.golden) == (False, "gray8", "")


@given(st.dictionaries(st.sampled_from(["contract", "version", "threshold", "golden_tolerance"]), st.text(max_size=20)))
def test_hostile_metadata_is_read_or_refused(changes: dict[str, str]) -> None:
    """Whatever stands in the metadata, it is read or refused for the metadata, nothing else happens."""
    ours = {key.removeprefix("strip_agent."): value for key, value in GOOD.metadata.items()} | changes
    with contextlib.suppress(Reject):
        assert parse_metadata(ours).version > 0


def test_contract_and_manifest_import_the_standard_library_only() -> None:
    """The supervisor imports them and must stay small."""
    program = "import sys, agent.contract.model, agent.contract.manifest; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnx", "onnxruntime", "cryptography"} & set(loaded)


def test_signature_fits_its_key_and_text_only() -> None:
    """A manifest verifies with its key; another key, another text or a cut signature do not."""
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    text = format_manifest(MANIFEST)
    signed = parse_manifest_file(format_manifest_file(text, key.sign(text.encode()), make_key_id(raw)))
    assert signed.manifest == MANIFEST
    verify_signature(signed, {make_key_id(raw): raw})
    for broken in (replace(signed, text=text + " "), replace(signed, signature=signed.signature[:-1])):
        with pytest.raises(Reject) as refused:
            verify_signature(broken, {make_key_id(raw): raw})
        assert refused.value.reason is Reason.SIGNATURE_INVALID
    with pytest.raises(Reject) as refused:
        verify_signature(signed, {"other": other.public_key().public_bytes_raw()})
    assert refused.value.reason is Reason.KEY_UNKNOWN


def test_manifest_of_another_file_does_not_fit() -> None:
    """Digest and size are both bound."""
    check_manifest_fits(MANIFEST, sha256="cd" * 32, size=123)
    for sha256, size in (("ce" * 32, 123), ("cd" * 32, 124)):
        with pytest.raises(Reject) as refused:
            check_manifest_fits(MANIFEST, sha256=sha256, size=size)
        assert refused.value.reason is Reason.DIGEST_MISMATCH


@pytest.mark.parametrize(
    "change", [{"sha256": "x"}, {"size": 0}, {"version": True}, {"slot": "../up"}, {"rollback": 1}, {"more": 1}]
)
def test_malformed_manifests_are_refused(change: dict[str, object]) -> None:
    """Wrong types, names that are paths, unknown keys."""
    text = json.dumps(json.loads(format_manifest(MANIFEST)) | change)
    with pytest.raises(Reject) as refused:
        parse_manifest_file(format_manifest_file(text, b"", ""))
    assert refused.value.reason is Reason.MANIFEST_MALFORMED


def test_a_manifest_that_nobody_can_have_signed_is_refused() -> None:
    """Half a surrogate pair passes as JSON and cannot be encoded: no signature can be compared with it."""
    text = format_manifest(MANIFEST).replace(MANIFEST.created, "\ud800")
    for hostile in (text, text.replace("created", "\ud800"), 5, ["x"]):
        content = json.dumps({"manifest": hostile, "signature": "", "key_id": "k"}).encode()
        with pytest.raises(Reject) as refused:
            parse_manifest_file(content)
        assert refused.value.reason is Reason.MANIFEST_MALFORMED


@given(st.binary(max_size=200))
def test_any_bytes_are_a_manifest_or_refused(content: bytes) -> None:
    """Hostile bytes end as malformed."""
    with pytest.raises(Reject):
        parse_manifest_file(content)


@pytest.mark.parametrize("whole", [True, False])
def test_golden_strip_comes_back(whole: bool) -> None:
    """Whole grey levels and others come back exactly, the heatmap within half precision."""
    random = np.random.default_rng(0)
    strip = random.uniform(0, 255, (3, 40, 24)).astype(np.float32)
    heatmap = random.uniform(0, 1, (40, 24)).astype(np.float32)
    text = encode_golden(Golden(np.rint(strip) if whole else strip, heatmap))
    golden = decode_golden(text, 40, 24)
    assert (golden.strip == (np.rint(strip) if whole else strip)).all()
    assert np.abs(golden.heatmap - heatmap).max() <= FLOAT16_STEP
    assert ("uint8" in text) == whole


def test_golden_bomb_is_not_inflated() -> None:
    """What inflates to more than the strip is refused without inflating it."""
    fields = json.loads(encode_golden(Golden(np.zeros((3, 40, 24), np.float32), np.zeros((40, 24), np.float32))))
    fields["heatmap"] = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    with pytest.raises(Reject) as refused:
        decode_golden(json.dumps(fields), 40, 24)
    assert refused.value.reason is Reason.GOLDEN_DAMAGED


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"height": 40, "width": 24, "strip_dtype": "object"}', "[" * 100_000]
)
def test_damaged_golden_is_refused(text: str) -> None:
    """Anything else than a golden strip is refused."""
    with pytest.raises(Reject) as refused:
        decode_golden(text, 40, 24)
    assert refused.value.reason is Reason.GOLDEN_DAMAGED
