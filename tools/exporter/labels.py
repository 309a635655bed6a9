"""What an exported file says about itself: facts, versions, how it was quantised, what was measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import onnxruntime
import torch

from agent import __version__
from agent.contract.model import ModelFacts, format_metadata
from agent.errors import Reject
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from tools.exporter.calibration import Calibration
    from tools.exporter.layout import Layout
    from tools.exporter.source import Source


def describe_in_metadata(
    facts: ModelFacts,
    layout: Layout,
    window: str,
    source: Source,
    calibration: Calibration | None,
) -> dict[str, str]:
    """Write the facts as metadata, with how it was quantised; ExportError when one is wrong.

    What this processor measured stays out: the bytes are the same wherever the file is made.
    """
    more = {
        "network": source.name,
        "layout": layout.describe(),
        "window": window,
    }
    if calibration:
        ranked = sorted(calibration.sensitivity.items(), key=lambda item: -item[1])[:8]
        quantisation = {
            "activations": "uint8 per tensor",
            "weights": "int8 per channel",
            "method": calibration.method,
            "float_layers": sorted(calibration.plan.float_layers),
            "most_sensitive": {name: _rounded(gain) for name, gain in ranked},
        }
        more["quantisation"] = json.dumps(quantisation)
    try:
        return format_metadata(facts, **more)
    except Reject as refused:
        raise ExportError(f"The {refused.detail}: give another value.") from refused


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def producer() -> str:
    """Name the versions that made the file."""
    versions = {
        "strip-agent": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    return " ".join(f"{name} {version}" for name, version in versions.items())
