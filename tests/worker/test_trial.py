"""What a model must prove before a strip comes near it, whatever its file says of itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.demo.pushes import zero_weights
from agent.errors import Reason, Reject
from agent.worker.model import load_model, read_model
from agent.worker.sight import BRIGHT, DARK, make_strips
from agent.worker.trial import Proof, prove
from tests.helpers import bad_models
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.contract.model import ModelFacts

SMALL: dict[str, Any] = {"height": 160, "width": 96}


def try_model(
    path: Path, unlabelled_input_scale: str = "auto", *, is_accepted: bool = False
) -> tuple[ModelFacts, Proof]:
    """Do in this process what a worker does with a model; raises what it refuses it with."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    model = load_model(read_model(path, sha256), threads=1, unlabelled_input_scale=unlabelled_input_scale)
    model, proof = prove(model, is_accepted=is_accepted)
    return model.facts, proof


def refusal_of(path: Path, unlabelled_input_scale: str = "auto") -> Reject:
    """Give the refusal; a model that is taken fails the test."""
    with pytest.raises(Reject) as caught:
        try_model(path, unlabelled_input_scale)
    assert caught.value.model_fault
    return caught.value


@pytest.mark.parametrize("kind", bad_models.BLIND)
def test_a_model_that_finds_no_defect_is_refused_though_it_keeps_every_promise(tmp_path: Path, kind: str) -> None:
    """Labelled, its golden strip reproduced to the last digit, a high version: it tells no defect from none."""
    bad_models.BLIND[kind](tmp_path / "m.onnx")
    refusal = refusal_of(tmp_path / "m.onnx")
    assert refusal.reason is Reason.MODEL_BLIND
    assert "in an obvious defect" in refusal.detail


def test_a_file_cannot_allow_itself_more_than_the_box_does(tmp_path: Path) -> None:
    """Its own tolerance is 1.0, so that any heatmap would do."""
    bad_models.states_its_own_tolerance(tmp_path / "m.onnx")
    refusal = refusal_of(tmp_path / "m.onnx")
    assert refusal.reason is Reason.GOLDEN_MISMATCH
    assert "allowed is 0.1" in refusal.detail


@pytest.mark.parametrize("scale", ["unit", "gray8"])
@pytest.mark.parametrize("version", [1, None])
def test_a_model_that_sees_is_taken_in_its_own_scale(tmp_path: Path, scale: str, version: int | None) -> None:
    """Stated in the file, or found out by the trial where it states nothing."""
    difference_model(tmp_path / "m.onnx", scale=scale, version=version, **SMALL)
    facts, proof = try_model(tmp_path / "m.onnx")
    assert (facts.labelled, facts.input_scale) == (version is not None, scale)
    assert proof.sight.sees


@pytest.mark.parametrize("size", [(976, 176), (384, 384), (64, 48), (40, 200)])
def test_strips_of_every_size_show_the_defect(tmp_path: Path, size: tuple[int, int]) -> None:
    """What is seen on a strip is seen on a square and on a sliver."""
    difference_model(tmp_path / "m.onnx", height=size[0], width=size[1])
    assert try_model(tmp_path / "m.onnx")[1].sight.sees


def test_the_model_of_the_demo_sees_and_with_a_layer_zeroed_it_does_not(tmp_path: Path) -> None:
    """A trained network, and the same that finds nothing any more."""
    content = (ROOT / "agent" / "demo" / "model.onnx").read_bytes()
    _, proof = try_model(ROOT / "agent" / "demo" / "model.onnx")
    assert proof.sight.defect > 0.9
    assert proof.sight.clean < 0.1
    model = onnx.load_from_string(zero_weights(content))
    metadata = [prop for prop in model.metadata_props if not prop.key.startswith("strip_agent.golden")]
    del model.metadata_props[:]
    model.metadata_props.extend(metadata)
    onnx.save(model, tmp_path / "zeroed.onnx")
    assert refusal_of(tmp_path / "zeroed.onnx").reason is Reason.MODEL_BLIND


