"""The plain export that every figure is measured against: torch's own, opset 11, one copy of the network per patch."""

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


def export_plain(network: nn.Module, layout: Layout) -> bytes:
    """Export the full strip as a person would without this tool."""
    written = io.BytesIO()
    example = torch.zeros(1, CHANNELS, layout.height, layout.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this exporter is going to be removed
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch_export: Any = torch.onnx.export  # its annotations leave out the file objects that it takes
        torch_export(
            _FullStrip(network, layout),
            (example,),
            written,
            dynamo=False,
            opset_version=PLAIN_OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
        )
    return written.getvalue()
