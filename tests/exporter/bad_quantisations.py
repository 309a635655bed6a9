"""Quantise one trained network well, and wrongly in many ways; say what the guard says of each.

`python -m tests.exporter.bad_quantisations CHECKPOINT STRIPS` prints it as JSON: so it also runs in an emulated
processor.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.exporter.trained import PATCH_SIDE, TRAINED_IMAGE
from tools.exporter import quantise
from tools.exporter.blend import blend_defects
from tools.exporter.calibration import calibrate
from tools.exporter.checkpoint import load_checkpoint
from tools.exporter.guard import judge
from tools.exporter.layout import make_layout
from tools.exporter.options import DEFAULT_LIMITS
from tools.exporter.proving import Subject, compare_one, references
from tools.exporter.quantise import WEIGHT_LEVELS, QuantisationPlan
from tools.exporter.reference import torch_heat
from tools.exporter.session import open_session, run_strip
from tools.exporter.source import Source, make_source
from tools.exporter.strips import feed, read_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tools.exporter.graph import Array

    Change = Callable[[Array, Array], tuple[Array, Array]]

THRESHOLD = 0.5
GOOD = "as exported"
FIVE_BITS = 15  # levels on each side of zero


def verdicts(checkpoint: Path, strips: Path) -> dict[str, str]:
    """Give what the guard says of each quantisation, "" for nothing, by its name."""
    source = make_source(load_checkpoint(checkpoint))
    layout = make_layout(TRAINED_IMAGE, (PATCH_SIDE, PATCH_SIDE))
    limits = DEFAULT_LIMITS["int8", "exact"]
    subject = Subject(source, layout, "exact", 17, "unit", THRESHOLD, limits)
    proven = references(source, layout, read_folder(strips, TRAINED_IMAGE))
    real, heatmaps = [one.strip for one in proven], [one.expected for one in proven]
    proven += references(source, layout, blend_defects(real, heatmaps, layout, torch_heat(source.module), THRESHOLD))

    def plan_from(pixels: list[Array]) -> QuantisationPlan:
        return calibrate(source, layout, pixels, subject.opset).plan

    def verdict(drawn_from: Source, plan: QuantisationPlan) -> str:
        model = drawn_from.draw(layout, plan, window="exact", opset=subject.opset, input_scale="unit")
        session = open_session(model.SerializeToString())
        run = [replace(one, found=run_strip(session, feed(one.strip, "unit"))) for one in proven]
        return judge([compare_one(subject, one) for one in run], limits)[1]

    good = plan_from([feed(one.strip, "unit") for one in proven])
    shape = (3, *TRAINED_IMAGE)
    found = {
        GOOD: verdict(source, good),
        "ranges from a black strip": verdict(source, plan_from([np.zeros(shape, np.float32)])),
        "ranges from a grey strip": verdict(source, plan_from([np.full(shape, 0.5, np.float32)])),
    }
    found |= {name: verdict(source, plan) for name, plan in _bad_plans(good)}
    found |= {name: verdict(_with_weights(source, layer, change), good) for name, layer, change in _bad_weights()}
    quantise.WEIGHT_LEVELS = FIVE_BITS  # nothing else asks for it
    found["weights of 5 bits"] = verdict(source, good)
    quantise.WEIGHT_LEVELS = WEIGHT_LEVELS
    return found


def _bad_plans(good: QuantisationPlan) -> Iterator[tuple[str, QuantisationPlan]]:
    yield "everything in int8, the first layer too", replace(good, float_layers=frozenset())
    tensor = "decoder.db4.3/relu"
    low, high = good.ranges[tensor]
    yield "a late range cut to an eighth", replace(good, ranges={**good.ranges, tensor: (low / 8, high / 8)})
    quarter = {name: (low / 4, high / 4) for name, (low, high) in good.ranges.items()}
    yield "all ranges cut to a quarter", replace(good, ranges=quarter)


def _bad_weights() -> Iterator[tuple[str, str, Change]]:
    yield "a layer's scale off by two", "decoder.up3.1", lambda weight, bias: (weight * np.float32(2), bias)
    yield "two channels swapped, early", "encoder.block1.3", lambda weight, bias: (_swapped(weight), bias)
    yield "two channels swapped, late", "decoder.db4.3", lambda weight, bias: (_swapped(weight), bias)
    yield "a layer without its biases", "decoder.db3.0", lambda weight, bias: (weight, bias * 0)


def _swapped(weight: Array) -> Array:
    order = np.arange(weight.shape[1])
    strongest = np.argsort(np.abs(weight).sum((0, 2, 3)))[-2:]
    order[strongest] = order[strongest[::-1]]
    return weight[:, order]


def _with_weights(source: Source, layer: str, change: Change) -> Source:
    assert source.known
    weights = {**source.known.weights, layer: change(*source.known.weights[layer])}
    return replace(source, known=replace(source.known, weights=weights))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(verdicts(Path(sys.argv[1]), Path(sys.argv[2]))))
