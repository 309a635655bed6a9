"""The export itself: checkpoint in, proven model file out. `tools/export.py export` is its command line."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch

from agent import __version__
from agent.contract import ModelFacts, format_metadata
from agent.errors import Reject
from tools.exporter.checkpoint import PATCH_SIDE, build_known_network, image_size_of, load_checkpoint
from tools.exporter.emit import emit_network, fold
from tools.exporter.errors import ExportError
from tools.exporter.graph import check_opset
from tools.exporter.guard import EXACT, check_batches, check_contract
from tools.exporter.layout import Layout, make_layout
from tools.exporter.reference import reference_heatmap
from tools.exporter.session import run_strip
from tools.exporter.strips import feed, made_up_strips
from tools.exporter.windows import build_model

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_OPSET = 17


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for; None is "derive it"."""

    model_id: str | None = None  # the checkpoint's name
    version: int | None = None  # seconds since 1970 of the checkpoint file: it rises with each training
    created: str | None = None  # now
    opset: int = DEFAULT_OPSET
    input_scale: str = "unit"
    image_size: tuple[int, int] | None = None
    patch_size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What came out; `difference` is the largest of any pixel against torch over the strips that were compared."""

    path: Path
    facts: ModelFacts
    layout: Layout
    size_bytes: int
    difference: float


def export_model(checkpoint_path: Path, out: Path, options: Options | None = None) -> Exported:
    """Export `checkpoint_path` to the file `out`; raises ExportError and leaves nothing under that name on failure."""
    asked = options or Options()
    check_opset(asked.opset)
    checkpoint = load_checkpoint(checkpoint_path)
    network = build_known_network(checkpoint)
    patch_size = asked.patch_size or checkpoint.patch_size or (PATCH_SIDE, PATCH_SIDE)
    layout = make_layout(asked.image_size or image_size_of(checkpoint), patch_size, asked.grid)
    known = fold({key: value.numpy() for key, value in network.state_dict().items()})
    facts = ModelFacts(
        labelled=True,
        height=layout.height,
        width=layout.width,
        input_scale=asked.input_scale,
        model_id=asked.model_id or checkpoint_path.stem,
        version=asked.version or int(checkpoint_path.stat().st_mtime),
        created=asked.created or dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        precision="fp32",
        checkpoint_sha256=checkpoint.sha256,
        threshold=asked.threshold,
        producer=producer(),
    )
    try:
        metadata = format_metadata(facts, layout=layout.describe())
    except Reject as refused:
        raise ExportError(f"The {refused.detail}: give another value.") from refused
    model = build_model(
        lambda graph, patches, crops: emit_network(graph, known, patches, crops),
        layout,
        opset=asked.opset,
        input_scale=asked.input_scale,
        metadata=metadata,
    )
    content = model.SerializeToString(deterministic=True)
    session, _ = check_contract(content)
    strips = made_up_strips((layout.height, layout.width))
    fed = [feed(strip, asked.input_scale) for strip in strips]
    heatmaps = [run_strip(session, pixels) for pixels in fed]
    check_batches(session, fed, heatmaps, EXACT)
    difference = 0.0
    for strip, found in zip(strips, heatmaps, strict=True):
        expected = reference_heatmap(network, layout, feed(strip, "unit"))
        difference = max(difference, float(np.abs(found - expected).max()))
    if not difference <= EXACT:
        raise ExportError(
            f"The graph differs from torch by {difference:.2g}, allowed is {EXACT}: report this as a fault."
        )
    write_model(out, content)
    return Exported(out, facts, layout, len(content), difference)


def producer() -> str:
    """Name the versions that made the file."""
    versions = {
        "strip-agent": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    return " ".join(f"{name} {version}" for name, version in versions.items())


def write_model(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush, rename: the final name never holds half a file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ExportError(
            f"Cannot write {path} ({error.strerror}): choose a folder with room that you may write to."
        ) from error
