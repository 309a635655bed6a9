"""Damaged TIFF files through the real worker: an answer for each, no hang, memory within bounds."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.config import ChecksSection, HeatmapsSection, ScoringSection
from agent.errors import Reason, Retry
from agent.records import FileIdentity, Strip
from agent.supervision import WorkerHandle
from agent.wire import Failed, Job, Judged, Setup
from tests.faults.mutations import Seed, mutate, take_apart
from tests.faults.reliability import Row, tell
from tests.faults.tiff_writers import EQUAL, all_cases
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.soak import SHARE, share_of
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from typing import Self

HEIGHT, WIDTH = 48, 32
DEADLINE_SECONDS = 20.0
KEPT = Path(__file__).parent / "damaged"
"""Files that once killed a worker, hung it or made it grow."""

_OF_PIXELS = {Reason.NON_FINITE, Reason.UNIT_RANGE_SUSPECTED, Reason.LOW_CONTRAST, Reason.TARGET_EQUALS_REFERENCE,
              Reason.OUT_OF_RANGE, Reason.OUTPUT_OUT_OF_RANGE}  # fmt: skip
_OF_EITHER = {Reason.DAMAGED_TIFF, Reason.INCOMPLETE, Reason.DECOMPRESSION_BOMB}  # of the tags, or of what is decoded
_OF_DECODERS = re.compile(r"rows of the|_decode|LZW|zlib|deflate|lzma|zstd|packbits|more data than", re.IGNORECASE)


class Worker:
    """A worker that is replaced when it dies, and what it said to each file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: Counter[str] = Counter()
        self.decoded = 0
        self.killers: list[tuple[bytes, str]] = []
        self.peak_mib = 0.0
        self.slowest_seconds = 0.0
        (folder / "lock").touch()
        self._sha256 = difference_model(folder / "model.onnx", height=HEIGHT, width=WIDTH)
        self._handle = self._start()
        self._number = 0

    def _start(self) -> WorkerHandle:
        setup = Setup(
            str(self.folder / "model.onnx"), self._sha256, str(self.folder / "lock"), str(self.folder), "worker", 1,
            4096, "unit", ChecksSection().model_dump(), ScoringSection().model_dump(),
            HeatmapsSection(png="none", tiff="none").model_dump(), 5.0, {},
        )  # fmt: skip
        handle = WorkerHandle(setup)
        try:
            wait_for(lambda: handle.poll_loaded(0.1, 60), "the worker loads its model")
        except BaseException:
            handle.close()
            raise
        return handle

    def judge(self, data: bytes) -> str:
        """Give it a file; return the verdict, the reason, or `died`."""
        self._number += 1
        path = self.folder / f"{self._number % 32}.tif"
        path.write_bytes(data)
        found = path.stat()
        strip = Strip(
            self._number, f"{self._number}", "top", path.name, FileIdentity.of(found), attempts=0, revision=1, seen_ms=0
        )
        job = Job(strip, str(self.folder), 0.5)
        began = time.monotonic()
        self._handle.send(job)
        try:
            answer = None
            while answer is None:
                answer = self._handle.poll(1.0, DEADLINE_SECONDS)
        except Retry as lost:
            self.killers.append((data, str(lost)))
            self._handle.close()
            self._handle = self._start()
            answer = None
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        said = self._said(answer)
        self.answers[said] += 1
        return said

    def _said(self, answer: Judged | Failed | None) -> str:
        if isinstance(answer, Judged):
            self.decoded += 1
            return "judged"
        if answer is None:
            self.decoded += 1
            return "died"
        of_decoder = answer.reason in _OF_EITHER and _OF_DECODERS.search(answer.detail) is not None
        self.decoded += answer.reason in _OF_PIXELS or of_decoder
        return str(answer.reason)

    def measure(self) -> float:
        """Return the worker's memory (MiB) and remember the most."""
        mib = float(psutil.Process(self._handle.pid).memory_info().rss) / 2**20
        self.peak_mib = max(self.peak_mib, mib)
        return mib

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def _seeds(folder: Path, number: int, rng: random.Random) -> list[Seed]:
    """Write good files with every program that is installed, many compressions and layouts."""
    cases = [case for case in all_cases() if case.promises == {EQUAL} and case.full_scale is None]
    rng.shuffle(cases)
    pixels = make_pixels(height=HEIGHT, width=WIDTH, defect=True).round()
    seeds = []
    for case in cases[:number]:
        path = case.write(pixels.astype(case.dtype), folder)
        if path is not None:
            seeds.append(take_apart(f"{case.writer} {case.dtype} {case.options}", path.read_bytes()))
    return seeds


