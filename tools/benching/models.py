"""The tables of models: files against the plain export and the processor's limit, on one kind of processor or more."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.benching.hiding import ALL, KINDS, check, compile_hiding
from tools.benching.machine import describe
from tools.benching.one_kind import Asked, Told, run
from tools.benching.page import Part
from tools.benching.spreads import Spread
from tools.exporter.errors import ExportError
from tools.exporter.progress import say
from tools.exporter.session import cores
from tools.exporter.variants import FP32, INT8, PLAIN
from tools.exporter.work import Work, count_work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools.exporter.measure import Measured
    from tools.exporter.variants import Variants

SIDE_BY_SIDE_ROUNDS = 3  # on the further kinds: the plain export takes some seconds there
LIMIT = (
    "The limit is what the fastest products of two matrices on this processor need for the multiplications of that "
    "file's convolutions, those in float and those in int8 each at their own; the exact files crop what the stitch "
    "throws away, and so have less of them. More than 100% says that other machines on the same host slowed this one "
    "down while the limit was measured."
)


def models_parts(folder: Path, variants: Variants, *, rounds: int, threads: int, kinds: Sequence[str]) -> list[Part]:
    """Measure every file on the first of `kinds`, and where there are more, the main ones on each side by side."""
    threads = threads or cores()
    work = {name: count_work(path.read_bytes(), variants.size) for name, path in variants.paths.items()}
    main = [name for name in (PLAIN, FP32, INT8) if name in variants.paths]
    first, *others = kinds
    machine, without_hidden = describe(), describe(KINDS[first].hidden if first in KINDS else ())
    fewer = min(rounds, SIDE_BY_SIDE_ROUNDS)
    told = {
        first: measure_kind(folder, first, variants, list(variants.paths), rounds=rounds, threads=threads, memory=True)
    }
    for kind in others:
        told[kind] = measure_kind(folder, kind, variants, main, rounds=fewer, threads=threads, memory=False)
    parts = [
        Part(
            f"Models: {variants.name}, {threads} threads",
            without_hidden,
            [
                "file", "10^9 multiplications", "ms a strip", "at the limit, ms", "of the limit", "ratio",
                "ratio of processor time", "MiB", "ratio", "MB",
            ],
            models_rows(told[first], work),
            f"{variants.weights} Ratios are against the plain export (torch's own, one copy of the network for each "
            f"patch): medians of {rounds} rounds in turn, and from the lowest to the highest round. {LIMIT}",
        )
    ]  # fmt: skip
    if others:
        parts.append(
            Part(
                f"Kinds of processors: {variants.name}, {threads} threads",
                machine,
                ["", *(words_of(kind) for kind in kinds)],
                kinds_rows(told, work, main),
                f"{variants.weights} One machine: what a kind has not got was hidden from the process that measured "
                "(CPUID), so onnxruntime took the kernels of that kind, which was looked at in the process; clock, "
                f"caches and memory are this machine's. Medians of {rounds} rounds on the first and of {fewer} on the "
                "others, and from the lowest to the highest. INT8 can gain at most what the limit of int8 is above "
                f"that of float32. {LIMIT}",
            )
        )
    return parts


def measure_kind(
    folder: Path, kind: str, variants: Variants, names: Sequence[str], *, rounds: int, threads: int, memory: bool
) -> Told:
    """Measure some of the files as on that kind of processor; ExportError where this machine cannot be one."""
    library = None if kind == ALL else compile_hiding(kind, folder)
    paths = {name: str(variants.paths[name].resolve()) for name in names}
    told = run(Asked(paths, variants.size, rounds, threads, memory, str(library.resolve()) if library else None))
    if library:
        check(kind, told.seen)
    return told


def check_kind(kind: str) -> None:
    """ExportError where this machine cannot be measured as that kind; a child tries it, which measures nothing."""
    if kind == ALL:
        return
    with tempfile.TemporaryDirectory() as folder:
        library = compile_hiding(kind, Path(folder))
        check(kind, run(Asked({}, (64, 64), 0, 1, memory=False, library=str(library), limit_rounds=1)).seen)


def kinds_here(kinds: Sequence[str]) -> list[str]:
    """Give those of the kinds that this machine can be measured as, and say why not of the others."""
    possible = []
    for kind in kinds:
        try:
            check_kind(kind)
        except ExportError as error:
            say(str(error))
        else:
            possible.append(kind)
    return possible


def models_rows(told: Told, work: Mapping[str, Work]) -> list[list[str]]:
    """One row for each file."""
    base = told.measured[0]
    return [
        [
            one.name,
            f"{all_of(work[one.name]):.1f}",
            f"{one.seconds * 1e3:.0f}",
            *of_the_limit(one, told, work),
            "1" if one is base else Spread.of(one.ratios).tell(3),
            "1" if one is base else Spread.of(one.cpu_ratios).tell(3),
            f"{one.peak_mib:.0f}",
            f"{one.peak_mib / base.peak_mib:.2f}",
            f"{one.file_mb:.1f}",
        ]
        for one in told.measured
    ]


def kinds_rows(told: Mapping[str, Told], work: Mapping[str, Work], names: Sequence[str]) -> list[list[str]]:
    """One column for each kind: its limits, then each file's time, ratio and share of the limit."""
    kinds = list(told.values())
    rows = [
        ["limit, float32: 10^9 multiplications a second", *(f"{one.limit.float32:.0f}" for one in kinds)],
        ["limit, int8", *(f"{one.limit.int8:.0f}" for one in kinds)],
        ["- to that of float32", *(f"{one.limit.int8 / one.limit.float32:.2f}" for one in kinds)],
    ]
    for name in names:
        found = [next(measured for measured in one.measured if measured.name == name) for one in kinds]
        shares = [of_the_limit(measured, one, work) for measured, one in zip(found, kinds, strict=True)]
        title = f"{name} ({all_of(work[name]):.1f} * 10^9 multiplications), ms a strip"
        rows.append([title, *(f"{one.seconds * 1e3:.0f}" for one in found)])
        if name != names[0]:
            rows.append(["- ratio of processor time", *(Spread.of(one.cpu_ratios).tell(3) for one in found)])
        rows.append(["- at the limit, ms", *(least for least, _ in shares)])
        rows.append(["- of the limit", *(share for _, share in shares)])
    return rows


def of_the_limit(one: Measured, told: Told, work: Mapping[str, Work]) -> tuple[str, str]:
    """Give the milliseconds that the file's multiplications need at least, and how near it comes to them."""
    least = told.limit.seconds(work[one.name])
    return f"{least * 1e3:.0f}", f"{least / one.seconds:.0%}"


def all_of(work: Work) -> float:
    """Count a file's multiplications of both kinds, in thousand millions."""
    return work.float_multiplications + work.int8_multiplications


def words_of(kind: str) -> str:
    """Name a kind of processor in a table."""
    return KINDS[kind].words if kind in KINDS else "as it is"
