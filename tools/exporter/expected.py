"""How long a strip takes on the processors that boxes have, from what the model has to compute.

The rates are of onnxruntime 1.32 on an AMD EPYC core, fitted to files of both precisions, 16 and 64 wide;
docs/exporter.md has what was measured. Another clock, another memory: another time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tools.exporter.work import Work

VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of processor; rates are thousand million multiplications a second of one core."""

    words: str
    float_rate: float
    int8_rate: float
    seconds_for_others: float  # thousand million values: activations, pooling, upsampling


KINDS = {
    "vnni": Kind("with VNNI", 46.0, 230.0, 1.0),
    "avx2": Kind("with AVX2 only", 38.0, 73.0, 1.0),
}
ARM = "arm64"  # scores right, but was never timed on hardware
TARGETS = (*KINDS, ARM)
WORTH_IT = 0.8  # of fp32's time: what int8 has to stay below where the arithmetic bounds it


def core_seconds(work: Work, kind: Kind) -> float:
    """Return how long one core of this kind is busy with a strip."""
    layers = work.float_multiplications / kind.float_rate + work.int8_multiplications / kind.int8_rate
    return layers + work.other_values * kind.seconds_for_others


def tell_expected(content: bytes, size: tuple[int, int], target: str | None = None) -> str:
    """Say what a strip of (height, width) takes on the target, or on each kind that was measured."""
    if target == ARM:
        return "cannot be told: no Arm was ever measured"
    from tools.exporter.work import count_work  # noqa: PLC0415 - the command line's help needs no onnxruntime

    try:
        work = count_work(content, size)
    except ExportError as error:
        return f"cannot be told: {error}"
    kinds = [KINDS[target]] if target else KINDS.values()
    times = ", ".join(f"{core_seconds(work, kind):.2g} s {kind.words}" for kind in kinds)
    return f"a strip takes about {times}, on one core like those of docs/exporter.md; on two cores half of that"


def choose_precision(target: str | None) -> tuple[str, str]:
    """Return the precision for the target, by default this machine's processor, and a sentence why."""
    target = target or kind_of(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"))
    if target == ARM:
        return (
            "fp32",
            "fp32, because int8 was never timed on an Arm: measure both on the box (inspect) before you choose",
        )
    kind = KINDS[target]
    share = kind.float_rate / kind.int8_rate
    precision = "int8" if share < WORTH_IT else "fp32"
    return precision, f"{precision}, because {kind.words} an int8 layer takes {share:.2f} of a float layer's time"


def kind_of(cpuinfo: str) -> str:
    """Tell the kind of processor from the text of /proc/cpuinfo."""
    flags = _flags(cpuinfo.splitlines())
    if "asimd" in flags:
        return ARM
    return "vnni" if flags & VNNI_FLAGS else "avx2"


def _flags(lines: Iterable[str]) -> set[str]:
    named = (line.partition(":") for line in lines)
    return next((set(words.split()) for name, _, words in named if name.strip() in ("flags", "Features")), set())
