"""inspect tells what any ONNX file is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.models import difference_model
from tools.exporter.errors import ExportError
from tools.exporter.inspecting import inspect_model

if TYPE_CHECKING:
    from pathlib import Path


def test_good_model_is_described(tmp_path: Path) -> None:
    """Metadata, contract, golden strip, scale, nodes, size, memory."""
    path = tmp_path / "model.onnx"
    difference_model(path)
    lines = list(inspect_model(path.read_bytes()))
    assert any(line.startswith("contract  met") for line in lines)
    assert any(line.startswith("golden    reproduced") for line in lines)
    assert {line.split()[0] for line in lines} >= {"size", "weights", "nodes", "memory", "metadata", "port", "scale"}


def test_broken_contract_is_said_with_its_reason(tmp_path: Path) -> None:
    """A model whose metadata contradicts its input."""
    path = tmp_path / "model.onnx"
    difference_model(path)
    content = path.read_bytes().replace(b"strip_agent.contract\x12\x011", b"strip_agent.contract\x12\x017")
    assert any("NOT met (model_metadata)" in line for line in inspect_model(content))


@pytest.mark.parametrize("content", [b"", b"no model", bytes(1000)])
def test_other_files_are_refused(content: bytes) -> None:
    """Empty, text, zeros."""
    with pytest.raises(ExportError, match="not an ONNX file"):
        list(inspect_model(content))
