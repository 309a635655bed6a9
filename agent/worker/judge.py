"""One strip, from its file to the answer: read, check, prepare, run, score, write the heatmaps."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent.contract.exposure import WHITE
from agent.errors import Blame, Reason, Reject, Retry
from agent.heatmap_names import heatmap_stem
from agent.records import FileIdentity, Judgement
from agent.regular_files import read_regular_file
from agent.wire import Failed, Job, Judged, Setup
from agent.worker.checks import check_output, check_strip, to_model_input
from agent.worker.heatmaps import HeatmapWriter, encode_heatmaps
from agent.worker.ignored import Ignored, read_all
from agent.worker.light import check_light
from agent.worker.measuring import measure
from agent.worker.model import run
from agent.worker.scoring import score_heatmap
from agent.worker.tiff import read_strip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import ChecksSection, HeatmapsSection, ScoringSection
    from agent.worker.model import Model

T = TypeVar("T")
_BESIDE = ThreadPoolExecutor(1, "beside")  # its thread is started when it is first needed


@dataclass(frozen=True, slots=True)
class Fetched:
    """A strip to judge: the bytes of its file and their sha256, or why there are none."""

    job: Job
    data: bytes = b""
    digest: str = ""
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """A model and the settings to judge with."""

    model: Model
    writer: HeatmapWriter
    checks: ChecksSection
    scoring: ScoringSection
    heatmaps: HeatmapsSection
    ignored: Mapping[str, Ignored | str]  # by camera; a text says why its files cannot be used
    measures: bool = False  # how strips look, for drift

    @classmethod
    def of(cls, model: Model, setup: Setup) -> Judge:
        """Make one from what the supervisor sent."""
        checks, scoring, heatmaps = setup.sections
        writer = HeatmapWriter(Path(setup.heatmap_folder), heatmaps.min_free_gib, setup.heatmap_seconds)
        ignored = read_all(setup.ignore_files, model.facts.height, model.facts.width)
        return cls(model, writer, checks, scoring, heatmaps, ignored, setup.measures)

    def fetch(self, job: Job, progress: Callable[[], None] = lambda: None) -> Fetched:
        """Read the strip's file; what is wrong with it comes out of `answer`. It calls `progress` as the bytes come."""
        try:
            data = self._read(job, progress)
        except (Reject, Retry, MemoryError) as error:
            return Fetched(job, error=error)
        return Fetched(job, data, hashlib.sha256(data).hexdigest())

    def answer(self, fetched: Fetched, writes: Callable[[], None] = lambda: None) -> Judged | Failed:
        """Judge one strip; every error that is known becomes an answer, the others end the worker.

        It calls `writes` when all but the writing of the heatmaps is done.
        """
        job, digest = fetched.job, fetched.digest
        try:
            if fetched.error is not None:
                raise fetched.error
            return Judged(job.strip_id, self._judge(job, fetched.data, digest, writes))
        except Reject as refusal:
            return Failed(job.strip_id, refusal.reason, refusal.detail, "", refusal.model_fault, digest)
        except Retry as later:
            return Failed(job.strip_id, later.reason, later.detail, later.blame.value, model_fault=False, digest=digest)
        except MemoryError as error:
            return Failed(job.strip_id, Reason.NO_MEMORY, str(error), Blame.BOX.value, model_fault=False, digest=digest)

    def _read(self, job: Job, progress: Callable[[], None]) -> bytes:
        max_bytes = self.checks.max_file_mib << 20
        data, before, after = read_regular_file(job.folder, job.strip.path, max_bytes=max_bytes, progress=progress)
        judged = job.strip.identity
        for stat in (before, after):
            if not FileIdentity.of(stat).same_content_expected(judged):
                was, found = (f"{size} bytes, mtime {mtime_ns} ns" for size, mtime_ns in
                              ((judged.size_bytes, judged.mtime_ns), (stat.st_size, stat.st_mtime_ns)))  # fmt: skip
                raise Reject(Reason.FILE_REPLACED, f"was {was}; is {found}")
        return data

    def _judge(self, job: Job, data: bytes, digest: str, writes: Callable[[], None]) -> Judgement:
        facts, strip = self.model.facts, job.strip
        ignored = self.ignored.get(strip.camera)
        if isinstance(ignored, str):
            raise Reject(Reason.IGNORED_PIXELS_MISFIT, ignored)
        pixels = read_strip(data, height=facts.height, width=facts.width)
        check_strip(pixels, self.checks, facts.exposure)
        model_input, rescaled = to_model_input(pixels, self.checks, "gray8" if facts.input_scale == "gray8" else "unit")
        white = WHITE if facts.input_scale == "gray8" else 1.0
        if facts.exposure is not None:
            check_light(model_input[0], white, facts.exposure)
        output, inference_ms = run(self.model, model_input)
        heatmap = check_output(output, facts.height, facts.width)
        if ignored is not None:
            heatmap = ignored.blank(heatmap)
        scored = score_heatmap(heatmap, self.scoring)
        anomalous = scored.score >= job.threshold
        looks = partial(measure, model_input[0], white, float(heatmap.max()))
        measured = begin_beside(looks) if self._compares(rescaled) else lambda: None
        stem = heatmap_stem(strip.camera, strip.identity.mtime_ns, strip.path, strip.strip_id, strip.revision)
        contents = encode_heatmaps(
            heatmap,
            pixels,
            scored,
            threshold=job.threshold,
            anomalous=anomalous,
            settings=self.heatmaps,
            name=stem.rpartition("/")[2],
            ignored=None if ignored is None else ignored.mask,
        )
        writes()
        written = self.writer.begin(stem, contents)
        return Judgement(
            score=scored.score,
            threshold=job.threshold,
            anomalous=anomalous,
            anomaly_area_px=scored.anomaly_area_px,
            defect_count=scored.defect_count,
            peak_row=scored.peak_row,
            peak_col=scored.peak_col,
            rescaled=rescaled,
            inference_ms=inference_ms,
            digest=digest,
            heatmaps=written(),
            ignore_pixels_sha256="" if ignored is None else ignored.ignore_pixels_sha256,
            ignore_mask_sha256="" if ignored is None else ignored.ignore_mask_sha256,
            measures=measured(),
        )

    def _compares(self, rescaled: bool) -> bool:
        """Whether how the strip looks can be compared: stretched ones with stretched ones only."""
        reference = self.model.facts.reference
        return self.measures and rescaled == (reference is not None and reference.stretched)


def begin_beside(work: Callable[[], T]) -> Callable[[], T]:
    """Begin `work` in a thread beside this one, and return what waits for it and says, or raises, what it does.

    OpenCV and the compression of the picture let the other thread go on, so a second core takes half of what is left to
    do once the model has run.
    """
    try:
        return _BESIDE.submit(work).result
    except RuntimeError:  # no threads left, or no memory for one
        done = work()
        return lambda: done
