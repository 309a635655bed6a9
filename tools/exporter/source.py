"""The network to export, whichever way it came: of a family that is known here, or a user's own class."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import logging
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import compose, numpy_helper, version_converter

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
from tools.exporter.errors import ExportError
from tools.exporter.quantise import QuantisationPlan, layers_reading, quantise_nodes
from tools.exporter.windows import build_model, whole_layout

if TYPE_CHECKING:
    from tools.exporter.crops import Crops
    from tools.exporter.graph import Array, Graph
    from tools.exporter.layout import Layout

TORCHSCRIPT_UP_TO = 17  # torch's newer exporter writes 18 and later, its older one what comes before
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
            heat = _inline(graph, self._layer((height, width), graph.opset), patches)
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
    checkpoint: Checkpoint, network: str | None = None, arguments: str | None = None, input_channels: str | None = None
) -> Source:
    """Build the network of a checkpoint; `network` is FILE.py:Class, `arguments` a JSON object for its constructor.

    `input_channels` names what it takes where the checkpoint does not say so.
    """
    asked = read_channels(input_channels, "--input-channels") if input_channels is not None else None
    channels = choose_channels(checkpoint.input_channels, asked)
    if network is None:
        if arguments is not None:
            raise ExportError("--network-args belongs to --network FILE.py:Class: give both or neither.")
        module = build_known_network(checkpoint, channels)
        folded = fold({key: value.numpy() for key, value in module.state_dict().items()})
        family = "second family" if folded.second_family else "first family"
        inputs = check_count(channels, module.inputs)
        return Source(module, folded, f"{family}, width {folded.width}", inputs)
    own = _load_class(network, arguments)
    load_weights(own, checkpoint.state)
    return Source(own, None, network.rpartition(":")[2], channels or RAW)


def _load_class(network: str, arguments: str | None) -> torch.nn.Module:
    file, _, name = network.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise ExportError(f"--network {network}: there is no file {file or network!r}, give FILE.py:Class.")
    specification = importlib.util.spec_from_file_location("users_network", path)
    if specification is None or specification.loader is None:
        raise ExportError(f"--network {network}: {path.name} is not a Python file, give FILE.py:Class.")
    module = importlib.util.module_from_spec(specification)
    sys.modules["users_network"] = module
    sys.path.insert(0, str(path.parent.resolve()))  # what the file imports lies beside it
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # it is the user's code: anything can happen
        raise ExportError(
            f"{path.name} cannot be imported ({type(error).__name__}: {error}): mend it first."
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.nn.Module)):
        classes = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ == "users_network"
        ]
        raise ExportError(f"{path.name} has no network class {name!r}: it has {', '.join(classes) or 'none'}.")
    try:
        built: torch.nn.Module = kind(**_arguments(arguments))
    except TypeError as error:
        raise ExportError(f"{name} cannot be built ({error}): give --network-args '{{\"name\": value}}'.") from error
    return built


def _arguments(arguments: str | None) -> dict[str, Any]:
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError as error:
        raise ExportError(f"--network-args is not JSON ({error}): write it as '{{\"width\": 64}}'.") from error
    if not isinstance(parsed, dict):
        raise ExportError("--network-args must be a JSON object: write it as '{\"width\": 64}'.")
    return parsed


def check_layer(source: Source, patch_size: tuple[int, int]) -> None:
    """Run layer 1 once in torch: it must give two channels of the patch's size."""
    example = torch.zeros(2, 3, *patch_size)
    try:
        with torch.no_grad():
            logits = source.module(example)
    except (RuntimeError, ValueError, TypeError) as error:
        if wanted := TAKES_OTHER_CHANNELS.search(str(error)):
            stated = None if is_raw(source.channels) else source.channels
            check_count(stated, int(wanted[1]))
        reason = str(error).strip().splitlines()[0][:160]
        raise ExportError(
            f"The network does not run on patches of {patch_size[0]} x {patch_size[1]} ({reason}): give --patch."
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, 2, *patch_size):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExportError(
            f"The network gives {found} for patches of {tuple(example.shape)}: it must give (B, 2, h, w) logits, "
            "background and defect."
        )


def export_layer(network: torch.nn.Module, shape: tuple[int, ...], opset: int) -> onnx.ModelProto:
    """Let torch export layer 1 for `shape` (B, channels, h, w) at this very opset; ExportError with torch's reason.

    A batch of 1 would be taken for a constant.
    """
    example = torch.zeros(shape)
    written = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["patches"], "output_names": ["logits"]}
    torch_export: Any = torch.onnx.export  # its annotations leave out the file objects that it takes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that its older exporter is going to be removed
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        try:
            if opset <= TORCHSCRIPT_UP_TO:
                axes = {"patches": {0: "batch"}, "logits": {0: "batch"}}
                torch_export(
                    network, (example,), written, dynamo=False, opset_version=opset, dynamic_axes=axes, **names
                )
                return onnx.load_from_string(written.getvalue())
            batch = {0: torch.export.Dim("batch", min=1, max=64)}
            options = {"external_data": False, "verbose": False, "dynamic_shapes": (batch,)}
            oldest = TORCHSCRIPT_UP_TO + 1
            program = torch_export(network, (example,), dynamo=True, opset_version=oldest, **options, **names)
            layer: onnx.ModelProto = program.model_proto
            return layer if opset == oldest else version_converter.convert_version(layer, opset)
        except Exception as error:  # torch raises many kinds, some of them its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ExportError(f"Opset {opset} cannot carry this network ({reason}): try another --opset.") from error


def _inline(graph: Graph, layer: onnx.ModelProto, patches: str) -> str:
    """Copy the nodes of an exported layer, without anything that tells of the exporting machine."""
    used = {opset.domain: opset.version for opset in layer.opset_import if opset.domain in ("", "ai.onnx")}
    if list(used.values()) != [graph.opset] or any(node.domain not in ("", "ai.onnx") for node in layer.graph.node):
        raise ExportError(f"torch exported this network at {used}, not at opset {graph.opset}: try another --opset.")
    prefix = "net/"  # the same in every graph: ranges of tensors are known by these names
    inner = compose.add_prefix_graph(layer.graph, prefix)
    weights = {node.input[1] for node in inner.node if node.op_type in ("Conv", "MatMul")}
    renamed: dict[str, str] = {}
    for initializer in inner.initializer:
        array = numpy_helper.to_array(initializer)
        keep_outside = initializer.name in weights
        renamed[initializer.name] = graph.weight(array) if keep_outside else graph.constant(array)
    graph.add("Identity", [patches], outputs=[inner.input[0].name])
    for node in inner.node:
        del node.metadata_props[:]
        node.doc_string = ""
        node.input[:] = [renamed.get(name, name) for name in node.input]
        graph.nodes.append(node)
    logits = inner.output[0].name
    background, defect = (graph.cut(logits, 1, channel, channel + 1) for channel in (0, 1))
    return graph.add("Sigmoid", [graph.add("Sub", [defect, background])])
