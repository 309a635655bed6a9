"""Progress bars on long work; silent where nobody looks at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Item = TypeVar("Item")


def progress(items: Collection[Item], title: str) -> Iterable[Item]:
    """Go through `items` and show how far; the bar goes away when it is done."""
    bar: Iterable[Item] = tqdm(items, title, leave=False, disable=None)
    return bar
