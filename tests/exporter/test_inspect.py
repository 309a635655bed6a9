"""inspect tells what any ONNX file is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from agent.errors import Blame, Reason, Retry
from tests.helpers.models import difference_model
from tools import export
from tools.exporter.errors import ExportError
from tools.exporter.inspecting import inspect_model

if TYPE_CHECKING:
    from pathlib import Path

    import onnx


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


def test_what_a_models_author_wrote_commands_no_terminal(tmp_path: Path) -> None:
    """Producer, names, metadata: anybody may have written them; each stays on its line, and can be printed."""
    hostile = "\x1b[2J\nFORGED good\u202e"

    def edit(model: onnx.ModelProto) -> None:
        model.producer_name = hostile
        model.graph.node[-1].op_type = hostile
        model.metadata_props.add(key=hostile, value=hostile)

    difference_model(tmp_path / "model.onnx", golden=False, edit=edit)
    done = CliRunner().invoke(export.main, ["inspect", str(tmp_path / "model.onnx")])
    lines = done.output.splitlines()
    assert any("FORGED" in line for line in lines), done.output
    assert not any(line.startswith("FORGED") for line in lines)
    assert all(line.isprintable() for line in lines)


def test_lack_of_memory_is_one_sentence_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be told without a trial is told before it."""
    difference_model(tmp_path / "model.onnx", golden=False)

    def no_memory(*_: object, **__: object) -> None:
        raise Retry(Reason.NO_MEMORY, "no memory for the model", Blame.BOX)

    for step in ("try_to_look", "prove"):
        with monkeypatch.context() as context:
            context.setattr(f"tools.exporter.inspecting.{step}", no_memory)
            lines = inspect_model((tmp_path / "model.onnx").read_bytes())
            assert next(lines).startswith("size")
            with pytest.raises(ExportError, match=r"no memory for the model\): free some memory"):
                list(lines)
