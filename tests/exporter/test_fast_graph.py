"""What makes the file fast stays as it is meant once onnxruntime has optimised it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from agent.worker.model import make_options
from tools.exporter.calibration import quantise_everything
from tools.exporter.emit import fold
from tools.exporter.layout import make_layout
from tools.exporter.networks import STAGES
from tools.exporter.reference import reference_heatmap
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import Source
from tools.exporter.strips import feed, made_up_strips
from tools.exporter.variants import PATCH, SIZE, random_network

if TYPE_CHECKING:
    from pathlib import Path

OPSET = 17


def _source() -> Source:
    network = random_network(8, second_family=False)
    return Source(network, fold({key: value.numpy() for key, value in network.state_dict().items()}), "n")


def test_int8_leaves_8_bits_for_the_upsamplings_alone(tmp_path: Path) -> None:
    """Each upsampling costs one step into float; to ask a tensor for its shape would cost another."""
    layout, source = make_layout(SIZE, PATCH), _source()
    strips = [feed(strip, "unit") for strip in made_up_strips(SIZE)[:1]]
    plan = quantise_everything(source, layout, strips, OPSET).plan
    model = source.draw(layout, plan, window="exact", opset=OPSET, input_scale="unit")
    options: Any = make_options(1)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    [body] = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    counted = Counter(node.op_type for node in body.node)
    assert counted["DequantizeLinear"] == len(STAGES) == counted["Resize"]
    assert counted["Shape"] <= 1, "of the patch, to know how many there are"


def test_the_last_layer_reaches_beyond_what_is_kept_and_sees_zeros_beyond_the_patch() -> None:
    """Shifting and adding its nine taps is the 3x3 convolution, also on the rim of a patch and of what is cut out."""
    source, layout = _source(), make_layout(SIZE, PATCH)
    last: Any = source.network.get_submodule("decoder.fin_out.0")
    with torch.no_grad():
        last.weight.copy_(last.weight.flip(2).roll(1, 3) * 1.5)  # each tap another one than before
    known = fold({key: value.numpy() for key, value in source.network.state_dict().items()})
    source = Source(source.network, known, "n")
    model = source.draw(layout, None, window="exact", opset=OPSET, input_scale="unit").SerializeToString()
    strip = feed(made_up_strips(SIZE)[0], "unit")
    found, expected = run_strip(open_session(model), strip), reference_heatmap(source.module, layout, strip)
    assert expected.std() > 0.01
    assert np.abs(found - expected).max() < 5e-5


@pytest.mark.parametrize(
    ("size", "patch", "grid"),
    [((64, 194), (64, 128), (1, 9)), ((600, 32), (512, 32), None)],
    ids=["as many columns as what they are made of", "made of one column"],
)
def test_a_small_part_is_upsampled_from_its_place(
    size: tuple[int, int], patch: tuple[int, int], grid: tuple[int, int] | None
) -> None:
    """Also of patches that overlap by nearly all, and of long narrow ones: the heatmap is torch's."""
    network = random_network(2, second_family=False, patch=patch)
    known = fold({key: value.numpy() for key, value in network.state_dict().items()})
    source, layout = Source(network, known, "n"), make_layout(size, patch, grid)
    model = source.draw(layout, None, window="exact", opset=OPSET, input_scale="unit").SerializeToString()
    strip = feed(made_up_strips(size)[0], "unit")
    found, expected = run_strip(open_session(model), strip), reference_heatmap(source.module, layout, strip)
    assert expected.std() > 0.01
    assert np.abs(found - expected).max() < 5e-5
