"""What the demo shows: one line for each result, and a line that says how things stand.

`PlainScreen` prints lines, for pipes and machines without rich; `LiveScreen` keeps a table on a terminal.
"""

from __future__ import annotations

import shutil
import sys
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

BAR_CELLS = 9
LINES_AROUND_THE_TABLE = 22  # header above, totals below, and a little of what was said before
FEWEST_ROWS = 6
# The table's columns and the cells each needs; on a narrow terminal the first of LEFT_OUT leave first.
COLUMNS = {
    "time": 8,
    "camera": 6,
    "strip": 13,
    "verdict": 9,
    "score": BAR_CELLS + 6,
    "why": 20,
    "latency": 7,
    "model ran": 9,
    "model": 12,
}
LEFT_OUT = ("model", "model ran", "camera", "time")
SECOND_MS = 1000
PADDING = 3  # cells that a column needs beside its own


@dataclass(frozen=True, slots=True)
class Row:
    """One result as people read it. `latency_ms` is from the end of writing to the arrival here, settling included."""

    time: str
    camera: str
    strip: str
    verdict: str
    score: float
    threshold: float
    why: str
    latency_ms: int
    inference_ms: float
    model: str


def row_of(result: dict[str, Any], arrived_ms: int) -> Row:
    """Make a row out of a payload of `strip-result/1`."""
    regions = result["defect_count"]
    what = f"{regions} region{'s' if regions != 1 else ''}, {result['anomaly_area_px']} px" if regions else ""
    version = f" v{result['model_version']}" if result["model_version"] else ""
    return Row(
        time=datetime.fromtimestamp(result["ts_ms"] / 1000).astimezone().strftime("%H:%M:%S"),
        camera=result["camera"],
        strip=PurePosixPath(result["file"]).stem,
        verdict=result["verdict"],
        score=result["score"],
        threshold=result["threshold"],
        why=result["reason"] or what,
        latency_ms=arrived_ms - result["captured_ts_ms"],
        inference_ms=result["inference_ms"],
        model=f"{result['model_id']}{version}",
    )


def bar(score: float, threshold: float) -> str:
    """Draw a score 0..1 as a bar with a mark at the threshold; an invalid strip (-1) has an empty one."""
    full = round(max(0.0, min(1.0, score)) * BAR_CELLS)
    cells = ["█"] * full + ["·"] * (BAR_CELLS - full)
    mark = min(BAR_CELLS - 1, max(0, round(threshold * BAR_CELLS)))
    cells[mark] = "┃" if cells[mark] == "█" else "│"
    return "".join(cells)


def columns_that_fit(width: int) -> list[str]:
    """Choose the columns for a terminal of this many cells; those that matter most are always shown."""
    names = list(COLUMNS)
    for name in LEFT_OUT:
        if sum(COLUMNS[kept] + PADDING for kept in names) >= width:
            names.remove(name)
    return names


class Screen(Protocol):
    """Where results go while the demo runs."""

    def result(self, row: Row) -> None:
        """Show one result."""
        ...

    def say(self, text: str) -> None:
        """Say what happened beside the strips."""
        ...

    def status(self, text: str, totals: str) -> None:
        """Say how things stand."""
        ...

    def close(self) -> None:
        """Leave what was shown on the terminal."""
        ...


def choose_screen() -> Screen:
    """Return a table on a terminal, lines elsewhere."""
    if sys.stdout.isatty() and find_spec("rich"):
        return LiveScreen()
    return PlainScreen()


class PlainScreen:
    """One line for each result, and one whenever the state changes."""

    def __init__(self) -> None:
        self._said = ""

    def result(self, row: Row) -> None:
        """Print the row."""
        score = f"{row.score:6.3f}" if row.verdict != "invalid" else "     -"
        print(
            f"{row.time}  {row.camera:6}  {row.strip:13}  {row.verdict:9}  {score}  {row.why:22}"
            f"  {row.latency_ms:5} ms  model {row.inference_ms:4.0f} ms  {row.model}",
            flush=True,
        )

    def say(self, text: str) -> None:
        """Print it."""
        print(f">> {text}", flush=True)

    def status(self, text: str, totals: str) -> None:
        """Print the state when it is new; the totals speak through the rows."""
        del totals
        if text != self._said:
            self._said = text
            print(f"-- {text}", flush=True)

    def close(self) -> None:
        """Nothing is left to do."""


class LiveScreen:
    """A table of the newest results that redraws itself."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console  # noqa: PLC0415 - rich is optional
        from rich.live import Live  # noqa: PLC0415

        rows = max(FEWEST_ROWS, shutil.get_terminal_size().lines - LINES_AROUND_THE_TABLE)
        self._rows = deque[Row](maxlen=rows)
        self._text, self._totals = "", ""
        self._console = console or Console()
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=8)
        self._live.start()

    def result(self, row: Row) -> None:
        """Add the row; the oldest leaves when the screen is full."""
        self._rows.append(row)

    def say(self, text: str) -> None:
        """Print it above the table, where it stays."""
        self._console.print(f">> {text}", markup=False, highlight=False)

    def status(self, text: str, totals: str) -> None:
        """Put both under the table."""
        self._text, self._totals = text, totals

    def close(self) -> None:
        """Draw the table for the last time."""
        self._live.refresh()
        self._live.stop()

    def _table(self) -> Table:
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - rich is optional
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        caption = Text(f"{self._totals}\n{self._text}")
        table = Table(box=SIMPLE_HEAD, caption=caption, caption_justify="left")
        names = columns_that_fit(self._console.width)
        for name in names:
            table.add_column(
                name,
                no_wrap=True,
                min_width=COLUMNS[name],
                justify="right" if name in {"latency", "model ran"} else "left",
            )
        for row in self._rows:
            style = {"ok": "green", "anomalous": "bold red", "invalid": "yellow"}[row.verdict]
            score = Text(bar(row.score, row.threshold), style)
            score.append(f" {row.score:.3f}" if row.verdict != "invalid" else "   -  ")
            cells: dict[str, str | Text] = {
                "time": row.time,
                "camera": row.camera,
                "strip": row.strip,
                "verdict": Text(row.verdict, style),
                "score": score,
                "why": row.why,
                "latency": f"{row.latency_ms} ms"
                if row.latency_ms < SECOND_MS
                else f"{row.latency_ms / SECOND_MS:.1f} s",
                "model ran": f"{row.inference_ms:.0f} ms" if row.inference_ms else "",
                "model": row.model,
            }
            table.add_row(*(cells[name] for name in names))
        return table
