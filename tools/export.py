#!/usr/bin/env python
"""Turn a trained torch model into the one file that the line runs, prove it, and put it on the box."""

from __future__ import annotations

import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.exporter.errors import ExportError

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
SIZE = click.Tuple([click.IntRange(min=1), click.IntRange(min=1)])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Export a trained network to ONNX and push it to the boxes."""


@main.command()
@click.argument("checkpoint", type=FILE)
@click.option("--out", type=FILE, required=True, help="The model file to write.")
@click.option("--model-id", help="Name of the model; default: the checkpoint's file name.")
@click.option("--version", type=click.IntRange(min=1), help="Rising number; default: the checkpoint's time of change.")
@click.option("--created", help="Time to record, UTC; default: now.")
@click.option("--opset", type=int, default=17, show_default=True, help="ONNX opset, 11 or newer.")
@click.option("--input-scale", type=click.Choice(["unit", "gray8"]), default="unit", show_default=True)
@click.option("--image-size", type=SIZE, metavar="HEIGHT WIDTH", help="Strip size; default: by the checkpoint.")
@click.option("--patch", "patch_size", type=SIZE, metavar="HEIGHT WIDTH", help="Patch size; default: the checkpoint's.")
@click.option("--grid", type=SIZE, metavar="ROWS COLUMNS", help="Number of patches; default: derived.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Suggested threshold to record.")
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True)
@click.option(
    "--calibration", type=FOLDER, help="Folder with strips of the line: for int8, the guard, the golden strip."
)
@click.option("--float-layers", type=click.Choice(["auto", "none"]), default="auto", show_default=True)
@click.option("--window", type=click.Choice(["exact", "whole"]), default="exact", show_default=True)
@click.option("--golden", type=FILE, help="Golden strip; default: the most telling of the calibration strips.")
@click.option("--network", metavar="FILE.py:Class", help="Your own network: (B, 3, h, w) -> (B, 2, h, w) logits.")
@click.option("--network-args", metavar="JSON", help="Arguments for its constructor.")
@click.option("--max-score-change", type=click.FloatRange(0, 1), help="Limit of the guard.")
@click.option("--max-heat-change", type=click.FloatRange(0, 1), help="Limit of the guard, any pixel.")
def export(checkpoint: Path, out: Path, **asked: object) -> None:
    """Export CHECKPOINT and prove that the file scores as torch does."""
    from tools.exporter.exporting import Options, export_model  # noqa: PLC0415 - torch takes seconds to load

    exported = export_model(checkpoint, out, Options(**asked))  # type: ignore[arg-type]  # click checked the types
    print(exported.layout.describe())
    worst = exported.worst
    print(
        f"{len(exported.comparisons)} strips compared with torch; worst {worst.name}: score {worst.score_torch:.4f} -> "
        f"{worst.score_onnx:.4f}, largest change of a pixel {worst.heat_change:.1e}, IoU {worst.worst_iou:.2f}"
    )
    if exported.calibration:
        kept = ", ".join(sorted(exported.calibration.plan.float_layers)) or "none"
        print(f"quantised by {exported.calibration.method}; layers left in float: {kept}")
    print(f"{out}: {exported.size_bytes / 1e6:.1f} MB")


def run() -> None:
    """Run the command line; a refusal is one sentence and exit code 1."""
    try:
        main()
    except ExportError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
