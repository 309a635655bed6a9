"""Approve of a file or refuse it: quantise until the guard lets it through, then try it as a box will."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.contract.golden import Golden, encode_golden
from agent.errors import Reject, Retry
from agent.worker.model import load_model
from agent.worker.trial import prove
from tools.exporter.calibration import Calibration, calibrate, quantise_everything
from tools.exporter.errors import ExportError, told_apart
from tools.exporter.files import write_file
from tools.exporter.guard import UNKNOWN_MEAN_CHANGE, Comparison, Limits, check_contract, judge
from tools.exporter.pictures import encode_png, labelled
from tools.exporter.proving import Outcome, Proven, Subject, run_file, search
from tools.exporter.reference import reference_heatmap
from tools.exporter.session import run_strip
from tools.exporter.strips import feed, made_up_strips

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime

    from agent.contract.model import ModelFacts
    from tools.exporter.graph import Array
    from tools.exporter.layout import Layout
    from tools.exporter.options import Options
    from tools.exporter.separation import Separation
    from tools.exporter.source import Source
    from tools.exporter.strips import NamedStrip

NO_LIMITS = Limits(0, 0)
GOLDEN_TOLERANCE = {"fp32": 1e-3, "int8": 0.05}  # other processors round differently; a saturating one is far beyond


@dataclass(frozen=True, slots=True)
class Exported:
    """What came out, and all that the report tells about it."""

    path: Path
    facts: ModelFacts
    layout: Layout
    source: Source
    proven: list[Proven] = field(repr=False)
    limits: Limits = NO_LIMITS
    comparisons: list[Comparison] = field(default_factory=list)
    separation: Separation | None = None
    calibration: Calibration | None = None
    size_bytes: int = 0
    refusal: str = ""  # why there is no file

    @property
    def worst(self) -> Comparison:
        """The strip that comes closest to the limits, or goes furthest beyond."""
        return judge(self.comparisons, self.limits)[0]


class Refused(ExportError):
    """The guard refuses the file; `exported` holds what the report tells about it."""

    def __init__(self, message: str, exported: Exported) -> None:
        super().__init__(message)
        self.exported = exported


def approve(asked: Options, subject: Subject, seen: Exported) -> tuple[Exported, Outcome]:
    """Build the model and let the guard judge it, one more layer in float each time it refuses; Refused at the end."""
    source, layout, limits = seen.source, seen.layout, subject.limits
    found_plan = _calibrate(asked, source, layout, [one.strip for one in seen.proven])
    outcome, beyond = run_file(subject, found_plan, seen.proven), None
    if found_plan and subject.can_be_exact and asked.float_layers == "auto" and asked.window == "exact":
        found_plan, outcome, beyond = search(subject, found_plan, outcome)
    proven, comparisons = outcome.proven, outcome.comparisons
    worst, problem = judge(comparisons, limits)
    if problem and asked.is_exact:
        limits = _limits_of_single_precision(source, layout, proven[comparisons.index(worst)], limits)
        worst, problem = judge(comparisons, limits)
    seen = replace(seen, proven=proven, limits=limits, comparisons=comparisons, calibration=found_plan)
    try:
        if beyond:
            raise _refusal(seen.path, beyond[0], beyond[1].problem(limits), exact=False)
        if problem:
            raise _refusal(seen.path, proven[comparisons.index(worst)], problem, exact=asked.is_exact)
        if found_plan and asked.window == "exact":
            _check_unknown_strip(source, layout, outcome.session, asked, seen.path)
    except ExportError as refusal:
        raise Refused(str(refusal), replace(seen, refusal=str(refusal))) from refusal
    return seen, outcome


def _calibrate(asked: Options, source: Source, layout: Layout, strips: list[NamedStrip]) -> Calibration | None:
    if asked.precision != "int8":
        return None
    pixels = [feed(strip, "unit") for strip in strips]
    if asked.float_layers == "none":
        return quantise_everything(source, layout, pixels, asked.opset)
    return calibrate(source, layout, pixels, asked.opset)


def _refusal(out: Path, one: Proven, problem: str, *, exact: bool) -> ExportError:
    """Draw the worst strip beside the output and say why the guard refuses the file."""
    picture = out.with_name(f"{out.name}.refused.png")
    write_file(picture, encode_png(labelled(one.strip.pixels, one.expected, one.found)))
    if exact:
        return ExportError(
            f"The graph differs from torch on strip {one.strip.name}: {problem}; report this as a fault."
        )
    return ExportError(
        f"The guard refuses the file because of strip {one.strip.name}: {problem}; look at {picture.name}, then "
        "calibrate with more strips or export with --precision fp32 --window exact."
    )


def _check_unknown_strip(
    source: Source, layout: Layout, session: onnxruntime.InferenceSession, asked: Options, out: Path
) -> None:
    """Compare shapes that no calibration has seen: ranges from strips that show nothing clip everything else."""
    strip = next(strip for strip in made_up_strips((layout.height, layout.width)) if strip.name == "shapes")
    expected = reference_heatmap(source.module, layout, feed(strip, "unit"))
    found = run_strip(session, feed(strip, asked.input_scale))
    change = float(np.abs(found - expected).mean())
    if not change <= UNKNOWN_MEAN_CHANGE:
        picture = out.with_name(f"{out.name}.refused.png")
        write_file(picture, encode_png(labelled(strip.pixels, expected, found)))
        changed, allowed = told_apart(change, UNKNOWN_MEAN_CHANGE)
        raise ExportError(
            f"The guard refuses the file because of made-up strip shapes: its heatmap changes by {changed} on "
            f"average, allowed is {allowed}; look at {picture.name}, then calibrate with strips that "
            "show more."
        )


def _limits_of_single_precision(source: Source, layout: Layout, one: Proven, limits: Limits) -> Limits:
    """Widen the limits to what torch's own rounding explains: twice its distance from double precision.

    Both sides round, so two correct ways of computing an ill-conditioned network can be that far apart; the file must
    not be further from double precision than torch may be.
    """
    precise = reference_heatmap(source.module, layout, feed(one.strip, "unit"), double=True)
    torch_error, file_error = (float(np.abs(heat - precise).max()) for heat in (one.expected, one.found))
    if not file_error <= max(limits.heat_change, 2 * torch_error):
        return limits
    return Limits(max(limits.score_change, 2 * torch_error), max(limits.heat_change, 3 * torch_error))


def with_golden(facts: ModelFacts, chosen: Proven, heatmap: Array) -> ModelFacts:
    """Add the golden strip; ExportError where this processor itself is too far from what a box is to find."""
    tolerance = GOLDEN_TOLERANCE[facts.precision]
    difference = float(np.abs(heatmap - chosen.found).max())
    if not difference <= tolerance:
        raise ExportError(
            f"On this processor the file's heatmap of strip {chosen.strip.name} is {difference:.2g} from exact "
            f"arithmetic, allowed is {tolerance:g}: export with --precision fp32, or on another processor."
        )
    return replace(facts, golden=encode_golden(Golden(chosen.strip.pixels, heatmap)), golden_tolerance=tolerance)


def try_as_a_box(content: bytes, asked: Options) -> None:
    """Refuse to write what no box would take; ExportError has the box's reason."""
    if asked.allow_blind:
        check_contract(content)
        return
    try:
        prove(load_model(content, threads=None, unlabelled_input_scale="auto"))
    except Reject as refused:
        raise ExportError(
            f"No box would take this file ({refused.reason}): {refused.detail}; export another epoch, or give "
            "--allow-blind for a file to look at, which no box takes."
        ) from refused
    except Retry as later:
        raise ExportError(f"The file cannot be tried here ({later.detail}): free some memory.") from later
