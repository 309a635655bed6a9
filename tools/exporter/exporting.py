"""The export itself: checkpoint in, proven model file out. `tools/export.py export` is its command line."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from agent.contract.golden import Golden, encode_golden
from agent.contract.model import ModelFacts
from agent.worker.light import measure_exposure
from tools.exporter.blend import FAINT, LOWEST, blend_defects, is_telling
from tools.exporter.calibration import QUANTISED_OPSET, Calibration, calibrate, quantise_everything, relieve
from tools.exporter.checkpoint import PATCH_SIDE, image_size_of, load_checkpoint
from tools.exporter.errors import ExportError
from tools.exporter.files import write_file
from tools.exporter.graph import check_opset
from tools.exporter.guard import UNKNOWN_MEAN_CHANGE, Comparison, Limits, check_batches, check_contract, compare, judge
from tools.exporter.labels import describe_in_metadata, producer
from tools.exporter.layout import Layout, make_layout
from tools.exporter.pictures import side_by_side, write_png
from tools.exporter.progress import progress, say
from tools.exporter.reference import reference_heatmap, torch_heat
from tools.exporter.session import run_strip
from tools.exporter.source import Source, check_layer, make_source
from tools.exporter.strips import NamedStrip, feed, made_up_strips, read_folder, read_strip

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import onnxruntime

    from tools.exporter.graph import Array

DEFAULT_OPSET = 17
DEFAULT_THRESHOLD = 0.5
DEFAULT_LIMITS = {  # by (precision, window); docs/exporter.md says what they were measured from
    ("fp32", "exact"): Limits(5e-5, 5e-5),
    ("int8", "exact"): Limits(0.02, 0.05, rim_px=1, overlap=0.95),
    ("fp32", "whole"): Limits(0.3, 0.6),
    ("int8", "whole"): Limits(0.3, 0.6),
}
HARD_STRIPS = 3  # the worst ones decide which layer is left in float
GOLDEN_TOLERANCE = {"fp32": 1e-3, "int8": 0.05}  # other processors round differently; a saturating one is far beyond


@dataclass(frozen=True, slots=True)
class Options:
    """What the person asked for; None is "derive it"."""

    model_id: str | None = None  # the checkpoint's name
    version: int | None = None  # time of the checkpoint file in seconds since 1970: it rises with each training
    created: str | None = None  # time of the checkpoint file, so that the same input gives the same bytes
    opset: int = DEFAULT_OPSET
    input_scale: str = "unit"
    image_size: tuple[int, int] | None = None
    patch_size: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None
    threshold: float | None = None
    precision: str = "fp32"
    window: str = "exact"
    calibration: Path | None = None
    float_layers: str = "auto"  # auto | none
    golden: Path | None = None
    network: str | None = None
    network_args: str | None = None
    input_channels: str | None = None  # names with commas or spaces between them
    max_score_change: float | None = None
    max_heat_change: float | None = None


@dataclass(frozen=True, slots=True)
class Proven:
    """A strip with its heatmaps in torch and in the file."""

    strip: NamedStrip
    expected: Array
    found: Array


@dataclass(frozen=True, slots=True)
class Exported:
    """What came out, and all that the report tells about it."""

    path: Path
    facts: ModelFacts
    layout: Layout
    source: Source
    size_bytes: int
    limits: Limits
    comparisons: list[Comparison]
    worst: Comparison
    calibration: Calibration | None
    proven: list[Proven] = field(repr=False)


def export_model(checkpoint_path: Path, out: Path, options: Options | None = None) -> Exported:
    """Export `checkpoint_path` to the file `out`; raises ExportError and leaves nothing under that name on failure."""
    asked = options or Options()
    _check_options(asked)
    checkpoint = load_checkpoint(checkpoint_path)
    source = make_source(checkpoint, asked.network, asked.network_args, asked.input_channels)
    patch_size = asked.patch_size or checkpoint.patch_size or (PATCH_SIDE, PATCH_SIDE)
    check_layer(source, patch_size)
    layout = make_layout(asked.image_size or image_size_of(checkpoint), patch_size, asked.grid)
    if asked.window == "whole":
        source.check_whole_is_possible()
    facts = _facts(asked, checkpoint_path, checkpoint.sha256, layout, source)
    threshold = DEFAULT_THRESHOLD if asked.threshold is None else asked.threshold
    limits = _limits(asked)
    exact = asked.precision == "fp32" and asked.window == "exact"

    strips = _strips(asked, layout)
    proven = _references(source, layout, strips)
    if asked.calibration and not exact:
        heat_of = torch_heat(source.module)
        faint = blend_defects(strips, [one.expected for one in proven], layout, heat_of, threshold)
        proven += [
            one for one in _references(source, layout, faint) if is_telling(float(one.expected.max()), threshold)
        ]
        if max(float(one.expected.max()) for one in proven) < LOWEST:
            raise ExportError(
                "No calibration strip makes the network react, nor does a spot blended into one, so nothing can be "
                "proven on them: add strips of the line, some with defects."
            )
    found_plan = _calibrate(asked, source, layout, [one.strip for one in proven])
    model, session, proven, comparisons = _try(asked, source, layout, found_plan, proven, threshold, limits)
    worst, problem = judge(comparisons, limits)
    while problem and found_plan and asked.float_layers == "auto" and asked.window == "exact":
        say(f"strip {worst.name}: {problem}; one more layer is left in float")
        hard = sorted(zip(comparisons, proven, strict=True), key=lambda pair: pair[0].badness(limits))[-HARD_STRIPS:]
        changes = [(feed(one.strip, "unit"), np.abs(one.found - one.expected)) for _, one in hard]
        better = relieve(source, layout, found_plan, changes, asked.opset)
        if better is None:
            break
        found_plan = better
        model, session, proven, comparisons = _try(asked, source, layout, found_plan, proven, threshold, limits)
        worst, problem = judge(comparisons, limits)
    if problem and exact:
        one = proven[comparisons.index(worst)]
        limits = _limits_of_single_precision(source, layout, one, limits)
        worst, problem = judge(comparisons, limits)
    if problem:
        raise _refusal(out, proven[comparisons.index(worst)], problem, exact=exact)
    if found_plan and asked.window == "exact":
        _check_unknown_strip(source, layout, session, asked, out)
    facts = _with_golden(facts, asked, layout, proven, session)
    if asked.calibration:  # not the golden strip, and no spots that were blended in
        lit = [strip.pixels for strip in read_folder(asked.calibration, (layout.height, layout.width))]
        facts = replace(facts, exposure=measure_exposure(lit))
    content = serialise(model, describe_in_metadata(facts, layout, asked.window, source, found_plan, comparisons))
    check_contract(content)
    write_file(out, content)
    return Exported(out, facts, layout, source, len(content), limits, comparisons, worst, found_plan, proven)


def _try(
    asked: Options,
    source: Source,
    layout: Layout,
    found_plan: Calibration | None,
    proven: list[Proven],
    threshold: float,
    limits: Limits,
) -> tuple[onnx.ModelProto, onnxruntime.InferenceSession, list[Proven], list[Comparison]]:
    """Draw the model, run every strip through it and compare."""
    plan = found_plan.plan if found_plan else None
    model = source.draw(layout, plan, window=asked.window, opset=asked.opset, input_scale=asked.input_scale)
    session, _ = check_contract(serialise(model, {}))
    run = [
        replace(one, found=run_strip(session, feed(one.strip, asked.input_scale)))
        for one in progress(proven, "running the file")
    ]
    fed = [feed(one.strip, asked.input_scale) for one in run]
    check_batches(session, fed, [one.found for one in run], limits.heat_change)
    return model, session, run, [_compare(one, threshold, limits) for one in run]


def _refusal(out: Path, one: Proven, problem: str, *, exact: bool) -> ExportError:
    """Draw the worst strip beside the output and say why the guard refuses the file."""
    picture = out.with_name(f"{out.name}.refused.png")
    write_png(picture, side_by_side(one.strip.pixels, one.expected, one.found))
    if exact:
        return ExportError(
            f"The graph differs from torch on strip {one.strip.name}: {problem}; report this as a fault."
        )
    return ExportError(
        f"The guard refuses the file because of strip {one.strip.name}: {problem}; look at {picture.name}, then "
        "calibrate with more strips or export with --precision fp32 --window exact."
    )


def _check_options(asked: Options) -> None:
    check_opset(asked.opset)
    if asked.precision == "int8":
        if asked.calibration is None:
            raise ExportError("--precision int8 needs --calibration FOLDER with strips of the line: give at least 8.")
        if asked.opset < QUANTISED_OPSET:
            raise ExportError(
                f"Opset {asked.opset} cannot carry int8 with a scale for each channel: choose --opset "
                f"{QUANTISED_OPSET} or newer."
            )


def _limits(asked: Options) -> Limits:
    default = DEFAULT_LIMITS[asked.precision, asked.window]
    score, heat = asked.max_score_change, asked.max_heat_change
    return replace(
        default,
        score_change=default.score_change if score is None else score,
        heat_change=default.heat_change if heat is None else heat,
        overlap=default.overlap if heat is None else 0.0,
    )


def _compare(one: Proven, threshold: float, limits: Limits) -> Comparison:
    is_faint = one.strip.name.endswith(FAINT)
    return compare(one.strip.name, one.expected, one.found, threshold, rim_px=limits.rim_px, faint=is_faint)


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
        write_png(picture, side_by_side(strip.pixels, expected, found))
        raise ExportError(
            f"The guard refuses the file because of made-up strip shapes: its heatmap changes by {change:.2g} on "
            f"average, allowed is {UNKNOWN_MEAN_CHANGE:g}; look at {picture.name}, then calibrate with strips that "
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


def _facts(asked: Options, checkpoint_path: Path, checkpoint_sha256: str, layout: Layout, source: Source) -> ModelFacts:
    changed = int(checkpoint_path.stat().st_mtime)
    return ModelFacts(
        labelled=True,
        height=layout.height,
        width=layout.width,
        input_scale=asked.input_scale,
        model_id=asked.model_id or checkpoint_path.stem,
        version=asked.version or changed,
        created=asked.created or dt.datetime.fromtimestamp(changed, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        precision=asked.precision,
        checkpoint_sha256=checkpoint_sha256,
        threshold=asked.threshold,
        producer=producer(),
        input_channels=",".join(source.channels),
    )


def _strips(asked: Options, layout: Layout) -> list[NamedStrip]:
    size = (layout.height, layout.width)
    strips = read_folder(asked.calibration, size) if asked.calibration else made_up_strips(size)
    return strips + ([read_strip(asked.golden, size)] if asked.golden else [])


def _references(source: Source, layout: Layout, strips: list[NamedStrip]) -> list[Proven]:
    nothing = np.zeros((layout.height, layout.width), np.float32)
    return [
        Proven(strip, reference_heatmap(source.module, layout, feed(strip, "unit")), nothing)
        for strip in progress(strips, "torch")
    ]


def _calibrate(asked: Options, source: Source, layout: Layout, strips: list[NamedStrip]) -> Calibration | None:
    if asked.precision != "int8":
        return None
    pixels = [feed(strip, "unit") for strip in strips]
    if asked.float_layers == "none":
        return quantise_everything(source, layout, pixels, asked.opset)
    return calibrate(source, layout, pixels, asked.opset)


def _with_golden(
    facts: ModelFacts, asked: Options, layout: Layout, proven: list[Proven], session: onnxruntime.InferenceSession
) -> ModelFacts:
    """Add the golden strip: the one asked for, else the most telling: most pixels that are neither 0 nor 1."""
    if asked.golden:
        size = (layout.height, layout.width)
        chosen = read_strip(asked.golden, size)
    elif asked.calibration:
        real = [one for one in proven if not one.strip.name.endswith(FAINT)]
        chosen = max(real, key=lambda one: float((one.found * (1 - one.found)).sum())).strip
    else:
        chosen = next(one.strip for one in proven if one.strip.name == "shapes")
    heatmap = run_strip(session, feed(chosen, asked.input_scale))
    golden = encode_golden(Golden(chosen.pixels, heatmap))
    return replace(facts, golden=golden, golden_tolerance=GOLDEN_TOLERANCE[asked.precision])


def serialise(model: onnx.ModelProto, metadata: dict[str, str]) -> bytes:
    """Give the file's bytes with this metadata, in sorted order; the same input gives the same bytes."""
    del model.metadata_props[:]
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    content: bytes = model.SerializeToString(deterministic=True)
    return content
