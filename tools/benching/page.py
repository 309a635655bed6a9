"""Write docs/benchmarks.md and its pictures out of what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAD = """# Benchmarks

Written by `make bench` (`tools/bench.py all`). Every table says on which machine it was measured, and its load before.
Ratios are of runs that took turns, so that whatever else the machine did met both.
Times depend on the machine and its load: run it on yours.
"""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of lines over sizes: by the line's name, (size, value) each; logarithmic axes, or even ones from 0."""

    file: str
    title: str
    across: str
    up: str
    lines: dict[str, list[tuple[float, float]]]
    logarithmic: bool = True


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark's table, and its picture."""

    title: str
    machine: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str = ""
    chart: Chart | None = field(default=None)


def write_page(target: Path, parts: Sequence[Part]) -> None:
    """Write the page, and beside it a picture for each part that has one."""
    text = HEAD
    for part in parts:
        text += f"\n## {part.title}\n\nMeasured on: {part.machine}.\n\n"
        if part.notes:
            text += f"{part.notes}\n\n"
        if part.chart:
            draw(target.with_name(part.chart.file), part.chart)
            text += f"![{part.chart.title}]({part.chart.file})\n\n"
        text += _line(part.columns) + _line(["---"] * len(part.columns)) + "".join(_line(row) for row in part.rows)
    target.write_text(text, encoding="utf-8")


def as_text(part: Part) -> str:
    """Lay a table out for a terminal."""
    widths = [max(len(row[column]) for row in [part.columns, *part.rows]) for column in range(len(part.columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in [part.columns, *part.rows]
    ]
    return "\n".join([f"\n{part.title} ({part.machine})", *(line.rstrip() for line in lines)])


def draw(target: Path, chart: Chart) -> None:
    """Draw the lines of a chart as PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - it takes a second to load

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, points in chart.lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title=chart.title, xlabel=chart.across, ylabel=chart.up)
    if chart.logarithmic:
        axes.set(xscale="symlog", yscale="log")
    else:  # from 0, or a small change looks like a large one
        axes.set(xlim=(0, None), ylim=(0, 1.2 * max(value for points in chart.lines.values() for _, value in points)))
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(target, dpi=100, metadata={"Software": None})


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"
