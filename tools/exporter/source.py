"""The network to export, whichever way it came: of a family that is known here, or a user's own class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tools.exporter.channels import (
    RAW,
    Channels,
    FromStrip,
    check_count,
    choose_channels,
    compute_channels,
    is_raw,
    lowest_value,
    read_channels,
)
from tools.exporter.checkpoint import Checkpoint, build_known_network, load_weights
from tools.exporter.emit import KnownNetwork, emit_network, fold
from tools.exporter.errors import ExportError, reason_of
from tools.exporter.own_network import load_class
from tools.exporter.quantise import QuantisationPlan, layers_reading, quantise_nodes
from tools.exporter.traced import TORCHSCRIPT_UP_TO, export_layer, inline
from tools.exporter.windows import build_model, whole_layout

if TYPE_CHECKING:
    import onnx

    from tools.exporter.crops import Crops
    from tools.exporter.graph import Array, Graph
    from tools.exporter.layout import Layout

STRIDE = 32  # whole strips are padded to a multiple of it: five halvings
TAKES_OTHER_CHANNELS = re.compile(r"to have (\d+) channels, but got \d+ channels")  # torch's words
POOLING = {
    "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "Gemm", "Flatten",
    "InstanceNormalization", "GroupNormalization", "LayerNormalization",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A network ready to be written: in torch, where it is the truth, and as folded weights if its family is known.

    `channels` are what it takes, in order; `module` takes the three channels of a strip whatever they are.
    """

    network: torch.nn.Module
    known: KnownNetwork | None
    name: str
    channels: Channels = RAW

    @property
    def module(self) -> torch.nn.Module:
        """The network behind its channels: (B, 3, h, w) in 0..1 -> (B, 2, h, w) logits."""
        return self.network if is_raw(self.channels) else FromStrip(self.network, self.channels)

    def inputs_of(self, strip: Array) -> Array:
        """(3, H, W) in 0..1 -> what the network takes of it, (channels, H, W)."""
        if is_raw(self.channels):
            return strip
        computed: Array = compute_channels(torch.from_numpy(strip)[None], self.channels)[0].numpy()
        return computed

    def draw(
        self, layout: Layout, plan: QuantisationPlan | None, *, window: str, opset: int, input_scale: str
    ) -> onnx.ModelProto:
        """Build the model of the contract for strips of this layout, quantised by `plan` when there is one."""
        return build_model(
            lambda graph, patches, crops: self.emit(graph, patches, crops, plan),
            whole_layout(layout, STRIDE) if window == "whole" else layout,
            opset=opset,
            input_scale=input_scale,
            image_size=(layout.height, layout.width),
            channels=self.channels,
        )

    def emit(self, graph: Graph, patches: str, crops: Crops, plan: QuantisationPlan | None = None) -> str:
        """Append the network, quantised by `plan` when there is one; returns what is kept of the heat, (N, 1, ...).

        A layer that reads differences stays in float: 8 bits over -1..1 would round the steps of a camera's grey levels
        away, and as the first layer is narrow that costs no time.
        """
        first = len(graph.nodes)
        heat = self.emit_float(graph, patches, crops, integer=plan is not None)
        if plan:
            lowest = lowest_value(self.channels)
            kept = layers_reading(graph.nodes[first:], patches) if lowest < 0 else frozenset()
            ranges = {**plan.ranges, patches: (lowest, 1.0)}
            quantise_nodes(graph, first, QuantisationPlan(ranges, plan.float_layers | kept))
        return heat

    def emit_float(self, graph: Graph, patches: str, crops: Crops, *, integer: bool) -> str:
        """Append the network in float; `integer` chooses the form that is fast once it is quantised."""
        if self.known:
            heat = emit_network(graph, self.known, patches, crops, integer=integer)
        else:
            height, width = crops.layout.patch_height, crops.layout.patch_width
            heat = inline(graph, self._layer((height, width), graph.opset), patches)
            heat = crops.cut(heat, crops.kept, crops.whole(0))
        return heat

    def _layer(self, patch_size: tuple[int, int], opset: int) -> onnx.ModelProto:
        return export_layer(self.network, (2, len(self.channels), *patch_size), opset)

    def check_whole_is_possible(self) -> None:
        """Refuse `--window whole` for a network whose result depends on all of the patch."""
        if self.known:
            pools = self.known.second_family
        else:
            layer = self._layer((STRIDE * 4, STRIDE * 4), TORCHSCRIPT_UP_TO)
            pools = any(node.op_type in POOLING for node in layer.graph.node)
        if pools:
            raise ExportError(
                "This network averages over the patch, so one run over the whole strip is another function: "
                "export it with --window exact."
            )


def make_source(
    checkpoint: Checkpoint,
    network: str | None = None,
    arguments: str | None = None,
    input_channels: str | None = None,
    weights: str | None = None,
) -> Source:
    """Build the network of a checkpoint; `network` is FILE.py:Class, `arguments` a JSON object for its constructor.

    `input_channels` names what it takes where the checkpoint does not say so, `weights` which set of several.
    """
    asked = read_channels(input_channels, "--input-channels") if input_channels is not None else None
    channels = choose_channels(checkpoint.input_channels, asked)
    if network is None:
        if arguments is not None:
            raise ExportError("--network-args belongs to --network FILE.py:Class: give both or neither.")
        module = build_known_network(checkpoint, channels, weights)
        folded = fold({key: value.numpy() for key, value in module.state_dict().items()})
        family = "second family" if folded.second_family else "first family"
        inputs = check_count(channels, module.inputs)
        return Source(module, folded, f"{family}, width {folded.width}", inputs)
    own = load_class(network, arguments)
    load_weights(own, checkpoint, weights)
    return Source(own, None, network.rpartition(":")[2], channels or RAW)


def check_layer(source: Source, patch_size: tuple[int, int]) -> None:
    """Run layer 1 once in torch: it must give two channels of the patch's size."""
    example = torch.zeros(2, 3, *patch_size)
    try:
        with torch.no_grad():
            logits = source.module(example)
    except Exception as error:  # it may be the user's code: anything can happen
        if wanted := TAKES_OTHER_CHANNELS.search(str(error)):
            stated = None if is_raw(source.channels) else source.channels
            check_count(stated, int(wanted[1]))
        reason = reason_of(error)
        raise ExportError(
            f"The network does not run on patches of {patch_size[0]} x {patch_size[1]} ({reason}): give --patch."
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, 2, *patch_size):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExportError(
            f"The network gives {found} for patches of {tuple(example.shape)}: it must give (B, 2, h, w) logits, "
            "background and defect."
        )
