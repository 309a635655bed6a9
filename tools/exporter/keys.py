"""Keys and signatures: make an ed25519 key pair, sign a model's manifest, verify a file as the box would."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from agent.contract.manifest import (
    MANIFEST_SUFFIX,
    Manifest,
    SignedManifest,
    check_manifest_fits,
    format_manifest,
    format_manifest_file,
    load_public_key,
    make_key_id,
    parse_manifest_file,
    verify_signature,
)
from agent.errors import Reason, Reject, Retry
from agent.worker.model import load_model
from agent.worker.trial import allowed_difference, prove
from tools.exporter.errors import ExportError
from tools.exporter.files import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.contract.model import ModelFacts


ADOPTABLE = (Reason.MODEL_NAMES, Reason.MODEL_AXES, Reason.MODEL_DTYPES, Reason.MODEL_SHAPES)


def make_keys(name: Path) -> str:
    """Write `name`.key (secret, readable by the owner alone) and `name`.pub; return the key's id."""
    secret, public = name.with_name(f"{name.name}.key"), name.with_name(f"{name.name}.pub")
    for path in (secret, public):
        if path.exists():
            raise ExportError(f"{path} exists already: choose another name, keys are never overwritten.")
    key = Ed25519PrivateKey.generate()
    try:
        for path, mode, content in (
            (secret, 0o600, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
            (public, 0o666, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        ):  # new files: no link that lies there is written through
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise ExportError(f"Cannot write {error.filename} ({error.strerror}): choose another folder.") from error
    return make_key_id(key.public_key().public_bytes_raw())


def sign_model(
    model: Path, key_path: Path | None, *, slot: str, rollback: bool, shadow: bool = False
) -> SignedManifest:
    """Write the manifest beside `model`; id, version and time come from the model's metadata.

    Without a key it is not signed, which boxes take where they require no signatures.
    """
    key = read_secret_key(key_path) if key_path else None
    content = read_model(model)
    facts = read_facts(content)
    if not facts.labelled:
        raise ExportError(f"{model.name} has no metadata to sign (it was made elsewhere): export it with this tool.")
    digest = hashlib.sha256(content).hexdigest()
    manifest = Manifest(digest, len(content), facts.model_id, facts.version, slot, facts.created, rollback, shadow)
    text = format_manifest(manifest)
    signature, key_id = b"", ""
    if key is not None:
        signature, key_id = key.sign(text.encode()), make_key_id(key.public_key().public_bytes_raw())
    written = format_manifest_file(text, signature, key_id)
    try:
        signed = parse_manifest_file(written)
    except Reject as refused:
        raise ExportError(f"The {refused.detail}: give a slot name of letters, digits, dots, dashes.") from refused
    write_file(manifest_path(model), written)
    return signed


def verify_model(model_path: Path, public_keys: Sequence[Path]) -> list[str]:
    """Check digest and signature, then load and try the model as a box does; returns what was found.

    Raises ExportError at the first fault, with the reason that the box would give. Without public keys the signature is
    not looked at; with them it must be there and fit one of them.
    """
    content = read_model(model_path)
    found = []
    signed = read_manifest(model_path)
    try:
        if signed:
            check_manifest_fits(signed.manifest, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            found.append(f"manifest fits: version {signed.manifest.version} for slot {signed.manifest.slot}")
        if public_keys:
            if signed is None:
                raise ExportError(f"{model_path.name} has no manifest beside it: sign it with push --sign KEY.")
            verify_signature(signed, dict(_read_public_key(path) for path in public_keys))
            found.append(f"signature fits key {signed.key_id}")
        model, proof = prove(load_model(content, threads=None, unlabelled_input_scale="auto"))
    except Reject as refused:
        raise ExportError(f"{model_path.name} is refused ({refused.reason}): {refused.detail}.") from refused
    except Retry as later:
        raise ExportError(f"{model_path.name} cannot be tried here ({later.detail}): free some memory.") from later
    facts = model.facts
    found.append(f"contract met: {facts.height} x {facts.width}, input scale {facts.input_scale}")
    if proof.golden_difference is None:
        found.append("no golden strip")
    else:
        allowed = allowed_difference(facts)
        found.append(f"golden strip reproduced within {proof.golden_difference:.1e} (allowed {allowed:g})")
    found.append(f"it tells a defect from none: its heatmap has {proof.sight.describe()}")
    return found


def read_model(path: Path) -> bytes:
    """Read a model file; ExportError when that does not work."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"Cannot read the model {path} ({error.strerror}): give the path of an .onnx file."
        ) from error


def read_facts(content: bytes) -> ModelFacts:
    """Load the model, check the contract and give the facts; ExportError, with the box's reason, when it is broken."""
    try:
        return load_model(content, threads=None, unlabelled_input_scale="auto").facts
    except Reject as refused:
        hint = "; `tools/export.py adopt` may make a model of it" if refused.reason in ADOPTABLE else ""
        raise ExportError(f"No box would take this file ({refused.reason}): {refused.detail}{hint}.") from refused


def manifest_path(model: Path) -> Path:
    """Where the manifest of a model lies."""
    return model.with_name(model.name + MANIFEST_SUFFIX)


def read_manifest(model: Path) -> SignedManifest | None:
    """Read the manifest beside a model, None when there is none; ExportError when it is malformed."""
    path = manifest_path(model)
    if not path.exists():
        return None
    try:
        return parse_manifest_file(path.read_bytes())
    except Reject as refused:
        raise ExportError(f"{path.name}: {refused.detail}; sign the model again with --sign KEY.") from refused
    except OSError as error:
        raise ExportError(f"Cannot read {path} ({error.strerror}): sign the model again.") from error


def read_secret_key(path: Path) -> Ed25519PrivateKey:
    """Read a secret key; ExportError when it is none."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ExportError(f"Cannot read the key {path} ({error.strerror}): give the .key file of keygen.") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ExportError(f"{path.name} is not an unencrypted secret key: give the .key file of keygen.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ExportError(f"{path.name} is a key of another kind, ed25519 is needed: make one with keygen.")
    return key


def _read_public_key(path: Path) -> tuple[str, bytes]:
    try:
        return load_public_key(path.read_bytes())
    except OSError as error:
        raise ExportError(f"Cannot read the key {path} ({error.strerror}): give the .pub file of keygen.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ExportError(f"{path.name} is not an ed25519 public key: give the .pub file of keygen.") from error
