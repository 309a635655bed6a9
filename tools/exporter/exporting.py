"""The export itself: checkpoint in, proven model file out. `tools/export.py export` is its command line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.contract.model import PREFIX, ModelFacts
from agent.worker.light import measure_exposure
from tools.exporter.approval import Exported, approve, try_as_a_box, with_golden
from tools.exporter.checkpoint import PATCH_SIDE, image_size_of, load_checkpoint
from tools.exporter.files import check_writable, write_file
from tools.exporter.labels import describe_in_metadata, producer
from tools.exporter.layout import Layout, make_layout
from tools.exporter.looks import reference_of
from tools.exporter.options import Options, check_options, limits_of
from tools.exporter.patchwise import why_not_exact
from tools.exporter.progress import say
from tools.exporter.proof_strips import faint_defects, golden_strip, see_defects, settled, strips_of
from tools.exporter.proving import Subject, exact_heat, serialise
from tools.exporter.source import Source, check_layer, make_source
from tools.exporter.strips import read_folder
from tools.exporter.versions import next_version, utc

if TYPE_CHECKING:
    from pathlib import Path

    from tools.exporter.reference import Seen


def export_model(checkpoint_path: Path, out: Path, options: Options | None = None) -> Exported:
    """Export `checkpoint_path` to the file `out`; raises ExportError and leaves nothing under that name on failure."""
    asked = options or Options()
    check_options(asked)
    check_writable(out)
    checkpoint = load_checkpoint(checkpoint_path)
    source = make_source(checkpoint, asked.network, asked.network_args, asked.input_channels, asked.weights)
    patch_size = asked.patch_size or checkpoint.patch_size or (PATCH_SIDE, PATCH_SIDE)
    check_layer(source, patch_size)
    layout = make_layout(asked.image_size or image_size_of(checkpoint), patch_size, asked.grid)
    if asked.window == "whole":
        source.check_whole_is_possible()
    seen_patches: Seen = {}
    if reason := why_not_exact(source, layout, asked.opset):
        say(f"{reason} On another processor the file may come out different.")
    exactly = not reason
    strips = strips_of(asked, layout)
    of_the_line = asked.calibration is not None
    proven = settled(source, layout, asked.opset, strips, seen_patches, can_be_exact=exactly and of_the_line)
    separation = see_defects(source, layout, proven, asked, seen_patches, can_be_exact=exactly)
    if asked.threshold is None:
        asked = replace(asked, threshold=separation.threshold)
    facts = _facts(asked, checkpoint_path, checkpoint.sha256, layout, source)
    if asked.calibration and not asked.is_exact:
        proven += faint_defects(source, layout, proven, asked, seen_patches, can_be_exact=exactly)
    threshold, limits = asked.verdict_threshold, limits_of(asked)
    subject = Subject(source, layout, asked.window, asked.opset, asked.input_scale, threshold, limits, exactly)
    seen, outcome = approve(asked, subject, Exported(out, facts, layout, source, proven, separation=separation))
    chosen = golden_strip(asked, seen.proven)
    facts = with_golden(facts, chosen, exact_heat(subject, seen.calibration, chosen))
    if asked.calibration:  # not the golden strip, and no spots that were blended in
        lit = read_folder(asked.calibration, (layout.height, layout.width))
        heatmaps = [one.expected for one in seen.proven[: len(lit)]]  # torch's, the scores in double precision
        facts = replace(
            facts,
            exposure=measure_exposure([strip.pixels for strip in lit]),
            reference=reference_of(lit, heatmaps, facts.threshold),
        )
    about = describe_in_metadata(facts, layout, asked.window, source, seen.calibration)
    if not (asked.version and asked.created):  # which ask for the same bytes again, also from a copy of the checkpoint
        about[f"{PREFIX}checkpoint_changed"] = utc(checkpoint_path.stat().st_mtime)
    content = serialise(outcome.model, about)
    try_as_a_box(content, asked)
    write_file(out, content)
    return replace(seen, facts=facts, size_bytes=len(content))


def _facts(asked: Options, checkpoint_path: Path, checkpoint_sha256: str, layout: Layout, source: Source) -> ModelFacts:
    return ModelFacts(
        labelled=True,
        height=layout.height,
        width=layout.width,
        input_scale=asked.input_scale,
        model_id=asked.model_id or checkpoint_path.stem,
        version=asked.version or next_version(),
        created=asked.created or utc(time.time()),
        precision=asked.precision,
        checkpoint_sha256=checkpoint_sha256,
        threshold=asked.threshold,
        producer=producer(),
        input_channels=",".join(source.channels),
    )
