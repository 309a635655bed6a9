"""What a file that is refused says of itself: read without anything that could run it, whatever it claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest

from agent.contract.stated import stated_model
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_says_which_it_is(tmp_path: Path) -> None:
    """Whatever its network is worth."""
    path = tmp_path / "m.onnx"
    difference_model(path, model_id="line-3", version=12)
    assert stated_model(path) == ("line-3", 12)


@pytest.mark.parametrize(
    ("model_id", "version", "told"),
    [
        ("line-3", "twelve", ("line-3", 0)),
        ("<b>line\n", "12", ("", 12)),
        ("x" * 65, "-1", ("", 0)),
        ("a", "9" * 30, ("a", 0)),
    ],
)
def test_what_no_model_may_say_is_not_repeated(
    tmp_path: Path, model_id: str, version: str, told: tuple[str, int]
) -> None:
    """Each of both by itself."""
    path = tmp_path / "m.onnx"
    difference_model(path)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"strip_agent.model_id": model_id, "strip_agent.version": version})
    path.write_bytes(model.SerializeToString())
    assert stated_model(path) == told


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model at all",
        b"\x00" * 100,
        b"\x72\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x08\x01" * 5000,
        b"\x72\x05abc",
    ],
)
def test_junk_says_nothing(tmp_path: Path, content: bytes) -> None:
    """No file makes it fail, or take long."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert stated_model(path) == ("", 0)
    assert stated_model(tmp_path / "none.onnx") == ("", 0)
