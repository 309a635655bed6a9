"""The same strip written by other people's programs gives the same score, or is refused as docs/tiff.md says."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.config import ChecksSection
from agent.errors import Reject, Retry
from agent.worker.checks import check_strip, to_model_input
from agent.worker.tiff import read_strip
from tests.faults.reliability import Row, tell
from tests.faults.tiff_writers import EQUAL, PROGRAMS, Case, all_cases, table
from tests.helpers.repository import ROOT
from tests.helpers.soak import SHARE, share_of
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.strips import Pixels

DOCS = ROOT / "docs" / "tiff.md"
HEIGHT, WIDTH = 96, 64
BASE: Pixels = make_pixels(height=HEIGHT, width=WIDTH, defect=True).round()
CANNOT = "the program cannot write it"


def _outcome(case: Case, folder: Path) -> str:
    """Write the strip and read it; `equal` when the model gets the same numbers."""
    folder.mkdir()
    pixels = BASE.astype("uint8" if case.writer == "ImageMagick" else case.dtype)
    path = case.write(pixels, folder)
    if path is None:
        return CANNOT
    checks = ChecksSection(full_scale=case.full_scale)
    try:
        found = read_strip(path.read_bytes(), height=HEIGHT, width=WIDTH)
        check_strip(found, checks)
    except (Reject, Retry) as refusal:
        return str(refusal.reason)
    fed, rescaled = to_model_input(found, checks, "gray8")
    wanted, _ = to_model_input(BASE, ChecksSection(), "gray8")
    # ImageMagick's 0..1 has rounded once; everything else is exact.
    same = np.allclose(fed, wanted, atol=1e-3) if case.full_scale == 1.0 else np.array_equal(fed, wanted)
    return EQUAL if same and not rescaled else "other numbers"


def _try_all(cases: list[Case], folder: Path) -> Counter[str]:
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda pair: _outcome(pair[1], folder / str(pair[0])), enumerate(cases)))
    wrong = [
        f"{case.writer} {case.dtype} {case.options}: {outcome}, promised {'/'.join(case.promises)}"
        for case, outcome in zip(cases, outcomes, strict=True)
        if outcome not in {*case.promises, CANNOT}
    ]
    assert not wrong, "\n".join(wrong)
    return Counter(outcomes)


def _one_of_each() -> list[Case]:
    cases = list(all_cases())
    random.Random(5).shuffle(cases)  # noqa: S311 - to be repeated, not to be secret
    chosen = {(case.writer, case.dtype): case for case in cases} | {
        (case.writer, case.compression): case for case in cases
    }
    return list(chosen.values())


def _tell(outcomes: Counter[str], run: str) -> None:
    refused = sum(number for outcome, number in outcomes.items() if outcome not in {EQUAL, CANNOT})
    writers = ", ".join(name for name, (program, _) in PROGRAMS.items() if program)
    tell(
        Row(
            "TIFF",
            "strips written by other software",
            "the very same numbers reach the model, or the reason that docs/tiff.md names",
            f"{writers}: compressions, predictors, strips and tiles, planes and interleaved, both byte orders, "
            "BigTIFF, 8 to 64 bits",
            f"{outcomes.total() - outcomes[CANNOT]} files: {outcomes[EQUAL]} equal, {refused} refused as documented",
            run,  # type: ignore[arg-type]
            share=SHARE if run == "soak" else 1.0,
        )
    )


def test_a_strip_rewritten_by_other_software_scores_the_same_or_is_refused_as_documented(tmp_path: Path) -> None:
    """One file of each writer that is installed with each dtype and with each compression."""
    outcomes = _try_all(_one_of_each(), tmp_path)
    installed = sum(program is not None for program, _ in PROGRAMS.values())
    assert outcomes[EQUAL] >= 2 * installed
    _tell(outcomes, "test")


@pytest.mark.soak
def test_a_strip_rewritten_in_every_way_scores_the_same_or_is_refused_as_documented(tmp_path: Path) -> None:
    """Every combination of layout, byte order, predictor, size of offsets, dtype and compression."""
    outcomes = _try_all(list(all_cases())[:: round(1 / share_of(100) * 100)], tmp_path)
    _tell(outcomes, "soak")


@pytest.mark.parametrize("writer", [name for name, (_, package) in PROGRAMS.items() if package])
def test_the_writer_is_installed(writer: str) -> None:
    """Say which package is missing, so that nobody takes a shorter table for the whole one."""
    program, package = PROGRAMS[writer]
    if program is None:
        pytest.skip(f"{writer} is not installed (apt-get install {package}): its files are not tried")


def test_the_documentation_lists_what_is_tried() -> None:
    """docs/tiff.md holds the table of `python -m tests.faults.tiff_writers`."""
    assert table() in DOCS.read_text(encoding="utf-8")
