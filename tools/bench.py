#!/usr/bin/env python
"""Reproduce the figures that the documentation states. Nothing here is asserted in tests: machines differ."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.exporter.errors import ExportError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure strip-agent's parts on this machine."""


@main.command()
@click.option("--width", default=64, show_default=True, help="Channels of the network's first block.")
@click.option("--family", type=click.Choice(["first", "second"]), default="first", show_default=True)
@click.option("--rounds", default=7, show_default=True, help="Interleaved rounds.")
@click.option("--threads", default=0, help="Threads; default: the cores this process may use.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the models in this folder.")
def models(width: int, family: str, rounds: int, threads: int, keep: Path | None) -> None:
    """Time, memory and file size of every variant against the plain export, with random weights."""
    from tools.exporter.measure import measure, table  # noqa: PLC0415 - torch takes seconds to load
    from tools.exporter.session import cores  # noqa: PLC0415
    from tools.exporter.strips import feed, made_up_strips  # noqa: PLC0415
    from tools.exporter.variants import make_variants  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = make_variants(folder, width, second_family=family == "second")
        strip = made_up_strips((976, 176))[1]
        print(table(measure(paths, feed(strip, "unit"), rounds=rounds, threads=threads or cores())))


if __name__ == "__main__":
    try:
        main()
    except ExportError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
