"""What the person asked an export for, and what the file is then held to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.contract.threshold import DEFAULT_THRESHOLD
from tools.exporter.calibration import QUANTISED_OPSET
from tools.exporter.errors import ExportError
from tools.exporter.graph import check_opset
from tools.exporter.guard import Limits

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_OPSET = 17
DEFAULT_LIMITS = {  # by (precision, window); docs/exporter.md says what they were measured from
    ("fp32", "exact"): Limits(5e-5, 5e-5),
    ("int8", "exact"): Limits(0.02, 0.05, rim_px=1, overlap=0.95),
    ("fp32", "whole"): Limits(0.3, 0.6),
    ("int8", "whole"): Limits(0.3, 0.6),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for; None is "derive it"."""

    model_id: str | None = None  # the checkpoint's name
    version: int | None = None  # time of the export in seconds since 1970, at least one more than the last export's
    created: str | None = None  # time of the export; with it and a version the same input gives the same bytes
    opset: int = DEFAULT_OPSET
    input_scale: str = "unit"
    image_size: tuple[int, int] | None = None
    patch_size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    threshold: float | None = None  # between the scores of strips without defects and those of defects
    precision: str = "fp32"
    window: str = "exact"
    calibration: Path | None = None
    float_layers: str = "auto"  # auto | none
    golden: Path | None = None
    network: str | None = None
    network_args: str | None = None
    weights: str | None = None  # ema, plain, or what stands before the keys
    input_channels: str | None = None  # names with commas or spaces between them
    max_score_change: float | None = None
    max_heat_change: float | None = None
    allow_blind: bool = False  # for tests: networks with random weights tell no defect from none

    @property
    def is_exact(self) -> bool:
        """Whether the file must be what torch computes, but for rounding."""
        return self.precision == "fp32" and self.window == "exact"

    @property
    def verdict_threshold(self) -> float:
        """The threshold that the guard judges by."""
        return DEFAULT_THRESHOLD if self.threshold is None else self.threshold


def check_options(asked: Options) -> None:
    """Refuse what cannot go together before anything is computed."""
    check_opset(asked.opset)
    if asked.precision == "int8":
        if asked.calibration is None:
            raise ExportError("--precision int8 needs --calibration FOLDER with strips of the line: give at least 8.")
        if asked.opset < QUANTISED_OPSET:
            raise ExportError(
                f"Opset {asked.opset} cannot carry int8 with a scale for each channel: choose --opset "
                f"{QUANTISED_OPSET} or newer."
            )


def limits_of(asked: Options) -> Limits:
    """Give the limits of this precision and window, or what was asked for."""
    default = DEFAULT_LIMITS[asked.precision, asked.window]
    score, heat = asked.max_score_change, asked.max_heat_change
    return replace(
        default,
        score_change=default.score_change if score is None else score,
        heat_change=default.heat_change if heat is None else heat,
        overlap=default.overlap if heat is None else 0.0,
    )
