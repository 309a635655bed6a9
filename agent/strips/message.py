"""One judgement of a strip as the message that is published: a pure function of what is known about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from agent.messages import BAD_QUALITY, GOOD_QUALITY, INVALID_SCORE, VERDICT_CODES, StripResult, utc_text
from agent.records import HeatmapFiles, Judgement, show_name

if TYPE_CHECKING:
    from agent.config import Camera, Config
    from agent.contract.threshold import Threshold
    from agent.records import Strip
    from agent.wire import Loaded


def verdict_of(judgement: Judgement | None) -> Literal["ok", "anomalous", "invalid"]:
    """Name the verdict; a strip without a judgement is invalid."""
    if judgement is None:
        return "invalid"
    return "anomalous" if judgement.anomalous else "ok"


def strip_message(
    config: Config,
    camera: Camera,
    strip: Strip,
    threshold: Threshold,
    judgement: Judgement | None,
    reason: str,
    model: Loaded | None,
    *,
    stream: str,
    seq: int,
    ts_ms: int,
    model_sha256: str,
) -> StripResult:
    """Make the message. `judgement` is None for an invalid strip, which then has a `reason`.

    `threshold` is the one that it was judged by, or would have been.
    """
    verdict = verdict_of(judgement)
    files = HeatmapFiles() if judgement is None else judgement.heatmaps
    return StripResult(
        msg_id=f"{stream}-{seq}",
        stream=stream,
        seq=seq,
        revision=strip.revision,
        ts=utc_text(ts_ms),
        ts_ms=ts_ms,
        agent=config.agent.name,
        camera=strip.camera,
        strip_id=strip.strip_id,
        part_id=_part_id(camera, strip.path),
        file=show_name(strip.path),
        captured_ts_ms=strip.identity.mtime_ns // 1_000_000,
        score=judgement.score if judgement else INVALID_SCORE,
        threshold=threshold.value,
        threshold_source=threshold.source,
        verdict=verdict,
        verdict_code=VERDICT_CODES[verdict],  # type: ignore[arg-type]  # 0, 1 or 2
        reason=reason,
        quality=GOOD_QUALITY if judgement else BAD_QUALITY,  # type: ignore[arg-type]  # 192 or 0
        anomaly_area_px=judgement.anomaly_area_px if judgement else 0,
        defect_count=judgement.defect_count if judgement else 0,
        peak_row=judgement.peak_row if judgement else -1,
        peak_col=judgement.peak_col if judgement else -1,
        rescaled=judgement.rescaled if judgement else False,
        replayed=False,
        model_id=model.model_id if model else "",
        model_version=model.version if model else 0,
        model_sha256=model_sha256,
        inference_ms=judgement.inference_ms if judgement else 0.0,
        total_ms=float(max(0, ts_ms - strip.seen_ms)),
        heatmap_path=files.tiff_path,
        heatmap_sha256=files.tiff_sha256,
        preview_path=files.png_path,
        preview_sha256=files.png_sha256,
        preview_url=_preview_url(config.heatmaps.url_template, files.png_path),
        heatmap_state=files.state,  # type: ignore[arg-type]  # one of the four
        ignore_pixels_sha256=judgement.ignore_pixels_sha256 if judgement else "",
        ignore_mask_sha256=judgement.ignore_mask_sha256 if judgement else "",
    )


def _part_id(camera: Camera, path: str) -> str:
    if camera.part_id_pattern is None:
        return ""
    found = re.search(camera.part_id_pattern, show_name(path.rpartition("/")[2]))
    return (found[1] or "") if found else ""


def _preview_url(template: str | None, png_path: str) -> str:
    if template is None or not png_path:
        return ""
    return template.replace("{path_windows}", png_path.replace("/", "\\")).replace("{path}", png_path)
