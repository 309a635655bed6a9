"""What was found, as a sentence for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.contract.measures import channel_of, kind_of
from agent.drift.judging import shown

if TYPE_CHECKING:
    from agent.drift.judging import Finding, Moved


_ENGLISH: dict[str, str] = {
    "level": "The {channel}'s brightest places have the grey level {found}, not the {was}",
    "contrast": "The {channel}'s contrast is {found} grey levels, not the {was}",
    "noise": "The {channel}'s noise is {found} grey levels, not the {was}",
    "sharpness": "The {channel}'s edges rise by {found} of the contrast in a pixel, not by the {was}",
    "shift": "Reference {number} lies {found} {way} from the target, not the {was}",
    "unlike": "Target and reference {number} correlate by {found}, not by the {was}",
    "score": "Strips without a defect score {found}, not the {was}",
    "hot": "{found} of the strips reach the threshold, not the {was}",
}
_FORMATS = {"level": ".0f", "contrast": ".3g", "noise": ".2g", "sharpness": ".0%", "shift": "+.1f", "unlike": ".2f",
            "score": ".2f", "hot": ".0%"}  # fmt: skip


def parts(moved: Moved, *, of_calibration: bool) -> dict[str, str]:
    """Return what a sentence in any language is made of; the numbers as they are to be written."""
    was, found = shown(moved)
    kind = "hot" if moved.measure == "hot" else kind_of(moved.measure)
    if kind == "unlike":
        was, found = 1 - was, 1 - found
    return {
        "kind": kind,
        "channel": channel_of(moved.measure),
        "number": moved.measure[-1],
        "way": "rows" if moved.measure.startswith("rows") else "columns",
        "was": format(was, _FORMATS[kind]),
        "found": format(found, _FORMATS[kind]),
        "reference": "calibration" if of_calibration and kind != "hot" else "first_strips",
    }


def sentence(finding: Finding, began: str, *, of_calibration: bool) -> str:
    """Say what has moved, from what to what, since which UTC date, and which strips show it."""
    said = parts(finding.newest, of_calibration=of_calibration)
    what = _ENGLISH[said["kind"]].format(**said | {"channel": said["channel"].replace("_", " ")})
    reference = "the calibration strips" if said["reference"] == "calibration" else "the camera's first strips"
    examples = f", for example {', '.join(finding.examples)}" if finding.examples else ""
    return f"{what} of {reference}; since {began}{examples}."
