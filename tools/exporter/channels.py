"""What a network was trained on: some of a strip's three channels and differences of them, computed inside the graph.

`diff1` is target - ref1, `diff2` target - ref2; `double_det` is the one of both that is closer to zero where they have
the same sign, else zero. All are divided by 255 like the grey levels, so differences lie in -1..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from tools.exporter.graph import Graph

RAW = ("target", "ref1", "ref2")  # what a strip has, in this order
DERIVED = ("diff1", "diff2", "double_det")
Channels = tuple[str, ...]


def read_channels(stated: Any, where: str) -> Channels:
    """Read a list of names, or one text with spaces or commas between them; ExportError when it is anything else.

    `where` begins the message: who states it.
    """
    names = stated.replace(",", " ").split() if isinstance(stated, str) else stated
    known = f"an ordered list out of {', '.join(RAW + DERIVED)}"
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ExportError(f"{where} states the input channels {str(stated)[:80]!r}: it must be {known}.")
    unknown = [name for name in names if name not in RAW + DERIVED]
    if unknown:
        raise ExportError(
            f"{where} states the input channel {unknown[0][:64]!r}, which is unknown: it must be {known}."
        )
    return tuple(names)


def choose_channels(in_file: Channels | None, asked: Channels | None) -> Channels | None:
    """Decide between what the checkpoint states and what the person states; ExportError when they differ.

    None is "nobody says": a network of three inputs then takes the raw channels.
    """
    if in_file and asked and in_file != asked:
        raise ExportError(
            f"The checkpoint was trained on {' '.join(in_file)}, --input-channels says {' '.join(asked)}: "
            "leave the option out."
        )
    return asked or in_file


def check_count(channels: Channels | None, count: int) -> Channels:
    """Compare the channels with the number of the network's inputs; ExportError tells what is known."""
    if channels is None and count == len(RAW):
        return RAW
    if channels is None:
        raise ExportError(
            f"This network takes {count} channels, a strip has 3 (target, ref1, ref2), and the checkpoint does not say "
            f"what the {count} are: state them in order with --input-channels, out of {', '.join(RAW + DERIVED)}."
        )
    if len(channels) != count:
        raise ExportError(
            f"This network takes {count} channels, but {len(channels)} are stated ({' '.join(channels)}): "
            "state those it was trained on, in order, with --input-channels."
        )
    return channels


def is_raw(channels: Channels) -> bool:
    """Tell whether the network takes the strip as it is."""
    return channels == RAW


def lowest_value(channels: Channels) -> float:
    """Lowest value of any channel: differences go down to -1."""
    return -1.0 if set(channels) & set(DERIVED) else 0.0


def compute_channels(strips: torch.Tensor, channels: Channels) -> torch.Tensor:
    """(B, 3, h, w) in 0..1 -> (B, number of channels, h, w), differences in -1..1: in torch, as the training does."""
    target, ref1, ref2 = strips[:, 0], strips[:, 1], strips[:, 2]
    diff1, diff2 = target - ref1, target - ref2
    smaller = torch.where(diff1.abs() <= diff2.abs(), diff1, diff2)
    double_det = torch.where(torch.sign(diff1) == torch.sign(diff2), smaller, torch.zeros_like(smaller))
    known = {
        "target": target, "ref1": ref1, "ref2": ref2, "diff1": diff1, "diff2": diff2, "double_det": double_det
    }  # fmt: skip
    return torch.stack([known[name] for name in channels], 1)


class FromStrip(torch.nn.Module):
    """A network behind the channels that it was trained on: (B, 3, h, w) in 0..1 -> what the network gives."""

    def __init__(self, network: torch.nn.Module, channels: Channels) -> None:
        super().__init__()
        self.network = network
        self.channels = channels

    def forward(self, strips: torch.Tensor) -> torch.Tensor:
        """(B, 3, h, w) in 0..1 -> logits."""
        return self.network(compute_channels(strips, self.channels))  # type: ignore[no-any-return]  # torch returns Any


def emit_channels(graph: Graph, strip: str, channels: Channels) -> str:
    """Append what makes the channels out of a strip, (B, 3, H, W) in any scale -> (B, number of channels, H, W).

    The value of `double_det` is the middle one of diff1, diff2 and 0, so it is their smallest where all are positive
    and their largest where all are negative: two nodes each, of which one result is always zero.
    """
    if is_raw(channels):
        return strip
    known = {name: graph.cut(strip, 1, place, place + 1) for place, name in enumerate(RAW)}
    if set(channels) & set(DERIVED):
        known["diff1"] = graph.add("Sub", [known["target"], known["ref1"]])
        known["diff2"] = graph.add("Sub", [known["target"], known["ref2"]])
    if "double_det" in channels:
        both, zero = [known["diff1"], known["diff2"]], graph.constant(0.0, "float32")
        above = graph.add("Max", [graph.add("Min", both), zero])
        below = graph.add("Min", [graph.add("Max", both), zero])
        known["double_det"] = graph.add("Add", [above, below])
    return graph.add("Concat", [known[name] for name in channels], axis=1)
