"""The manifest beside a model, `MODEL.onnx.manifest.json`: what it binds together, and its ed25519 signature.

Only the standard library is imported, because the supervisor has to stay small;
`cryptography` is loaded the first time a key or a signature is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agent.contract.model import MAX_VERSION, NAME, SHA256, listed
from agent.errors import Reason, Reject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST_SUFFIX = ".manifest.json"
MAX_MANIFEST_BYTES = 64 * 1024
MAX_KEY_BYTES = 16 * 1024


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
    shadow: bool = False  # it is to score beside the active model and decide nothing


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest, the exact text that was signed, and the signature (b"" and "" when it is not signed)."""

    manifest: Manifest
    text: str
    signature: bytes
    key_id: str


def format_manifest(manifest: Manifest) -> str:
    """Give the text that is signed: JSON with sorted keys; `shadow` only where it is true: earlier boxes refuse it."""
    fields = asdict(manifest)
    if not manifest.shadow:
        del fields["shadow"]
    return json.dumps(fields, sort_keys=True)


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
        text.encode()  # half a surrogate pair cannot be, so nobody can have signed it
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
    kinds["shadow"] = bool  # may be left out
    if type(inner.get("shadow", False)) is not bool:
        raise _malformed("shadow is not of type bool")
    if unknown := sorted(inner.keys() - kinds.keys()):
        raise _malformed(f"holds the unknown keys {listed(unknown)}")
    manifest = Manifest(**inner)  # type: ignore[arg-type]  # the loop above checked each type
    for key, pattern in (("sha256", SHA256), ("model_id", NAME), ("slot", NAME)):
        if not pattern.fullmatch(getattr(manifest, key)):
            raise _malformed(f"{key} does not match {pattern.pattern}")
    if not 0 < manifest.version <= MAX_VERSION or manifest.size <= 0:
        raise _malformed("version and size must be positive whole numbers")
    return manifest


def check_manifest_fits(manifest: Manifest, *, sha256: str, size: int) -> None:
    """Check that the manifest speaks of the file with this digest and size; `Reject(DIGEST_MISMATCH)` otherwise."""
    if (manifest.sha256, manifest.size) != (sha256, size):
        stated = f"{manifest.size} bytes with digest {manifest.sha256[:12]}"
        raise Reject(Reason.DIGEST_MISMATCH, f"the manifest speaks of {stated}, the file has {size} with {sha256[:12]}")


def read_public_key(file: Path) -> tuple[str, bytes]:
    """Read a file as `load_public_key` does; raises OSError where it cannot be read."""
    with file.open("rb") as opened:
        pem = opened.read(MAX_KEY_BYTES + 1)
    if len(pem) > MAX_KEY_BYTES:
        raise ValueError(f"is larger than {MAX_KEY_BYTES} bytes, which no public key is")
    return load_public_key(pem)


def load_public_key(pem: bytes) -> tuple[str, bytes]:
    """Read an ed25519 public key (PEM) and give (key_id, 32 raw bytes); `ValueError` when it is something else."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see the docstring of this file
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - see the docstring
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(pem)
    except UnsupportedAlgorithm as error:
        raise ValueError(f"is a public key of another kind, ed25519 is needed ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"is a public key of another kind ({type(key).__name__}), ed25519 is needed")  # noqa: TRY004 - it is the file that is wrong
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
        raise Reject(Reason.KEY_UNKNOWN, f"signed with key {signed.key_id[:64]!r}, trusted are {listed(trusted_keys)}")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, signed.text.encode())
    except InvalidSignature as error:
        raise Reject(Reason.SIGNATURE_INVALID, f"the signature does not fit key {signed.key_id}") from error


def _malformed(detail: str) -> Reject:
    return Reject(Reason.MANIFEST_MALFORMED, f"the manifest {detail}")
