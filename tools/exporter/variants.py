"""All variants of one network with random weights, to measure them against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tools.exporter.calibration import quantise_everything
from tools.exporter.emit import fold
from tools.exporter.layout import make_layout
from tools.exporter.networks import UNet
from tools.exporter.plain import export_plain
from tools.exporter.progress import progress
from tools.exporter.quantise import QuantisationPlan
from tools.exporter.source import Source
from tools.exporter.strips import feed, made_up_strips

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (976, 176)
PATCH = (128, 128)
OPSET = 17
LOWEST, HIGHEST = 0.05, 0.95  # probabilities that the random network's output spans
FIRST_LAYER = "encoder.block1.0"  # the layer that calibration most often leaves in float


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


@torch.no_grad()
def multiplications(width: int, *, second_family: bool) -> int:
    """Count the multiplications of all convolutions for one strip, patch by patch as the plain export does them."""
    network = random_network(width, second_family=second_family)
    total = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += output[0].numel() * weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    network(torch.zeros(1, 3, *PATCH))
    layout = make_layout(SIZE, PATCH)
    return total * len(layout.rows) * len(layout.columns)


def make_variants(folder: Path, width: int, *, second_family: bool) -> dict[str, Path]:
    """Write the plain export and each variant into `folder`."""
    network = random_network(width, second_family=second_family)
    known = fold({key: value.numpy() for key, value in network.state_dict().items()})
    source = Source(network, known, "random")
    layout = make_layout(SIZE, PATCH)
    strips = [feed(strip, "unit") for strip in made_up_strips(SIZE)[:1]]
    ranges = quantise_everything(source, layout, strips, OPSET).plan.ranges
    everything, all_but_first = QuantisationPlan(ranges), QuantisationPlan(ranges, frozenset({FIRST_LAYER}))
    drawn: dict[str, tuple[str, QuantisationPlan | None]] = {
        "fp32 exact": ("exact", None),
        "int8 exact": ("exact", everything),
        "int8 exact, first float": ("exact", all_but_first),
    }
    if not second_family:
        drawn |= {"fp32 whole": ("whole", None), "int8 whole": ("whole", everything)}
    paths = {"plain export": folder / "plain.onnx"}
    paths["plain export"].write_bytes(export_plain(network, layout))
    for name, (window, plan) in progress(list(drawn.items()), "variants"):
        paths[name] = folder / f"{name.replace(', ', '-').replace(' ', '-')}.onnx"
        model = source.draw(layout, plan, window=window, opset=OPSET, input_scale="unit")
        paths[name].write_bytes(model.SerializeToString(deterministic=True))
    return paths