def _mutate(folder: Path, mutations: int, seeds: int, seed: int) -> tuple[Worker, str]:
    rng = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    written = folder / "seeds"
    written.mkdir()
    chosen = _seeds(written, seeds, rng)
    with Worker(folder) as worker:
        for good in chosen:
            assert worker.judge(good.data) == "judged", good.name
        worker.decoded = 0
        worker.answers.clear()
        at_first = worker.measure()
        for number in range(mutations):
            worker.judge(mutate(rng.choice(chosen), rng))
            if number % 250 == 0:
                worker.measure()
        assert worker.judge(chosen[0].data) == "judged", "the worker is not what it was"
        worker.answers["judged"] -= 1
        worker.decoded -= 1
    for number, (data, how) in enumerate(worker.killers):
        (folder / f"killer{number}.tif").write_bytes(data)
        print(f"killer{number}.tif: {how}")  # noqa: T201 - pytest shows it with a failure
    assert worker.answers.total() == mutations
    assert worker.decoded >= 0.3 * mutations, f"only {worker.decoded} of {mutations} reached the pixels"
    assert worker.peak_mib < at_first + 200, "memory is not bounded"
    assert set(worker.answers) <= {"judged", "died", *map(str, Reason)}
    figures = (
        f"{mutations} files out of {len(chosen)} good ones: {worker.decoded} reached the decoders, "
        f"{worker.answers['judged']} judged, {mutations - worker.answers['judged'] - len(worker.killers)} refused, "
        f"{len(worker.killers)} killed the worker; slowest {worker.slowest_seconds:.2f} s, "
        f"worker {at_first:.0f} MiB at first, {worker.peak_mib:.0f} MiB at most"
    )
    return worker, figures


ROW = {
    "group": "TIFF",
    "fault": "damaged files",
    "promise": "each gets a score or a reason; no hang, bounded memory, and what kills a worker costs one worker",
    "how": "tags, offsets, counts, compressed bytes and ends changed at random; files of all writers above; one worker",
}


def test_damaged_files_are_judged_or_refused(tmp_path: Path) -> None:
    """A few hundred random damages: nothing kills the worker."""
    worker, figures = _mutate(tmp_path, 1500, 25, seed=7)
    assert not worker.killers, f"see {tmp_path}"
    tell(Row(**ROW, figures=figures))  # type: ignore[arg-type]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_fifty_thousand_damaged_files_are_judged_or_refused(tmp_path: Path) -> None:
    """The same, more often, with a new seed each day. A dead worker is contained, and yet a defect: see its file."""
    worker, figures = _mutate(tmp_path, share_of(50_000), 200, seed=int(time.time()) // 86400)
    assert not worker.killers, f"see {tmp_path}: {[how for _, how in worker.killers]}"
    tell(Row(**ROW, figures=figures, run="soak", share=SHARE))  # type: ignore[arg-type]


def test_files_that_once_did_harm_do_none(tmp_path: Path) -> None:
    """Each file in damaged/ is refused by a worker that lives on."""
    with Worker(tmp_path) as worker:
        files = sorted(KEPT.glob("*.tif"))
        assert files
        for path in files:
            said = worker.judge(path.read_bytes())
            assert said not in {"died", "judged"}, f"{path.name}: {said}"
