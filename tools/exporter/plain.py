"""The plain exports that figures are measured against: torch's own, opset 11.

One has a copy of the network for each patch of the strip; the other is the network alone, for those who cut and stitch
in their own code.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from agent.contract.model import CHANNELS, INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    from tools.exporter.layout import Layout

PLAIN_OPSET = 11


class _FullStrip(nn.Module):
    def __init__(self, network: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.network = network
        self.layout = layout

    def forward(self, strips: torch.Tensor) -> torch.Tensor:
        bands = []
        for row in self.layout.rows:
            parts = []
            for column in self.layout.columns:
                bottom, right = row.start + self.layout.patch_height, column.start + self.layout.patch_width
                patch = strips[:, :, row.start : bottom, column.start : right]
                defect = torch.softmax(self.network(patch), 1)[:, 1:]
                parts.append(defect[:, :, row.keep_start : row.keep_stop, column.keep_start : column.keep_stop])
            bands.append(torch.cat(parts, 3))
        heatmap = torch.cat(bands, 2)
        zeros = torch.zeros_like(heatmap)
        return torch.cat([heatmap, zeros, zeros], 1)


class _Patch(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(patches), 1)[:, 1:]


def export_plain(network: nn.Module, layout: Layout) -> bytes:
    """Export the full strip as a person would without this tool."""
    return _export(_FullStrip(network, layout), (layout.height, layout.width))


def export_patch(network: nn.Module, layout: Layout) -> bytes:
    """Export the network alone: (batch, 3, h, w) of a patch -> its heat, (batch, 1, h, w)."""
    return _export(_Patch(network), (layout.patch_height, layout.patch_width))


def _export(module: nn.Module, size: tuple[int, int]) -> bytes:
    written = io.BytesIO()
    example = torch.zeros(1, CHANNELS, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this exporter is going to be removed
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch_export: Any = torch.onnx.export  # its annotations leave out the file objects that it takes
        torch_export(
            module,
            (example,),
            written,
            dynamo=False,
            opset_version=PLAIN_OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
        )
    return written.getvalue()
