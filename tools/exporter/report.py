"""The report: one self-contained page for the person who has to agree to a new model."""

from __future__ import annotations

import base64
import html
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.exporter.errors import ExportError
from tools.exporter.files import write_file
from tools.exporter.graph import OLDEST_OPSET
from tools.exporter.measure import Measured, measure
from tools.exporter.pictures import encode_png, side_by_side
from tools.exporter.plain import export_plain
from tools.exporter.session import cores
from tools.exporter.strips import feed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.exporter.exporting import Exported, Options
    from tools.exporter.layout import Layout
    from tools.exporter.source import Source

ROUNDS = 5
PICTURES = 6
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.25em .7em;text-align:right}"
    "th{background:#eee}td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 1.5em 1em 0}"
    "figcaption{font-size:.85em}.bad{background:#fcc}"
)


def write_report(path: Path, exported: Exported, options: Options) -> None:
    """Measure the file and the other variants here against the plain export and write the page."""
    write_file(path, make_report(exported, measure_variants(exported, options), opset=options.opset).encode())


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
        (
            "<p>This model scores strips as the trained network does. Every comparison below is between the network in "
            "torch, which was trained, and the file, which the line will run. The guard found every difference within "
            f"its limits; the largest is on <b>{html.escape(worst.name)}</b>: its score is {worst.score_torch:.4f} "
            f"in torch and {worst.score_onnx:.4f} in the file.</p>"
        ),
        "<h2>What was exported</h2>",
        _table(("", ""), _facts(exported, opset)),
        "<h2>Where the patches lie</h2>",
        "<p>Each rectangle is what the heatmap takes from one patch.</p>" + _layout_drawing(exported.layout),
        "<h2>Speed and memory, measured on this machine</h2>",
        (
            "<p>Only this file has passed the guard. The others are what the same network could be: <i>exact</i> "
            "computes each patch as the training did, <i>whole</i> runs once over the strip and is another function "
            "near the patches' borders, <i>int8</i> needs calibration strips.</p>"
        ),
        _table(
            ("variant", "seconds per strip", "against plain", "peak memory MiB", "file MB"),
            [
                (one.name, f"{one.seconds:.3f}", f"{one.ratio:.2f}", f"{one.peak_mib:.0f}", f"{one.file_mb:.1f}")
                for one in measured
            ],
        ),
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
            "so that its largest value, given below, is brightest).</p>"
        ),
        *_pictures(exported),
    ]
    page = "\n".join(parts)
    title = html.escape(facts.model_id)
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{page}</html>\n'


def _facts(exported: Exported, opset: int) -> list[tuple[str, str]]:
    facts = exported.facts
    rows = [
        ("checkpoint (sha256)", facts.checkpoint_sha256),
        ("network", exported.source.name),
        ("created", facts.created),
        ("made with", facts.producer),
        ("strip", f"{facts.height} x {facts.width}, grey levels fed as {facts.input_scale}"),
        ("precision", facts.precision),
        ("opset", f"{opset} ({OLDEST_OPSET} is the oldest possible)"),
        ("suggested threshold", "none" if facts.threshold is None else f"{facts.threshold:g}"),
    ]
    if exported.calibration:
        rows.append(("calibration", exported.calibration.method))
        rows.append(("layers left in float", ", ".join(sorted(exported.calibration.plan.float_layers)) or "none"))
    return rows


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


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
    return _table(head, rows)


def _layout_drawing(layout: Layout) -> str:
    scale = 400 / max(layout.height, layout.width)
    boxes = []
    for row, column in layout.windows:
        x, y = (column.start + column.keep_start) * scale, (row.start + row.keep_start) * scale
        width, height = (column.keep_stop - column.keep_start) * scale, (row.keep_stop - row.keep_start) * scale
        boxes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
    size = f'width="{layout.width * scale + 2:.0f}" height="{layout.height * scale + 2:.0f}"'
    drawing = f'<svg {size} fill="#e8eef8" stroke="#36c">{"".join(boxes)}</svg>'
    return f"{drawing}<p>{html.escape(layout.describe())}</p>"


def _scatter(exported: Exported) -> str:
    dots = [
        f'<circle cx="{20 + 300 * one.score_torch:.1f}" cy="{320 - 300 * one.score_onnx:.1f}" r="4">'
        f"<title>{html.escape(one.name)}</title></circle>"
        for one in exported.comparisons
    ]
    axes = '<path d="M20 20V320H320M20 320L320 20" fill="none" stroke="#999"/>'
    words = '<text x="120" y="338" font-size="13">score in torch, 0 to 1</text>'
    return f'<svg width="340" height="345"><g fill="#c33" fill-opacity=".6">{axes}{"".join(dots)}</g>{words}</svg>'


def _pictures(exported: Exported) -> Iterable[str]:
    pairs = list(zip(exported.proven, exported.comparisons, strict=True))
    for proven, comparison in sorted(pairs, key=lambda pair: -pair[1].heat_change)[:PICTURES]:
        encoded = base64.b64encode(
            encode_png(side_by_side(proven.strip.pixels, proven.expected, proven.found))
        ).decode()
        caption = f"{html.escape(proven.strip.name)}<br>largest difference {comparison.heat_change:.1e}"
        yield f'<figure><img src="data:image/png;base64,{encoded}" alt=""><figcaption>{caption}</figcaption></figure>'
