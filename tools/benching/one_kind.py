"""Measure files in a process of its own, which may see less of its processor than there is (hiding.py).

As a program it takes `Asked` as JSON on standard input and gives `Told` as JSON on standard output.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.benching.hiding import Seen, environment, look
from tools.benching.machine import LIMIT_ROUNDS, Limit, measure_limit
from tools.exporter.errors import ExportError
from tools.exporter.measure import Measured, measure
from tools.exporter.strips import feed, made_up_strips

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Asked:
    """Files by their names, the first the base of the ratios, for strips of (height, width); how to measure them.

    Without files a child only looks which kernels it has.
    """

    models: dict[str, str]
    size: tuple[int, int]
    rounds: int
    threads: int
    memory: bool
    library: str | None  # what hides; it was preloaded
    limit_rounds: int = LIMIT_ROUNDS
    providers: dict[str, str] = field(default_factory=dict)  # by the file's name, where it is not the cpu that computes
    most_seconds: float = math.inf  # after these no further round begins, but for the fewest that tell something


@dataclass(frozen=True, slots=True)
class Told:
    """What was measured, beside the processor's limit in the same process, and which kernels it had."""

    measured: list[Measured]
    limit: Limit
    seen: Seen


def run(asked: Asked) -> Told:
    """Measure in a child."""
    environ = environment(Path(asked.library)) if asked.library else dict(os.environ)
    child = subprocess.run(
        [sys.executable, "-m", "tools.benching.one_kind"],
        cwd=ROOT, input=json.dumps(asdict(asked)), stdout=subprocess.PIPE, text=True, env=environ, check=False,
    )  # fmt: skip
    if child.returncode:
        raise ExportError(f"The process that measures has ended with {child.returncode}: what it said is above.")
    told = json.loads(child.stdout)
    if problem := told.get("problem"):
        raise ExportError(problem)
    measured = [
        Measured(**{**one, "ratios": tuple(one["ratios"]), "cpu_ratios": tuple(one["cpu_ratios"])})
        for one in told["measured"]
    ]
    seen = Seen(**{**told["seen"], "features": tuple(told["seen"]["features"])})
    return Told(measured, Limit(**told["limit"]), seen)


def tell(asked: Asked) -> Told:
    """Measure here."""
    before = measure_limit(asked.threads, rounds=asked.limit_rounds)
    fed = feed(made_up_strips(asked.size)[1], "unit")
    paths = {name: Path(path) for name, path in asked.models.items()}
    measured = []
    if paths:
        measured = measure(
            paths,
            fed,
            rounds=asked.rounds,
            threads=asked.threads,
            memory=asked.memory,
            providers=asked.providers,
            most_seconds=asked.most_seconds,
        )
    after = measure_limit(
        asked.threads, rounds=asked.limit_rounds
    )  # what else the machine does can only make it look slower
    limit = Limit(max(before.float32, after.float32), max(before.int8, after.int8))
    return Told(measured, limit, look(Path(asked.library) if asked.library else None))


def main() -> None:
    """Do what standard input asks for."""
    asked = json.load(sys.stdin)
    try:
        told = asdict(tell(Asked(**{**asked, "size": tuple(asked["size"])})))
    except ExportError as error:
        told = {"problem": str(error)}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
