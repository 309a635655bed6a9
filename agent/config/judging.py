"""The part of the configuration that goes to the workers: checks, scoring, heatmaps. The rest is `sections.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from agent.config.types import AbsolutePath, Seconds, Section, UrlTemplate, WhatToSave

if TYPE_CHECKING:
    from collections.abc import Iterator


class ChecksSection(Section):
    """What a strip must be like to be judged."""

    incomplete_seconds: Seconds = 60.0
    """How long a file may stay unreadable or half written."""
    max_file_mib: Annotated[int, Field(ge=1, le=2048)] = 64
    """Larger files are refused unread."""
    out_of_range: Literal["rescale", "clip", "reject"] = "rescale"
    """Grey levels below 0 or above full scale: stretch the strip to full scale, clip them, or refuse it."""
    full_scale: Annotated[float, Field(gt=0)] | None = None
    """The grey level that is white, for example 4095 or 65535; null: 255."""
    min_contrast: Annotated[float, Field(ge=0)] = 2.0
    """Grey levels of 0..255: a strip is refused where the contrast of all three channels is below. Noise exceeds it."""
    zero_rows: Literal["reject", "accept"] = "reject"
    """All-zero rows at the end of channels 0 to 2 are a file that was not written to its end."""


class DetectionsSection(Section):
    """`method: detections`: the highest pixel is a detection, what is near it is blanked, and so on."""

    top_percent: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Only this share of the strip's pixels, the highest ones, can be detections."""
    radius_px: Annotated[int, Field(ge=0, le=10_000)] = 20
    """No further detection within this distance of one, in pixels."""
    window_px: Annotated[int, Field(ge=1, le=101)] = 5
    """Side of the square around a detection that its score comes from; odd."""
    top_k: Annotated[int, Field(ge=1, le=10_201)] = 3
    """A detection's score is the mean of this number of highest pixels in its window."""
    max_detections: Annotated[int, Field(ge=1, le=100)] = 5
    """Number of detections of a strip."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Demand a window with a pixel in its middle."""
        if self.window_px % 2 == 0:
            yield "window_px", f"found {self.window_px}; it must be odd, so that the detection is in the middle"


class ScoringSection(Section):
    """How a heatmap becomes a score and a verdict."""

    method: Literal["max", "top_k_mean", "area", "detections"] = "max"
    """Maximum; mean of the `top_k` highest pixels; number of pixels at or above `pixel_threshold`; score of the best of
    a few detections, see `scoring.detections`."""
    top_k: Annotated[int, Field(ge=1, le=10**9)] = 100
    """Number of pixels for `top_k_mean`."""
    threshold: float | None = None
    """A score at or above it is anomalous; null: the model's own, else 0.5. `area` needs one, in pixels."""
    pixel_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A pixel at or above it belongs to a defect region."""
    min_area_px: Annotated[int, Field(ge=1, le=10**9)] = 1
    """Smaller regions do not count in `area` and `defect_count`; they never change `max`."""
    detections: DetectionsSection = DetectionsSection()


class HeatmapsSection(Section):
    """Which heatmaps are written and how long they are kept."""

    folder: AbsolutePath | None = None
    """null: `heatmaps` in the state folder."""
    png: WhatToSave = "all"
    """Pictures for people."""
    tiff: WhatToSave = "anomalous"
    """Lossless float32 heatmaps."""
    keep_days: Annotated[float, Field(gt=0, le=36500)] | None = 30.0
    """Heatmaps of acknowledged results are removed when older; null: never."""
    keep_gib: Annotated[float, Field(gt=0, le=10**7)] | None = 20.0
    """The oldest are removed above this total; null: no limit."""
    min_free_gib: Annotated[float, Field(ge=0, le=10**7)] = 2.0
    """Below this much free space no heatmaps are written; scoring goes on."""
    url_template: UrlTemplate | None = None
    r"""Makes `preview_url`; knows {path} and {path_windows}."""


class DriftSection(Section):
    """Whether the line still looks as the model knows it, see docs/trust.md."""

    enabled: bool = True
    """Measure each strip (2 ms) and raise an alarm that names what has changed."""
