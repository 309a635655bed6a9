"""The tables of models: files against the plain export and the processor's limit, on one kind of processor or more."""

from __future__ import annotations

import math
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from agent.worker.providers import OF_ONNXRUNTIME, OPENVINO
from tools.benching.hiding import ALL, KINDS, check, compile_hiding
from tools.benching.machine import describe
from tools.benching.one_kind import Asked, Told, run
from tools.benching.page import Part
from tools.benching.spreads import Spread
from tools.exporter.errors import ExportError
from tools.exporter.progress import progress, say
from tools.exporter.session import cores
from tools.exporter.variants import CALLS, FP32, INT8, PLAIN
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


def models_parts(
    folder: Path,
    variants: Variants,
    *,
    rounds: int,
    threads: int,
    kinds: Sequence[str],
    most_seconds: float = math.inf,
) -> list[Part]:
    """Measure every file on the first of `kinds`, and where there are more, the main ones on each side by side.

    Where the rounds of one kind take longer than `most_seconds`, they are fewer.
    """
    threads = threads or cores()
    work = {name: work_of(name, variants) for name in variants.paths}
    work |= {name: work[file] for name, (file, _) in on_other_providers(variants).items()}
    main = [name for name in (PLAIN, FP32, INT8) if name in variants.paths]
    first, *others = kinds
    machine, without_hidden = describe(), describe(KINDS[first].hidden if first in KINDS else ())
    fewer = min(rounds, SIDE_BY_SIDE_ROUNDS)
    names = [*variants.paths, *on_other_providers(variants)]
    measured = partial(measure_kind, folder, variants=variants, threads=threads, most_seconds=most_seconds)
    told = {first: measured(kind=first, names=names, rounds=rounds, memory=True)}
    for kind in others:
        told[kind] = measured(kind=kind, names=main, rounds=fewer, memory=False)
    rounds = len(told[first].measured[0].ratios)
    parts = [
        Part(
            f"Models: {variants.name}, {threads} threads",
            without_hidden,
            [
                "file", "10^9 multiplications", "ms a strip", "at the limit, ms", "of the limit", "ratio",
                "ratio of processor time", "ms to open", "MiB", "ratio", "MB",
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
    folder: Path,
    kind: str,
    variants: Variants,
    names: Sequence[str],
    *,
    rounds: int,
    threads: int,
    memory: bool,
    most_seconds: float = math.inf,
) -> Told:
    """Measure some of the files as on that kind of processor; ExportError where this machine cannot be one."""
    library = None if kind == ALL else compile_hiding(kind, folder)
    others = on_other_providers(variants)
    paths = {name: str(variants.paths[others[name][0] if name in others else name].resolve()) for name in names}
    providers = {name: others[name][1] for name in names if name in others}
    preloaded = str(library.resolve()) if library else None
    asked = Asked(
        paths, variants.size, rounds, threads, memory, preloaded, providers=providers, most_seconds=most_seconds
    )
    told = run(asked)
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


def others_part(folder: Path, others: Sequence[tuple[Variants, int]]) -> Part:
    """Measure the main files of other networks, each with so many threads, in one table."""
    rows = []
    for variants, threads in progress(others, "widths and threads"):
        names = [PLAIN, CALLS, FP32, INT8]
        told = measure_kind(folder, ALL, variants, names, rounds=SIDE_BY_SIDE_ROUNDS, threads=threads, memory=False)
        plain, *rest = told.measured
        _, share = of_the_limit(told.measured[-1], told, {INT8: work_of(INT8, variants)})
        ratios = [Spread.of(one.cpu_ratios).tell(3) for one in rest]
        rows.append([variants.name, str(threads), f"{plain.seconds * 1e3:.0f}", *ratios, share])
    return Part(
        "Models: other widths, other threads",
        describe(),
        ["", "threads", "plain export, ms a strip", CALLS, FP32, INT8, "int8: of the limit"],
        rows,
        "Random weights. Ratios of processor time to the plain export, medians of "
        f"{SIDE_BY_SIDE_ROUNDS} rounds in turn, and from the lowest to the highest.",
    )


def on_other_providers(variants: Variants) -> dict[str, tuple[str, str]]:
    """Give what else can be measured here, by its name: which file, on which provider."""
    offered = onnxruntime.get_available_providers()
    here = [name for name, (needed, *_) in OF_ONNXRUNTIME.items() if needed in offered]
    here += [OPENVINO] if find_spec(OPENVINO) else []
    files = [name for name in (FP32, INT8) if name in variants.paths]
    return {f"{name}, on {provider}": (name, provider) for provider in here for name in files}


def work_of(name: str, variants: Variants) -> Work:
    """Count what a file of `variants` has to compute for a strip."""
    content, layout = variants.paths[name].read_bytes(), variants.layout
    if name == CALLS:
        return count_work(content, (layout.patch_height, layout.patch_width)).times(len(layout.windows))
    return count_work(content, variants.size)


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
            f"{one.load_seconds * 1e3:.0f}",
            *(
                ("-", "-")
                if math.isnan(one.peak_mib)
                else (f"{one.peak_mib:.0f}", f"{one.peak_mib / base.peak_mib:.2f}")
            ),
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
