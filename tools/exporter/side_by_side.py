"""Do the same with many things, each on a core of its own.

The threads of one operation wait for each other after every step of it; on a machine that does other things besides
they mostly wait. Several operations at once, each in one thread, do not.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

from tools.exporter.progress import progress
from tools.exporter.session import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], title: str = "") -> list[Result]:
    """Call `work` with each of `items`, in threads; `title` is shown with the progress."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(cores())
    try:
        futures = [pool.submit(_without_gradients, work, item) for item in items]
        return [future.result() for future in (progress(futures, title) if title else futures)]
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _without_gradients(work: Callable[[Item], Result], item: Item) -> Result:
    with torch.no_grad():  # each thread asks for itself
        return work(item)


def has_no_state(network: torch.nn.Module) -> bool:
    """Tell whether several threads can run it: a user's own layers may remember things."""
    known = ("torch.nn.modules.", "tools.exporter.")
    return all(type(module).__module__.startswith(known) for module in network.modules())
