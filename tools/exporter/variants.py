"""All variants of one network, with random weights or those of a checkpoint, to measure them against each other."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tools.exporter.approval import Refused
from tools.exporter.calibration import calibrate, quantise_everything
from tools.exporter.checkpoint import PATCH_SIDE, image_size_of, load_checkpoint
from tools.exporter.emit import fold
from tools.exporter.errors import ExportError
from tools.exporter.exporting import export_model
from tools.exporter.layout import make_layout
from tools.exporter.networks import UNet
from tools.exporter.options import Options
from tools.exporter.plain import export_patch, export_plain
from tools.exporter.progress import progress
from tools.exporter.quantise import QuantisationPlan
from tools.exporter.source import Source, check_layer, make_source
from tools.exporter.strips import feed, made_up_strips
from tools.exporter.versions import utc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.exporter.layout import Layout

SIZE = (976, 176)
PATCH = (128, 128)
OPSET = 17
LOWEST, HIGHEST = 0.05, 0.95  # probabilities that the random network's output spans
FIRST_LAYER = "encoder.block1.0"  # the layer that calibration most often leaves in float
PLAIN, FP32, INT8 = "plain export", "fp32 exact", "int8 exact"
CALLS = "a call for each patch"  # of the network alone, as scripts do that cut and stitch themselves


@dataclass(frozen=True, slots=True)
class Variants:
    """The files of one network by what they are, the plain export first, for strips of this layout."""

    name: str
    weights: str  # a sentence: where the weights come from, and the ranges of int8
    layout: Layout
    paths: Mapping[str, Path]

    @property
    def size(self) -> tuple[int, int]:
        """Give the strip's (height, width)."""
        return self.layout.height, self.layout.width


@torch.no_grad()
def random_network(width: int, *, second_family: bool, patch: tuple[int, int] = PATCH, inputs: int = 3) -> UNet:
    """Make a network with random weights and plausible statistics whose output spans LOWEST..HIGHEST."""
    torch.manual_seed(0)
    network = UNet(width, squeeze=second_family, inputs=inputs)
    strip = feed(made_up_strips(patch)[1], "unit")
    noise = feed(made_up_strips(patch)[0], "unit")
    example = torch.from_numpy(np.stack([strip, noise, strip[:, ::-1].copy(), noise * 0.5 + strip * 0.5]))
    example = example[:, [number % 3 for number in range(inputs)]]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # take the statistics of the first batch as they are
    network.train()
    network(example)
    network.eval()
    last: Any = network.decoder.fin_out if second_family else network.decoder.fin_out[0]  # type: ignore[index]
    logits = network(example)
    difference = logits[:, 1] - logits[:, 0]
    span = 2 * float(np.log(HIGHEST / LOWEST)) / float(difference.max() - difference.min())
    middle = span * float(difference.max() + difference.min()) / 2
    last.weight *= span
    last.bias *= span
    last.bias[1] -= middle
    return network


def make_variants(folder: Path, width: int, *, second_family: bool, size: tuple[int, int] = SIZE) -> Variants:
    """Write the plain export and each variant of a network with random weights into `folder`."""
    network = random_network(width, second_family=second_family)
    known = fold({key: value.numpy() for key, value in network.state_dict().items()})
    source = Source(network, known, f"{'second' if second_family else 'first'} family, width {width}")
    layout = make_layout(size, PATCH)
    strips = [feed(strip, "unit") for strip in made_up_strips(size)[:1]]
    ranges = quantise_everything(source, layout, strips, OPSET).plan.ranges
    everything, all_but_first = QuantisationPlan(ranges), QuantisationPlan(ranges, frozenset({FIRST_LAYER}))
    drawn: dict[str, tuple[str, QuantisationPlan | None]] = {
        FP32: ("exact", None),
        INT8: ("exact", everything),
        "int8 exact, first float": ("exact", all_but_first),
    }
    if not second_family:
        drawn |= {"fp32 whole": ("whole", None), "int8 whole": ("whole", everything)}
    return Variants(source.name, "Random weights.", layout, _write(folder, source, layout, drawn))


def make_trained_variants(folder: Path, checkpoint: Path, calibration: Path | None) -> Variants:
    """Write the plain export of a checkpoint, and what tools/export.py makes of it in both precisions.

    `calibration` is a folder with strips of the line; without it made-up strips give the ranges of int8.
    """
    read = load_checkpoint(checkpoint)
    source = make_source(read)
    patch = read.patch_size or (PATCH_SIDE, PATCH_SIDE)
    check_layer(source, patch)
    layout = make_layout(image_size_of(read), patch)
    size = (layout.height, layout.width)
    if calibration:
        plan, ranges = _as_exported(checkpoint, calibration)
    else:
        strips = [feed(strip, "unit") for strip in made_up_strips(size)]
        plan = calibrate(source, layout, strips, OPSET).plan
        ranges = "made-up strips gave the ranges of int8, so its heatmaps are worth nothing"
    kept = ", ".join(sorted(plan.float_layers)) or "none"
    weights = f"Trained weights: {checkpoint.name}; {ranges}; layers that int8 leaves in float: {kept}."
    drawn = {FP32: ("exact", None), INT8: ("exact", plan)}
    return Variants(source.name, weights, layout, _write(folder, source, layout, drawn))


def _as_exported(checkpoint: Path, calibration: Path) -> tuple[QuantisationPlan, str]:
    """Export a checkpoint to int8 to see how its layers come out, whether or not the guard then lets it through."""
    with tempfile.TemporaryDirectory() as scratch:
        # A version of its own, so that it does not count as one of this person's exports.
        asked = Options(
            precision="int8", calibration=calibration, version=1, created=utc(0), opset=OPSET, allow_blind=True
        )
        said = f"quantised by tools/export.py on the strips of {calibration.name}"
        try:
            exported = export_model(checkpoint, Path(scratch, "exported.onnx"), asked)
        except Refused as refused:
            exported = refused.exported
            said += ", whose guard then refuses the int8 file"
    if exported.calibration is None:
        raise ExportError("The export found no way to quantise: give more strips.")
    return exported.calibration.plan, said


def _write(
    folder: Path, source: Source, layout: Layout, drawn: Mapping[str, tuple[str, QuantisationPlan | None]]
) -> dict[str, Path]:
    paths = {PLAIN: folder / "plain.onnx", CALLS: folder / "patch.onnx"}
    paths[PLAIN].write_bytes(export_plain(source.module, layout))
    paths[CALLS].write_bytes(export_patch(source.module, layout))
    for name, (window, plan) in progress(list(drawn.items()), "variants"):
        paths[name] = folder / f"{name.replace(', ', '-').replace(' ', '-')}.onnx"
        model = source.draw(layout, plan, window=window, opset=OPSET, input_scale="unit")
        paths[name].write_bytes(model.SerializeToString(deterministic=True))
    return paths
