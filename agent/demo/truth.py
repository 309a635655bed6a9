"""What the simulated cameras wrote, and how that compares with what the agent published."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

StripKey = tuple[str, str]  # camera, file relative to its folder: a strip's name on both sides


@dataclass(frozen=True, slots=True)
class Written:
    """The truth about one file; `defects` are kinds, `broken` is "" or what is wrong with the file."""

    camera: str
    file: str
    defects: tuple[str, ...]
    broken: str

    @property
    def key(self) -> StripKey:
        """The strip's name."""
        return self.camera, self.file


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts of strips: written in each of three kinds, and judged rightly; strips without a result; wrong verdicts."""

    defective: int
    defective_found: int
    good: int
    good_passed: int
    broken: int
    broken_refused: int
    missing: tuple[StripKey, ...]
    wrong: tuple[tuple[StripKey, str, str], ...]  # name, what it is, its verdict


def read_truth(truth_file: Path) -> list[Written]:
    """Read what the cameras' process wrote, one JSON object on each line; a last line without its end is left out."""
    if not truth_file.exists():
        return []
    *lines, _ = truth_file.read_text(encoding="utf-8").split("\n")
    return [Written(**{**json.loads(line), "defects": tuple(json.loads(line)["defects"])}) for line in lines]


def compare(written: Iterable[Written], results: Mapping[StripKey, Mapping[str, Any]]) -> Comparison:
    """Compare the truth with the newest result of each strip (payloads of `strip-result/1`)."""
    total, right = Counter[str](), Counter[str]()
    missing, wrong = list[StripKey](), list[tuple[StripKey, str, str]]()
    for strip in written:
        kind = "broken" if strip.broken else "defective" if strip.defects else "good"
        total[kind] += 1
        result = results.get(strip.key)
        if result is None:
            missing.append(strip.key)
        elif result["verdict"] == {"broken": "invalid", "defective": "anomalous", "good": "ok"}[kind]:
            right[kind] += 1
        else:
            wrong.append((strip.key, strip.broken or ", ".join(strip.defects) or "good", result["verdict"]))
    return Comparison(
        defective=total["defective"],
        defective_found=right["defective"],
        good=total["good"],
        good_passed=right["good"],
        broken=total["broken"],
        broken_refused=right["broken"],
        missing=tuple(missing),
        wrong=tuple(wrong),
    )
