"""The bundled model: small, honest about itself, and right about the simulated strips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from agent.contract.measures import NAMES, parse_reference
from agent.contract.model import PREFIX, ModelDescription, Port, check_model
from agent.demo.pushes import MODEL, set_version, zero_weights
from agent.demo.strips import make_strip
from agent.drift.judging import FEWEST, Sample, judge
from agent.worker.measuring import measure

UNSEEN = 5  # seeds that neither the training nor the held-out test of tools/train_demo_model.py knows


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    """Load the bundled model as the worker does."""
    return onnxruntime.InferenceSession(MODEL.read_bytes(), providers=["CPUExecutionProvider"])


def test_the_bundled_model_is_small() -> None:
    """It travels with the package: less than 2 MiB, and nothing beside it."""
    assert MODEL.stat().st_size < 2 * 1024 * 1024
    assert [path.name for path in MODEL.parent.glob("*.onnx*")] == ["model.onnx"]


def test_the_bundled_model_keeps_the_contract(session: onnxruntime.InferenceSession) -> None:
    """It says who it is; the box accepts it without being told anything."""
    inputs, outputs = (
        tuple(Port(port.name, port.type, tuple(port.shape)) for port in ports)
        for ports in (session.get_inputs(), session.get_outputs())
    )
    facts = check_model(ModelDescription(inputs, outputs, session.get_modelmeta().custom_metadata_map))
    assert facts.labelled
    assert (facts.model_id, facts.version, facts.threshold) == ("flex-demo", 1, 0.5)
    assert (facts.height, facts.width, facts.input_scale) == (976, 176, "unit")


def test_the_bundled_model_knows_how_the_demos_strips_look(session: onnxruntime.InferenceSession) -> None:
    """Drift is compared from the first strips on, and finds nothing on the demo's line, which never changes."""
    reference = parse_reference(session.get_modelmeta().custom_metadata_map[f"{PREFIX}calibration_measures"])
    assert set(reference.spreads) == set(NAMES)
    samples = []
    for number in range(FEWEST):
        strip, _ = make_strip(np.random.default_rng([UNSEEN, number]), defects=int(number % 3 == 0))
        (heatmap, *_), *_ = session.run(["output"], {"input": strip[None, :3] / np.float32(255)})[0]
        samples.append(Sample(f"{number:016x}", measure(strip[:3], 255.0, float(heatmap.max()))))
    assert judge(reference, None, samples) == []
    dark = [replace(sample, measures=replace(sample.measures, level_target=120.0)) for sample in samples]
    assert [found.cause for found in judge(reference, None, dark)] == ["light"]


@pytest.mark.parametrize("defects", [0, 2])
def test_the_bundled_model_tells_good_strips_from_defective_ones(
    session: onnxruntime.InferenceSession, defects: int
) -> None:
    """Strips that it has never seen get the right verdict, good ones with a margin; the defects are where it says."""
    for number in range(5):
        strip, truth = make_strip(np.random.default_rng([UNSEEN, number]), defects=defects)
        (heatmap, *_), *_ = session.run(["output"], {"input": strip[None, :3] / np.float32(255)})[0]
        if defects:
            assert heatmap.max() >= 0.7
            assert truth.mask[np.unravel_index(heatmap.argmax(), heatmap.shape)]
        else:
            assert heatmap.max() < 0.4


def test_the_models_that_the_demo_pushes_are_what_it_says(session: onnxruntime.InferenceSession) -> None:
    """The newer one computes the same and says another version; the damaged one loads, runs and finds nothing."""
    strip, _ = make_strip(np.random.default_rng([UNSEEN, 0]), defects=2)
    fed = {"input": strip[None, :3] / np.float32(255)}
    (right,) = session.run(["output"], fed)
    newer = onnxruntime.InferenceSession(set_version(MODEL.read_bytes(), 300))
    assert newer.get_modelmeta().custom_metadata_map["strip_agent.version"] == "300"
    np.testing.assert_array_equal(newer.run(["output"], fed)[0], right)
    damaged = onnxruntime.InferenceSession(zero_weights(MODEL.read_bytes()))
    assert right[0, 0].max() > 0.9
    assert damaged.run(["output"], fed)[0][0, 0].max() < 0.1
