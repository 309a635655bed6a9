"""What a patch takes from the patch on its left is what it would have computed itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.worker.model import make_options
from tools.exporter import crops
from tools.exporter.calibration import calibrate, quantise_everything
from tools.exporter.emit import fold
from tools.exporter.layout import make_layout
from tools.exporter.regions import plan_sharing
from tools.exporter.source import Source
from tools.exporter.strips import feed, made_up_strips
from tools.exporter.variants import random_network

if TYPE_CHECKING:
    from pathlib import Path

    from tools.exporter.graph import Array
    from tools.exporter.quantise import QuantisationPlan
    from tools.exporter.regions import Shared

OPSET = 17
PATCH = (64, 64)


def _convolved(row: Array) -> Array:
    """Convolve three wide with zeros beyond the edges; whole numbers, so that nothing is hidden by rounding."""
    padded = np.pad(row, 1)
    found: Array = (padded[:-2] * 3 + padded[1:-1] * 5 + padded[2:] * 7) % 10007
    return found


def _level(row: Array, count: int) -> Array:
    for _ in range(count):
        row = _convolved(row)
    return row


def _with_sharing(row: Array, count: int, shared: Shared, place: int, before: Array) -> Array:
    """One level of a patch in place `place` of its row, as the graph does it."""
    left_out, taken, shift = shared.left_out[place], shared.taken[place], shared.shifts[place]
    own = _level(np.concatenate([row[: shared.left_out[0].start], row[left_out.stop :]]), count)
    middle = before[taken.start + shift : taken.stop + shift]
    after_seam = taken.stop - (left_out.stop - left_out.start)
    return np.concatenate([own[: shared.rim], middle, own[after_seam:]])


@given(
    st.integers(64, 400),
    st.sampled_from([32, 64, 128]),
    st.lists(st.integers(1, 3), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_what_is_taken_is_what_would_have_been_computed(
    width: int, patch: int, convolutions: list[int], seed: int
) -> None:
    """Whatever the strip's width, the patch and the levels: each level of each patch comes out the same."""
    assume(width > patch)
    columns = make_layout((patch, width), (patch, patch)).columns
    plan = plan_sharing(columns, patch, convolutions)
    strip = np.random.default_rng(seed).integers(0, 10007, width)
    before: list[Array] = [np.zeros(0, int)] * len(plan)
    for place, window in enumerate(columns):
        row = strip[window.start : window.start + patch]
        for level, (count, shared) in enumerate(zip(convolutions, plan, strict=False)):
            expected = _level(row, count)
            found = _with_sharing(row, count, shared, place, before[level])
            assert np.array_equal(found, expected)
            before[level] = found
            row = expected.reshape(-1, 2).max(1)


def test_a_strip_shares_three_levels() -> None:
    """Of 976 x 176 the right patch computes 56 of 128, 34 of 64 and 24 of 32 columns of the first three levels."""
    plan = plan_sharing(make_layout((976, 176), (128, 128)).columns, 128, [2] * 6)
    computed = [shared.length - (shared.left_out[1].stop - shared.left_out[1].start) for shared in plan]
    assert computed == [56, 34, 24]
    assert all(span.stop == span.start for shared in plan for span in (shared.left_out[0], shared.taken[0]))


def _draw(source: Source, size: tuple[int, int], plan: QuantisationPlan | None) -> bytes:
    model = source.draw(make_layout(size, PATCH), plan, window="exact", opset=OPSET, input_scale="unit")
    drawn: bytes = model.SerializeToString()
    return drawn


def _run(model: bytes, strips: Array) -> Array:
    session = onnxruntime.InferenceSession(model, make_options(1), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {session.get_inputs()[0].name: strips})[0]
    return found


@pytest.mark.parametrize("second_family", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("width", [88, 150], ids=["two in a row", "four in a row, an odd distance apart"])
def test_a_file_that_shares_gives_the_same_heatmaps(
    monkeypatch: pytest.MonkeyPatch, width: int, second_family: bool
) -> None:
    """For a batch of two, to the last bit: those of the file whose patches compute everything themselves."""
    size, network = (100, width), random_network(8, second_family=second_family)
    source = Source(network, fold({key: value.numpy() for key, value in network.state_dict().items()}), "n")
    strips = np.stack([feed(strip, "unit") for strip in made_up_strips(size)[:2]])
    int8 = quantise_everything(source, make_layout(size, PATCH), list(strips), OPSET).plan
    shared = _draw(source, size, int8)
    monkeypatch.setattr(crops, "plan_sharing", lambda *_: [])
    alone = _draw(source, size, int8)
    assert shared != alone
    found, expected = _run(shared, strips), _run(alone, strips)
    assert expected.std() > 0.01
    assert np.array_equal(found, expected)


def test_nothing_is_turned_round_to_be_carried(tmp_path: Path) -> None:
    """What int8 hands from patch to patch stays in onnxruntime's own order: two transposes as without it."""
    size, network = (100, 88), random_network(8, second_family=False)
    source = Source(network, fold({key: value.numpy() for key, value in network.state_dict().items()}), "n")
    plan = calibrate(source, make_layout(size, PATCH), [feed(made_up_strips(size)[0], "unit")], OPSET).plan
    options: Any = make_options(1)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(_draw(source, size, plan), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    [body] = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    counted = Counter(node.op_type for node in body.node)
    assert counted["Transpose"] == 2, "behind the first layer, which is in float, and around the last"
    assert len(body.output) > 2, "something is carried"
