"""A small trained network: the demo's, taken out of its model file and put back into torch, and strips for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import tifffile
import torch
from onnx import numpy_helper

from agent.demo.strips import make_strip
from tests.helpers.repository import ROOT
from tools.exporter.emit import NORM_EPSILON
from tools.exporter.networks import UNet

if TYPE_CHECKING:
    from pathlib import Path

TRAINED_IMAGE = (234, 176)  # two by two patches
PATCH_SIDE = 128
FIRST_SEED = 41  # of the strips; every other one has defects


def save_trained(path: Path) -> Path:
    """Write the checkpoint: its batch norms, which were folded into the convolutions, change nothing."""
    weights = _convolutions()
    network = UNet(len(weights["encoder.block1.0"][0]))
    state = network.state_dict()
    for key in state:
        place, _, what = key.rpartition(".")
        if what == "running_mean" or (f"{place}.running_var" in state and what == "bias"):
            state[key] = torch.zeros_like(state[key])
        elif what == "running_var":
            state[key] = torch.full_like(state[key], 1 - NORM_EPSILON)
        elif f"{place}.running_var" in state and what == "weight":
            state[key] = torch.ones_like(state[key])
        elif what in ("weight", "bias"):
            state[key] = torch.from_numpy(weights[place][what == "bias"].copy())
    torch.save({"model_state_dict": state, "img_height": PATCH_SIDE, "img_width": PATCH_SIDE}, path)
    return path


def save_strips(folder: Path, count: int) -> Path:
    """Write strips of TRAINED_IMAGE as TIFF; a defect lies in every other one."""
    folder.mkdir()
    for number in range(count):
        pixels, truth = make_strip(np.random.default_rng(FIRST_SEED + number), defects=(number + 1) % 2)
        rows = np.flatnonzero(truth.mask.any(1))
        middle = int(rows.mean()) if len(rows) else pixels.shape[1] // 2
        top = int(np.clip(middle - TRAINED_IMAGE[0] // 2, 0, pixels.shape[1] - TRAINED_IMAGE[0]))
        cut = pixels[:3, top : top + TRAINED_IMAGE[0]].astype(np.float32)
        tifffile.imwrite(folder / f"strip_{number}.tif", cut, photometric="minisblack", planarconfig="separate")
    return folder


def _convolutions() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read (weight, bias) of every convolution, the last one as the difference of defect and background."""
    model = onnx.load(ROOT / "agent/demo/model.onnx")
    body: Any = next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g
    values = {one.name: numpy_helper.to_array(one) for one in [*model.graph.initializer, *body.initializer]}
    for node in body.node:
        if node.op_type == "Reshape" and set(node.input) <= set(values):
            values[node.output[0]] = values[node.input[0]].reshape(values[node.input[1]])
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for node in body.node:
        if node.op_type != "Conv" or len(node.input) < 3:
            continue
        if node.output[0] != "decoder.fin_out":
            found[node.output[0]] = values[node.input[1]], values[node.input[2]]
        else:
            taps = next(values[other.input[1]] for other in body.node if other.output[0] == node.input[0])
            difference = taps[:9, :, 0, 0].T.reshape(1, -1, 3, 3)
            nothing, bias = np.zeros_like(difference), values[node.input[2]]
            last = np.concatenate([nothing, difference]), np.concatenate([np.zeros_like(bias), bias])
            found["decoder.fin_out.0"] = last
    return found
