"""How far long work is: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

Item = TypeVar("Item")
LINE_EVERY_SECONDS = 10.0


def progress(items: Collection[Item], title: str) -> Iterable[Item]:
    """Go through `items` and show how far, and how long it will take."""
    if sys.stderr.isatty():
        bar: Iterable[Item] = tqdm(items, title, leave=False)
        return bar
    return _with_lines(items, title)


def in_time(
    items: Collection[Item],
    title: str,
    *,
    most_seconds: float,
    fewest: int,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Item]:
    """Go through `items` as `progress` does: `fewest` of them, and more until `most_seconds` have passed."""
    began = clock()
    for number, item in enumerate(progress(items, title)):
        if number >= fewest and clock() - began > most_seconds:
            say(f"{title}: {number} instead of {len(items)}, {most_seconds:.0f} s are over")
            return
        yield item


def say(finding: str) -> None:
    """Tell an intermediate finding."""
    tqdm.write(finding, file=sys.stderr)


def _with_lines(items: Collection[Item], title: str) -> Iterator[Item]:
    began = said = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if number and now - said >= LINE_EVERY_SECONDS:
            said = now
            left = (now - began) / number * (len(items) - number)
            print(f"{title}: {number} of {len(items)}, about {left:.0f} s to go", file=sys.stderr, flush=True)
        yield item
