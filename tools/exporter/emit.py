"""Write the two known families of networks as ONNX nodes, batch norms folded into the convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from tools.exporter.crops import align_corners_upsample
from tools.exporter.networks import STAGES, is_second_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tools.exporter.crops import Crops
    from tools.exporter.graph import Array, Graph

LEVELS = 6  # of the encoder
END = 2**31  # of an axis, wherever that is
NORM_EPSILON = 1e-5  # torch's default, which checkpoints do not store


@dataclass(frozen=True, slots=True)
class KnownNetwork:
    """Weights of a network of either family: convolutions with batch norms folded in, by the key without `.weight`."""

    weights: Mapping[str, tuple[Array, Array]]  # (weight, bias), float32
    second_family: bool

    @property
    def width(self) -> int:
        """Channels of the first block."""
        return int(self.weights["encoder.block1.0"][0].shape[0])


def fold(state: Mapping[str, Array]) -> KnownNetwork:
    """Fold each batch norm into the convolution before it and the softmax over two classes into the last convolution.

    Softmax over (background, defect) is the logistic function of their difference, so one channel is enough.
    """
    weights: dict[str, tuple[Array, Array]] = {}
    for key in state:
        name = key.removesuffix(".weight")
        if name == key or state[key].ndim == 1:  # a bias, or the weight of a batch norm
            continue
        weight, bias = state[key].astype(np.float64), state[f"{name}.bias"].astype(np.float64)
        place, _, number = name.rpartition(".")
        norm = f"{place}.{int(number) + 1}" if number.isdigit() else ""
        if f"{norm}.running_mean" in state:
            gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"].astype(np.float64) + NORM_EPSILON)
            weight = weight * gain[:, None, None, None]
            bias = (bias - state[f"{norm}.running_mean"]) * gain + state[f"{norm}.bias"]
        if name.startswith("decoder.fin_out"):
            name, weight, bias = "decoder.fin_out", weight[1:] - weight[:1], bias[1:] - bias[:1]
        weights[name] = weight.astype(np.float32), bias.astype(np.float32)
    return KnownNetwork(weights, is_second_family(state))


def emit_network(graph: Graph, network: KnownNetwork, patches: str, crops: Crops, *, integer: bool = False) -> str:
    """Append the network; `patches` is (N, 3, h, w) in 0..1, the result what is kept of the defect's probability.

    The second family averages over the whole patch, so there only what follows the last average can be cut. `integer`
    writes what is only fast, or only possible, once it is quantised.
    """
    levels = _encode(graph, network, patches, crops, share=integer)
    features = levels[-1]
    if network.second_family:
        features = _sppf(graph, network, features)
    if network.second_family:
        return _decode_second(graph, network, features, levels, crops, integer=integer)
    plan = crops.plan([3, 3, 3, 3, 4])  # up, two of db; the last stage has fin_out too
    below = crops.whole(len(STAGES))
    for number, (stage, skip, region) in enumerate(zip(STAGES, reversed(levels[:-1]), plan, strict=True), 1):
        whole = crops.whole(len(STAGES) - number)
        channels = network.weights[f"decoder.up{stage}.1"][0].shape[1]
        features = crops.upsample(features, (patches, channels), region, below, whole[0])
        features = _conv_relu(graph, network, f"decoder.up{stage}.1", features)
        features = graph.add("Concat", [features, crops.cut(skip, region, whole)], axis=1)
        for layer in (0, 3):
            features = _conv_relu(graph, network, f"decoder.db{stage}.{layer}", features)
        below = region
    heat = graph.add("Sigmoid", [_last(graph, network, features, integer=integer)])
    return crops.cut(heat, crops.kept, below)


def _encode(graph: Graph, network: KnownNetwork, patches: str, crops: Crops, *, share: bool) -> list[str]:
    """Append the encoder and give the result of each level, the first one with the size of the patch.

    To `share` columns with the patch on the left pays in 8 bits alone: in float onnxruntime would turn them twice.
    """
    levels: list[str] = []
    features = patches
    plan = crops.sharing([2] * LEVELS) if share else []
    for number, shared in zip_longest(range(1, LEVELS + 1), plan):
        if levels:
            features = _pool(graph, features, 2, 2, 0)
        if shared:
            features = crops.leave_out(features, shared)
        for layer in (0, 3):
            features = _conv_relu(graph, network, f"encoder.block{number}.{layer}", features)
        if shared:
            channels = network.weights[f"encoder.block{number}.3"][0].shape[0]
            features = crops.take_over(features, shared, channels, crops.layout.patch_height >> (number - 1))
        levels.append(features)
    return levels


def _decode_second(
    graph: Graph, network: KnownNetwork, features: str, levels: list[str], crops: Crops, *, integer: bool
) -> str:
    region = crops.plan([2])[0]
    whole = crops.whole(0)
    for stage, skip in zip(STAGES, reversed(levels[:-1]), strict=True):
        features = _conv_relu(graph, network, f"decoder.up{stage}.1", align_corners_upsample(graph, features))
        features = graph.add("Concat", [features, skip], axis=1)
        gate = _gate(graph, network, f"decoder.se{stage}.fc", features)
        if stage == STAGES[-1]:
            features = crops.cut(features, region, whole)
        features = graph.add("Mul", [features, gate], outputs=[f"decoder.se{stage}"])
        features = _conv_relu(graph, network, f"decoder.db{stage}.0", features)
    heat = graph.add("Sigmoid", [_last(graph, network, features, integer=integer)])
    return crops.cut(heat, crops.kept, region)


def _conv(graph: Graph, network: KnownNetwork, name: str, features: str) -> str:
    weight, bias = network.weights[name]
    side = weight.shape[2]
    inputs = [features, graph.weight(weight), graph.constant(bias)]
    return graph.add("Conv", inputs, outputs=[name], kernel_shape=[side, side], pads=[side // 2] * 4)


def _conv_relu(graph: Graph, network: KnownNetwork, name: str, features: str) -> str:
    return graph.add("Relu", [_conv(graph, network, name, features)], outputs=[f"{name}/relu"])


def _last(graph: Graph, network: KnownNetwork, features: str, *, integer: bool) -> str:
    """Append the last convolution, to one channel: 1x1 to its nine taps, which are then shifted and added.

    Fast kernels come in blocks of 16 output channels, of which a direct convolution would use one.
    """
    weight, bias = network.weights["decoder.fin_out"]
    rows, columns = weight.shape[2:]
    by_tap = weight[0].reshape(weight.shape[1], rows * columns).T
    if integer:
        pixels = graph.add("Transpose", [features], perm=[0, 2, 3, 1])
        taps_of_pixels = graph.add("MatMul", [pixels, graph.weight(by_tap.T)], outputs=["decoder.fin_out/taps"])
        spread = graph.add("Transpose", [taps_of_pixels], perm=[0, 3, 1, 2])
    else:
        inputs = [features, graph.weight(by_tap[:, :, None, None])]
        spread = graph.add("Conv", inputs, outputs=["decoder.fin_out/taps"], kernel_shape=[1, 1])
    around = graph.add("Pad", [spread, graph.ints(0, 0, rows // 2, columns // 2, 0, 0, rows // 2, columns // 2)])
    shifted = []
    for tap in range(rows * columns):
        down, right = divmod(tap, columns)
        starts = graph.ints(tap, down, right)
        stops = graph.ints(tap + 1, *(shift - side + 1 or END for shift, side in ((down, rows), (right, columns))))
        shifted.append(graph.slice(around, starts, stops, graph.ints(1, 2, 3)))
    return graph.add("Sum", [*shifted, graph.constant(bias[:, None, None])], outputs=["decoder.fin_out"])


def _pool(graph: Graph, features: str, side: int, stride: int, pad: int) -> str:
    return graph.add("MaxPool", [features], kernel_shape=[side, side], strides=[stride, stride], pads=[pad] * 4)


def _sppf(graph: Graph, network: KnownNetwork, features: str) -> str:
    pooled = [_conv_relu(graph, network, "encoder.sppf.conv1.0", features)]
    for _ in range(3):
        pooled.append(_pool(graph, pooled[-1], 5, 1, 2))
    return _conv_relu(graph, network, "encoder.sppf.conv2.0", graph.add("Concat", pooled, axis=1))


def _gate(graph: Graph, network: KnownNetwork, name: str, features: str) -> str:
    """Squeeze and excitation up to the factor for each channel, (N, C, 1, 1)."""
    gate = graph.add("GlobalAveragePool", [features])
    for layer, activation in ((0, "Relu"), (2, "Sigmoid")):
        weight, bias = network.weights[f"{name}.{layer}"]
        inputs = [gate, graph.constant(weight[:, :, None, None]), graph.constant(bias)]
        gate = graph.add(activation, [graph.add("Conv", inputs, kernel_shape=[1, 1])])
    return gate
