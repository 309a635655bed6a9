"""The report: one self-contained page for the person who has to agree to a new model."""

from __future__ import annotations

import html
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agent.page import page, table
from tools.exporter.errors import ExportError
from tools.exporter.files import write_file
from tools.exporter.graph import OLDEST_OPSET
from tools.exporter.measure import Measured, measure
from tools.exporter.page import data_url
from tools.exporter.pictures import side_by_side
from tools.exporter.plain import export_plain
from tools.exporter.session import cores
from tools.exporter.strips import feed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.exporter.approval import Exported
    from tools.exporter.layout import Layout
    from tools.exporter.options import Options
    from tools.exporter.proving import Proven
    from tools.exporter.source import Source

ROUNDS = 5
RANKED = 8  # layers whose gain is shown
LONGEST_SIDE_PX = 640  # of the drawing of the windows
PICTURES = 6


def write_report(path: Path, exported: Exported, options: Options) -> None:
    """Measure the file and the other variants here against the plain export and write the page.

    Where the guard refused the file nothing is measured: the page says what the guard saw.
    """
    measured = [] if exported.refusal else measure_variants(exported, options)
    write_file(path, make_report(exported, measured, opset=options.opset).encode())


def measure_variants(exported: Exported, options: Options) -> list[Measured]:
    """Measure the file that was written, and what else the same network could be, against its plain export.

    INT8 is among it where the export was calibrated, `whole` where the network allows it.
    """
    source, layout = exported.source, exported.layout
    plans = {"fp32": None, "int8": exported.calibration.plan if exported.calibration else None}
    with tempfile.TemporaryDirectory() as folder:
        models = {"plain export": Path(folder) / "plain.onnx"}
        models["plain export"].write_bytes(export_plain(source.module, layout))
        models[f"this file: {options.precision} {options.window}"] = exported.path
        for window in _possible_windows(source):
            for precision, plan in plans.items():
                other = (precision, window) != (options.precision, options.window)
                if other and (precision == "fp32" or plan):
                    drawn = source.draw(
                        layout, plan, window=window, opset=options.opset, input_scale=options.input_scale
                    )
                    path = models[f"{precision} {window}"] = Path(folder) / f"{precision}-{window}.onnx"
                    path.write_bytes(drawn.SerializeToString(deterministic=True))
        fed = feed(exported.proven[0].strip, exported.facts.input_scale)
        return measure(models, fed, rounds=ROUNDS, threads=cores())


def _rims(rim_px: int) -> str:
    return f" beyond what lies within {rim_px} pixel of it" if rim_px else ""


def _possible_windows(source: Source) -> tuple[str, ...]:
    try:
        source.check_whole_is_possible()
    except ExportError:
        return ("exact",)
    return "exact", "whole"


def make_report(exported: Exported, measured: list[Measured], *, opset: int) -> str:
    """Put the page together; nothing in it is loaded from elsewhere."""
    facts, worst = exported.facts, exported.worst
    parts = [
        f"<h1>{html.escape(facts.model_id)}, version {facts.version}</h1>",
        _summary(exported),
        "<h2>What was exported</h2>",
        table(("", ""), _facts(exported, opset)),
        *_calibration(exported),
        "<h2>Where the patches lie</h2>",
        (
            "<p>Each rectangle is what the heatmap takes from one patch. Below them lies the target of "
            f"{html.escape(worst.name)}, which is nearest to the guard's limits or beyond them; the ring is around the "
            "pixel of its heatmap that differs most.</p>"
        ),
        _layout_drawing(exported.layout, exported.proven[exported.comparisons.index(worst)]),
        *_speed(measured),
        "<h2>Scores: torch against the file</h2>" + _scatter(exported),
        "<h2>The guard</h2>",
        (
            f"<p>Allowed: no verdict changes; score by {exported.limits.score_change:g}; any pixel of the heatmap by "
            f"{exported.limits.heat_change:g}{_rims(exported.limits.rim_px)}; "
            "every defect region of 20 pixels or more found again (IoU 0.8 or more). "
            "Strips with a faint defect were made for this test: a weak spot was blended into a real strip.</p>"
        ),
        _guard_table(exported),
        (
            "<h2>Heatmaps</h2><p>From left: target, heatmap in torch, heatmap in the file, difference (stretched "
            "so that its largest value, given below, is brightest). The ring is around the pixel that differs most.</p>"
        ),
        *_pictures(exported),
    ]
    return page(facts.model_id, parts)


def _summary(exported: Exported) -> str:
    """Say how it ended: there is a file, or why not."""
    worst = exported.worst
    scores = f"its score is {worst.score_torch:.4f} in torch and {worst.score_onnx:.4f} in the file"
    compared = "Every comparison below is between the network in torch, which was trained, and the file"
    if exported.refusal:
        return (
            f'<p class="bad"><b>There is no file: it was refused.</b> {html.escape(exported.refusal)}</p><p>{compared} '
            f"that was refused; the worst is on <b>{html.escape(worst.name)}</b>: {scores}.</p>"
        )
    return (
        f"<p>This model scores strips as the trained network does. {compared}, which the line will run. The guard "
        f"found every difference within its limits; the largest is on <b>{html.escape(worst.name)}</b>: {scores}.</p>"
    )


