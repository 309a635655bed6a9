"""Run the file and compare it with torch; search a plan for INT8 with which it passes.

The file runs as it will on a box, which differs a little between processors. What decides about the file's bytes is
computed again in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tools.exporter.blend import FAINT
from tools.exporter.calibration import relieve
from tools.exporter.guard import check_batches, check_contract, compare, pixels_to_look_at
from tools.exporter.patchwise import exact_heatmaps
from tools.exporter.progress import progress, say
from tools.exporter.reference import reference_heatmap
from tools.exporter.session import run_strip
from tools.exporter.strips import feed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    import onnxruntime

    from tools.exporter.calibration import Calibration
    from tools.exporter.graph import Array
    from tools.exporter.guard import Comparison, Limits
    from tools.exporter.layout import Layout
    from tools.exporter.reference import Seen
    from tools.exporter.source import Source
    from tools.exporter.strips import NamedStrip

HARD_STRIPS = 3  # the worst ones decide which layer is left in float


@dataclass(frozen=True, slots=True)
class Proven:
    """A strip with its heatmaps in torch and in the file."""

    strip: NamedStrip
    expected: Array
    found: Array


@dataclass(frozen=True, slots=True)
class Subject:
    """What is exported, how, and what it is held to; all of it but the plan."""

    source: Source
    layout: Layout
    window: str
    opset: int
    input_scale: str
    threshold: float
    limits: Limits
    can_be_exact: bool = True  # double precision can compute the network


@dataclass(frozen=True, slots=True)
class Outcome:
    """A drawn file, and what onnxruntime gives on every strip."""

    model: onnx.ModelProto
    session: onnxruntime.InferenceSession
    proven: list[Proven]
    comparisons: list[Comparison]


def references(source: Source, layout: Layout, strips: list[NamedStrip], seen: Seen | None = None) -> list[Proven]:
    """Compute every strip in torch; patches that were `seen` before are not computed again."""
    nothing = np.zeros((layout.height, layout.width), np.float32)
    return [
        Proven(strip, reference_heatmap(source.module, layout, feed(strip, "unit"), seen=seen), nothing)
        for strip in progress(strips, "torch")
    ]


def run_file(subject: Subject, calibration: Calibration | None, proven: list[Proven]) -> Outcome:
    """Draw the model, run every strip through it and compare."""
    plan = calibration.plan if calibration else None
    model = subject.source.draw(
        subject.layout, plan, window=subject.window, opset=subject.opset, input_scale=subject.input_scale
    )
    session, _ = check_contract(serialise(model, {}))
    run = [
        replace(one, found=run_strip(session, feed(one.strip, subject.input_scale)))
        for one in progress(proven, "running the file")
    ]
    fed = [feed(one.strip, subject.input_scale) for one in run]
    check_batches(session, fed, [one.found for one in run], subject.limits.heat_change)
    return Outcome(model, session, run, [compare_one(subject, one) for one in run])


def search(
    subject: Subject, calibration: Calibration, outcome: Outcome
) -> tuple[Calibration, Outcome, tuple[Proven, Comparison] | None]:
    """Leave layers in float, one after the other, until every strip is within the limits or nothing helps.

    Returns what is then worst and beyond the limits, if there is such a strip.
    """
    while hard := _beyond_limits(subject, calibration, outcome):
        worst, comparison = hard[0]
        problem = comparison.problem(subject.limits)
        say(f"strip {worst.strip.name}: {problem}; one more layer is left in float")
        changes = [(feed(one.strip, "unit"), np.abs(one.found - one.expected)) for one, _ in hard]
        better = relieve(subject.source, subject.layout, calibration, changes, subject.opset)
        if better is None:
            return calibration, outcome, hard[0]
        calibration = better
        outcome = run_file(subject, calibration, outcome.proven)
    return calibration, outcome, None


def _beyond_limits(subject: Subject, calibration: Calibration, outcome: Outcome) -> list[tuple[Proven, Comparison]]:
    """Give the strips that are beyond the limits on every processor, the worst first.

    Only strips, and of them patches, that come near are computed in double precision; the others count as unchanged.
    What counts is that result alone. The strips that decide about the next layer are then computed as a whole.
    """
    suspects = [
        one
        for one, comparison in zip(outcome.proven, outcome.comparisons, strict=True)
        if comparison.is_suspect(subject.limits, subject.threshold)
    ]
    looks = [pixels_to_look_at(one.expected, one.found, subject.threshold, subject.limits) for one in suspects]
    seen = _look_closer(subject, calibration, suspects, looks)
    compared = [(one, compare_one(subject, _unchanged_elsewhere(one))) for one in seen]
    beyond = [(one, comparison) for one, comparison in compared if comparison.problem(subject.limits)]
    beyond.sort(key=lambda pair: pair[1].badness(subject.limits), reverse=True)
    hard = [one for one, _ in beyond[:HARD_STRIPS]]
    rest = _look_closer(subject, calibration, hard, [np.isnan(one.found) for one in hard])
    whole = [
        replace(one, found=np.where(np.isnan(one.found), other.found, one.found))
        for one, other in zip(hard, rest, strict=True)
    ]
    return [(one, comparison) for one, (_, comparison) in zip(whole, beyond, strict=False)]


def _look_closer(
    subject: Subject, calibration: Calibration | None, strips: list[Proven], pixels: Sequence[Array | None]
) -> list[Proven]:
    """Compute what the file should give there, (H, W) float32, the same on every processor; elsewhere NaN."""
    if not strips:
        return []
    looks = [(feed(one.strip, "unit"), where) for one, where in zip(strips, pixels, strict=True)]
    plan = calibration.plan if calibration else None
    heatmaps = exact_heatmaps(subject.source, subject.layout, plan, looks, window=subject.window, opset=subject.opset)
    return [replace(one, found=heatmap.astype(np.float32)) for one, heatmap in zip(strips, heatmaps, strict=True)]


def _unchanged_elsewhere(one: Proven) -> Proven:
    return replace(one, found=np.where(np.isnan(one.found), one.expected, one.found))


def exact_heat(subject: Subject, calibration: Calibration | None, one: Proven) -> Array:
    """Compute what the file should give on a strip, (H, W) float32, the same on every processor.

    What this one found, where double precision cannot compute the network.
    """
    return _look_closer(subject, calibration, [one], [None])[0].found if subject.can_be_exact else one.found


def compare_one(subject: Subject, one: Proven) -> Comparison:
    """Compare a strip's two heatmaps as the subject's limits want it."""
    is_faint = one.strip.name.endswith(FAINT)
    rim_px = subject.limits.rim_px
    return compare(one.strip.name, one.expected, one.found, subject.threshold, rim_px=rim_px, faint=is_faint)


def serialise(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Give the file's bytes with this metadata, in sorted order; the same input gives the same bytes."""
    del model.metadata_props[:]
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    content: bytes = model.SerializeToString(deterministic=True)
    return content
