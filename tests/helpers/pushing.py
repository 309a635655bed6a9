"""Push models to an inbox as `tools/export.py push` does: model first, manifest last, each complete at once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.contract.manifest import MANIFEST_SUFFIX, Manifest, format_manifest, format_manifest_file, make_key_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Signer:
    """A private key of somebody who signs models."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._public = self._key.public_key()

    @property
    def key_id(self) -> str:
        """Its name in manifests."""
        return make_key_id(self._public.public_bytes_raw())

    def write_public_key(self, path: Path) -> Path:
        """Write the public key as the box wants it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(self._public.public_bytes(serialization.Encoding.PEM, form))
        return path

    def sign(self, text: str) -> bytes:
        """Sign a manifest's text."""
        return self._key.sign(text.encode())


def put(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` make the file under a hidden name, then give it its own."""
    hidden = path.with_name(f".{path.name}.part")
    write(hidden)
    hidden.rename(path)
    return path


def make_manifest(
    model: Path,
    *,
    version: int = 99,
    model_id: str = "difference",
    slot: str = "default",
    rollback: bool = False,
    shadow: bool = False,
    created: str = "2026-11-22T00:00:00Z",
) -> Manifest:
    """Describe a model file as it is now."""
    with model.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    size = max(1, model.stat().st_size)
    return Manifest(sha256, size, model_id, version, slot, created, rollback, shadow)


def put_manifest(model: Path, manifest: Manifest, signer: Signer | None) -> Path:
    """Put a manifest beside a model, signed or not."""
    text = format_manifest(manifest)
    content = format_manifest_file(text, signer.sign(text) if signer else b"", signer.key_id if signer else "")
    return put(model.with_name(model.name + MANIFEST_SUFFIX), lambda path: path.write_bytes(content))


def push(path: Path, write: Callable[[Path], object], signer: Signer | None = None, *, version: int = 99) -> str:
    """Push a model, with a manifest where there is a signer; return its sha256."""
    put(path, write)
    manifest = make_manifest(path, version=version)
    if signer is not None:
        put_manifest(path, manifest, signer)
    return manifest.sha256
