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
from agent.contract.model import ModelFacts, check_model
from agent.errors import Reject
from tools.exporter.errors import ExportError
from tools.exporter.files import write_file
from tools.exporter.session import describe, open_session, prove_golden

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def make_keys(name: Path) -> str:
    """Write `name`.key (secret, readable by the owner alone) and `name`.pub; return the key's id."""
    secret, public = name.with_name(f"{name.name}.key"), name.with_name(f"{name.name}.pub")
    for path in (secret, public):
        if path.exists():
            raise ExportError(f"{path} exists already: choose another name, keys are never overwritten.")
    key = Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as error:
        raise ExportError(f"Cannot write {error.filename} ({error.strerror}): choose another folder.") from error
    return make_key_id(key.public_key().public_bytes_raw())


def sign_model(model: Path, key_path: Path, *, slot: str, rollback: bool) -> SignedManifest:
    """Write the signed manifest beside `model`; id, version and time come from the model's metadata."""
    key = read_secret_key(key_path)
    content = read_model(model)
    facts = read_facts(content)
    if not facts.labelled:
        raise ExportError(f"{model.name} has no metadata to sign (it was made elsewhere): export it with this tool.")
    digest = hashlib.sha256(content).hexdigest()
    manifest = Manifest(digest, len(content), facts.model_id, facts.version, slot, facts.created, rollback)
    text = format_manifest(manifest)
    signature, key_id = key.sign(text.encode()), make_key_id(key.public_key().public_bytes_raw())
    written = format_manifest_file(text, signature, key_id)
    try:
        signed = parse_manifest_file(written)
    except Reject as refused:
        raise ExportError(f"The {refused.detail}: give a slot name of letters, digits, dots, dashes.") from refused
    write_file(manifest_path(model), written)
    return signed


def verify_model(model: Path, public_keys: Sequence[Path]) -> list[str]:
    """Check digest, signature, contract and golden strip; returns what was found, ExportError at the first fault.

    Without public keys the signature is not looked at; with them it must be there and fit one of them.
    """
    content = read_model(model)
    found = []
    signed = read_manifest(model)
    try:
        if signed:
            check_manifest_fits(signed.manifest, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
            found.append(f"manifest fits: version {signed.manifest.version} for slot {signed.manifest.slot}")
        if public_keys:
            if signed is None:
                raise ExportError(f"{model.name} has no manifest beside it: sign it with push --sign KEY.")
            verify_signature(signed, dict(_read_public_key(path) for path in public_keys))
            found.append(f"signature fits key {signed.key_id}")
        session = open_session(content)
        facts = check_model(describe(session))
        found.append(f"contract met: {facts.height} x {facts.width}, input scale {facts.input_scale}")
        difference = prove_golden(session, facts)
    except Reject as refused:
        raise ExportError(
            f"{model.name} is refused ({refused.reason}): {refused.detail}; export or sign it again."
        ) from refused
    if difference is None:
        found.append("no golden strip")
    elif difference > (facts.golden_tolerance or 0):
        raise ExportError(
            f"{model.name} does not reproduce its golden strip here (off by {difference:.2g}, allowed is "
            f"{facts.golden_tolerance:g}): this processor computes differently, export it on one like the box's."
        )
    else:
        found.append(f"golden strip reproduced within {difference:.1e} (allowed {facts.golden_tolerance:g})")
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
    """Check the contract and give the facts; ExportError when it is broken."""
    try:
        return check_model(describe(open_session(content)))
    except Reject as refused:
        raise ExportError(f"The model breaks the contract ({refused.detail}): export it again.") from refused


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