def _calibration(exported: Exported) -> list[str]:
    """Tell how it was quantised: strips, ranges, the plan, and what each layer would gain in float."""
    found = exported.calibration
    if found is None:
        return []
    strips = [proven.strip.name for proven in exported.proven]
    kept = sorted(found.plan.float_layers)
    rows = [
        ("strips", f"{len(strips)}: {', '.join(strips)}"),
        ("ranges", f"of {len(found.plan.ranges)} tensors, by {found.method}"),
        ("layers left in float", ", ".join(kept) or "none"),
    ]
    ranked = sorted(found.sensitivity.items(), key=lambda item: -item[1])[:RANKED]
    parts = ["<h2>How it was quantised</h2>", table(("", ""), rows)]
    if ranked:
        gains = [(name, f"{gain:.2g}", "yes" if name in kept else "no") for name, gain in ranked]
        parts.append("<p>What was gained last, of the error on the hardest patches, by leaving one layer in float:</p>")
        parts.append(table(("layer", "error that goes", "left in float"), gains))
    return parts


def _speed(measured: list[Measured]) -> list[str]:
    if not measured:
        return []
    rows = [
        (one.name, f"{one.seconds:.3f}", f"{one.ratio:.2f}", f"{one.peak_mib:.0f}", f"{one.file_mb:.1f}")
        for one in measured
    ]
    return [
        "<h2>Speed and memory, measured on this machine</h2>",
        (
            "<p>Only this file has passed the guard. The others are what the same network could be: <i>exact</i> "
            "computes each patch as the training did, <i>whole</i> runs once over the strip and is another function "
            "near the patches' borders, <i>int8</i> needs calibration strips.</p>"
        ),
        table(("variant", "seconds per strip", "against plain", "peak memory MiB", "file MB"), rows),
    ]


def _facts(exported: Exported, opset: int) -> list[tuple[str, str]]:
    facts = exported.facts
    return [
        ("checkpoint (sha256)", facts.checkpoint_sha256),
        ("network", exported.source.name),
        ("created", facts.created),
        ("made with", facts.producer),
        ("strip", f"{facts.height} x {facts.width}, grey levels fed as {facts.input_scale}"),
        ("precision", facts.precision),
        ("opset", f"{opset} ({OLDEST_OPSET} is the oldest possible)"),
        ("suggested threshold", "none" if facts.threshold is None else f"{facts.threshold:g}"),
    ]


def _guard_table(exported: Exported) -> str:
    head = ("strip", "torch", "file", "score change", "largest pixel change", "regions", "worst IoU")
    rows = [
        (
            one.name,
            f"{one.score_torch:.4f}",
            f"{one.score_onnx:.4f}",
            f"{one.score_change:.1e}",
            f"{one.heat_change:.1e}",
            str(one.regions),
            f"{one.worst_iou:.2f}",
        )
        for one in exported.comparisons
    ]
    bad = [number for number, one in enumerate(exported.comparisons) if one.problem(exported.limits)]
    return table(head, rows, bad)


def _layout_drawing(layout: Layout, worst: Proven) -> str:
    """Draw the windows over a strip's target, and a ring around the pixel of its heatmap that differs most."""
    scale = LONGEST_SIDE_PX / max(layout.height, layout.width)
    boxes = []
    for row, column in layout.windows:
        x, y = (column.start + column.keep_start) * scale, (row.start + row.keep_start) * scale
        width, height = (column.keep_stop - column.keep_start) * scale, (row.keep_stop - row.keep_start) * scale
        boxes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
    width, height = layout.width * scale, layout.height * scale
    target = data_url(np.clip(worst.strip.pixels[0], 0, 255).astype(np.uint8))
    row_px, column_px = np.unravel_index(int(np.abs(worst.found - worst.expected).argmax()), worst.found.shape)
    ring = f'<circle cx="{column_px * scale:.1f}" cy="{row_px * scale:.1f}" r="7" stroke="#e22" stroke-width="2"/>'
    image = f'<image href="{target}" width="{width:.1f}" height="{height:.1f}"/>'
    size = f'width="{width + 2:.0f}" height="{height + 2:.0f}"'
    drawing = f'<svg {size} fill="none" stroke="#6af">{image}{"".join(boxes)}{ring}</svg>'
    return f"{drawing}<p>{html.escape(layout.describe())}</p>"


def _scatter(exported: Exported) -> str:
    dots = [
        f'<circle cx="{20 + 300 * one.score_torch:.1f}" cy="{320 - 300 * one.score_onnx:.1f}" r="4">'
        f"<title>{html.escape(one.name)}</title></circle>"
        for one in exported.comparisons
    ]
    axes = '<path d="M20 20V320H320M20 320L320 20" fill="none" stroke="#999"/>'
    words = (
        '<text x="120" y="338" font-size="13">score in torch, 0 to 1</text>'
        '<text transform="translate(12 220) rotate(-90)" font-size="13">score in the file</text>'
    )
    return f'<svg width="340" height="345"><g fill="#c33" fill-opacity=".6">{axes}{"".join(dots)}</g>{words}</svg>'


def _pictures(exported: Exported) -> Iterable[str]:
    pairs = list(zip(exported.proven, exported.comparisons, strict=True))
    for proven, _ in sorted(pairs, key=lambda pair: -pair[1].heat_change)[:PICTURES]:
        picture = data_url(side_by_side(proven.strip.pixels, proven.expected, proven.found))
        largest = float(np.abs(proven.found - proven.expected).max())
        caption = f"{html.escape(proven.strip.name)}<br>largest difference {largest:.1e}"
        yield f'<figure><img src="{picture}" alt=""><figcaption>{caption}</figcaption></figure>'
