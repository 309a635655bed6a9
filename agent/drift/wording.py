"""What was found, as a sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.measures import channel_of, kind_of
from agent.drift.judging import shown

if TYPE_CHECKING:
    from agent.drift.judging import Finding, Moved


def sentence(finding: Finding, began: str, *, of_calibration: bool) -> str:
    """Say what has moved, from what to what, since which UTC date, and which strips show it."""
    reference = "the calibration strips" if of_calibration else "the camera's first strips"
    if finding.moved.measure == "hot":
        reference = "the camera's first strips"
    examples = f", for example {', '.join(finding.examples)}" if finding.examples else ""
    return f"{_what(finding.newest)} of {reference}; since {began}{examples}."


def _what(moved: Moved) -> str:
    was, found = shown(moved)
    channel = channel_of(moved.measure).replace("_", " ")
    number = moved.measure[-1]
    way = "rows" if moved.measure.startswith("rows") else "columns"
    kind = "hot" if moved.measure == "hot" else kind_of(moved.measure)
    return {
        "level": f"The {channel}'s brightest places have the grey level {found:.0f}, not the {was:.0f}",
        "contrast": f"The {channel}'s contrast is {found:.3g} grey levels, not the {was:.3g}",
        "noise": f"The {channel}'s noise is {found:.2g} grey levels, not the {was:.2g}",
        "sharpness": f"The {channel}'s edges rise by {found:.0%} of the contrast in a pixel, not by the {was:.0%}",
        "shift": f"Reference {number} lies {found:+.1f} {way} from the target, not the {was:+.1f}",
        "unlike": f"Target and reference {number} correlate by {1 - found:.2f}, not by the {1 - was:.2f}",
        "score": f"Strips without a defect score {found:.2f}, not the {was:.2f}",
        "hot": f"{found:.0%} of the strips reach the threshold, not the {was:.0%}",
    }[kind]
