"""A file that is no model is named for what it is; a model is never taken for something else."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from typing import TYPE_CHECKING

import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.contract.file_kind import tell_what_it_is
from tests.helpers import bad_models
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return file.getvalue()


NOT_MODELS = {
    "empty": (b"", "it is empty"),
    "zeros": (bytes(100_000), "nothing but zeros"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    "HTML": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page"),
    "JSON": (b'{"error": "not found"}', "JSON text"),
    "text": ("Größe: 5\n".encode() * 1000, "text, which begins with 'Größe"),
    "XML": (b'<?xml version="1.0"?><net/>', "an XML file"),
    "key": (b"-----BEGIN PRIVATE KEY-----\n", "a key"),
    "torch checkpoint": (
        _zip("pcb/data.pkl", "pcb/data/0", "pcb/version"),
        "a torch checkpoint (.pth); export it first",
    ),
    "TorchScript": (_zip("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"), "TorchScript"),
    "zip": (_zip("model.onnx"), "an archive (zip)"),
    "old checkpoint": (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"more", "a torch checkpoint in its old format"),
    "pickle": (pickle.dumps({"weights": [1.0]}), "a Python pickle"),
    "safetensors": ((10).to_bytes(8, "little") + b'{"a": {}}  ' + bytes(40), "safetensors"),
    "gzip": (gzip.compress(b"model"), "compressed (gzip)"),
    "tar": (_tar(), "an archive (tar)"),
    "TIFF": (b"II*\x00" + bytes(100), "a TIFF image"),
    "PNG": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    "ort": (b"\x18\x00\x00\x00ORTM" + bytes(100), "onnxruntime's own format"),
}


@pytest.mark.parametrize("kind", NOT_MODELS)
def test_what_is_no_model_is_named_for_what_it_is(kind: str) -> None:
    """In words that say what to do."""
    content, said = NOT_MODELS[kind]
    assert said in tell_what_it_is(content)


def test_a_model_that_is_cut_off_or_has_something_behind_it_is_told(tmp_path: Path) -> None:
    """An upload that broke off, two files in one."""
    difference_model(tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    assert "it is cut off" in tell_what_it_is(content[: len(content) * 2 // 3])
    assert "it is cut off" in tell_what_it_is(content[:-1])
    assert f"from byte {len(content)}" in tell_what_it_is(content + b"\x00" * 10)


def test_weights_in_another_file_are_told_with_its_name(tmp_path: Path) -> None:
    """They are never read: not beside the model, not anywhere."""
    bad_models.external_data("weights.bin")(tmp_path / "m.onnx")
    assert "another file ('weights.bin'; external data)" in tell_what_it_is((tmp_path / "m.onnx").read_bytes())


def test_models_are_models() -> None:
    """With a loop, weights outside of it, metadata of megabytes."""
    content = (ROOT / "agent" / "demo" / "model.onnx").read_bytes()
    assert not tell_what_it_is(content)
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    model.ClearField("producer_name")
    assert not tell_what_it_is(model.SerializeToString())


@example(b"!" + bytes(8) + b"\x3a\x01", b"")  # a graph that ends behind the file
@given(st.binary(max_size=200), st.sampled_from([content for content, _ in NOT_MODELS.values()]))
def test_any_bytes_are_looked_at_without_an_error(some: bytes, start: bytes) -> None:
    """Whatever it says is one printable line."""
    for content in (some, start[: len(some)], start[:9] + some, b"\x08\x08" + some):
        assert tell_what_it_is(content).isprintable()