def test_a_trained_network_without_metadata_is_fed_what_it_was_trained_on(tmp_path: Path) -> None:
    """Fed 0..255 it would saturate, and call edges defects."""
    model = onnx.load(ROOT / "agent" / "demo" / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    facts, _ = try_model(tmp_path / "m.onnx")
    assert (facts.labelled, facts.input_scale) == (False, "unit")


@pytest.mark.parametrize("write", [bad_models.sees_in_any_scale, bad_models.sees_in_no_scale])
def test_where_both_scales_or_neither_show_the_defect_nobody_guesses(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """The refusal has the numbers of both."""
    write(tmp_path / "m.onnx")
    refusal = refusal_of(tmp_path / "m.onnx")
    assert refusal.reason is Reason.INPUT_SCALE_DOUBTFUL
    assert "fed as unit it has" in refusal.detail
    assert "fed as gray8 it has" in refusal.detail


def test_what_is_configured_is_not_found_out(tmp_path: Path) -> None:
    """The wrong scale is refused with a hint, a model that sees in both is fed as configured."""
    difference_model(tmp_path / "gray8.onnx", version=None, scale="gray8", **SMALL)
    assert try_model(tmp_path / "gray8.onnx", "gray8")[0].input_scale == "gray8"
    assert refusal_of(tmp_path / "gray8.onnx", "unit").reason is Reason.INPUT_SCALE_DOUBTFUL
    bad_models.sees_in_any_scale(tmp_path / "any.onnx")
    assert try_model(tmp_path / "any.onnx", "unit")[0].input_scale == "unit"
    bad_models.sees_in_no_scale(tmp_path / "no.onnx")
    assert refusal_of(tmp_path / "no.onnx", "unit").reason is Reason.MODEL_BLIND


def test_a_model_that_is_broken_in_both_scales_is_refused_for_what_is_broken(tmp_path: Path) -> None:
    """Not for its scale."""
    bad_models.gives_nan(tmp_path / "labelled.onnx")
    model = onnx.load(tmp_path / "labelled.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    assert refusal_of(tmp_path / "m.onnx").reason is Reason.OUTPUT_NON_FINITE


OF_AN_EARLIER_RELEASE: dict[str, Callable[[Path], None]] = {
    **bad_models.BLIND,
    "a wide tolerance": bad_models.states_its_own_tolerance,
    "any scale": bad_models.sees_in_any_scale,
    "no scale": bad_models.sees_in_no_scale,
}


@pytest.mark.parametrize("kind", OF_AN_EARLIER_RELEASE)
def test_a_model_that_an_earlier_release_accepted_goes_on_after_the_upgrade(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What only new models are asked is logged; without metadata it is fed as that release fed it."""
    OF_AN_EARLIER_RELEASE[kind](tmp_path / "m.onnx")
    assert refusal_of(tmp_path / "m.onnx").model_fault
    facts, proof = try_model(tmp_path / "m.onnx", is_accepted=True)
    assert facts.labelled or facts.input_scale == "unit"
    assert proof.run_ms > 0
    assert "the active model" in caplog.text


def test_an_accepted_model_that_breaks_the_contract_goes_all_the_same(tmp_path: Path) -> None:
    """Nothing that could be judged comes out of it."""
    bad_models.gives_nan(tmp_path / "m.onnx")
    with pytest.raises(Reject) as caught:
        try_model(tmp_path / "m.onnx", is_accepted=True)
    assert caught.value.reason is Reason.OUTPUT_NON_FINITE


@settings(deadline=None)
@given(height=st.integers(16, 300), width=st.integers(16, 300))
def test_the_made_strips_differ_in_the_defects_alone_and_reach_no_end_of_the_scale(height: int, width: int) -> None:
    """In the target alone, and nothing is clipped; the same strips each time."""
    strips = make_strips(height, width)
    assert strips.clean.shape == strips.defective.shape == (3, height, width)
    assert strips.defective.dtype == np.float32
    assert (strips.clean[1:] == strips.defective[1:]).all()
    assert all(inside.any() for inside in strips.defects)
    for strip in (strips.clean, strips.defective):
        assert strip.min() > DARK - 15
        assert strip.max() < BRIGHT + 15
    assert (make_strips(height, width).defective == strips.defective).all()
