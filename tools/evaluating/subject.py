"""A model to be evaluated, whichever form it has: the file of the line, or a checkpoint that was not exported yet."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.contract.threshold import DEFAULT_THRESHOLD
from agent.records import show_name
from tools.exporter.errors import ExportError
from tools.exporter.strips import feed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tools.exporter.graph import Array
    from tools.exporter.strips import NamedStrip

CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked: `heatmap_of` a strip gives (height, width) float32 in 0..1."""

    name: str
    height: int
    width: int
    threshold: float  # its own, else the default of a box
    heatmap_of: Callable[[NamedStrip], Array]


@dataclass(frozen=True, slots=True)
class AboutCheckpoint:
    """What `export` would be told of a checkpoint; None: what the checkpoint says itself, or the default."""

    network: str | None = None  # FILE.py:Class
    network_args: str | None = None
    input_channels: str | None = None
    weights: str | None = None
    patch_size: tuple[int, int] | None = None
    image_size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None


def is_checkpoint(path: Path) -> bool:
    """Say by its name whether a file is a checkpoint, and no model of the line."""
    return path.suffix.lower() in CHECKPOINTS


def open_subject(path: Path, threshold: float | None = None, about: AboutCheckpoint = AboutCheckpoint()) -> Subject:
    """Open a model file, or a checkpoint as it is told about it; ExportError where it is neither."""
    subject = _open_checkpoint(path, about) if is_checkpoint(path) else _open_model(path)
    return subject if threshold is None else replace(subject, threshold=threshold)


def timed(subject: Subject, strip: NamedStrip) -> tuple[Array, float]:
    """Return the heatmap and the seconds that it took."""
    began = time.perf_counter()
    heatmap = subject.heatmap_of(strip)
    return heatmap, time.perf_counter() - began


def _open_model(path: Path) -> Subject:
    from agent.worker.model import load_model  # noqa: PLC0415 - only one of the two libraries is needed
    from agent.worker.trial import prove  # noqa: PLC0415
    from tools.exporter.keys import read_facts, read_model  # noqa: PLC0415
    from tools.exporter.session import open_session, run_strip  # noqa: PLC0415

    content = read_model(path)
    facts = read_facts(content)
    if facts.input_scale == "auto":  # nobody says it: find out as the box does
        facts = prove(load_model(content, threads=None, unlabelled_input_scale="auto"))[0].facts
    session = open_session(content)
    name = f"{facts.model_id} version {facts.version}" if facts.labelled else show_name(path.name)
    threshold = DEFAULT_THRESHOLD if facts.threshold is None else facts.threshold
    return Subject(
        name, facts.height, facts.width, threshold, lambda strip: run_strip(session, feed(strip, facts.input_scale))
    )


def _open_checkpoint(path: Path, about: AboutCheckpoint) -> Subject:
    from tools.exporter.checkpoint import (  # noqa: PLC0415 - torch takes seconds to load
        PATCH_SIDE,
        image_size_of,
        load_checkpoint,
    )
    from tools.exporter.layout import make_layout  # noqa: PLC0415
    from tools.exporter.reference import reference_heatmap  # noqa: PLC0415
    from tools.exporter.source import check_layer, make_source  # noqa: PLC0415

    checkpoint = load_checkpoint(path)
    source = make_source(checkpoint, about.network, about.network_args, about.input_channels, about.weights)
    patch_size = about.patch_size or checkpoint.patch_size or (PATCH_SIDE, PATCH_SIDE)
    check_layer(source, patch_size)
    layout = make_layout(about.image_size or image_size_of(checkpoint), patch_size, about.grid)

    def heatmap_of(strip: NamedStrip) -> Array:
        return reference_heatmap(source.module, layout, feed(strip, "unit"))

    return Subject(f"{show_name(path.name)} in torch", layout.height, layout.width, DEFAULT_THRESHOLD, heatmap_of)


def check_same_size(one: Subject, other: Subject) -> None:
    """Refuse to compare models of different strips."""
    if (one.height, one.width) != (other.height, other.width):
        raise ExportError(
            f"{one.name} takes strips of {one.height} x {one.width}, {other.name} of {other.height} x {other.width}: "
            "compare models of the same size."
        )
