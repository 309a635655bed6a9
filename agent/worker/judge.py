"""One strip, from its file to the answer: read, check, prepare, run, score, write the heatmaps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.contract.exposure import WHITE
from agent.errors import Blame, Reason, Reject, Retry
from agent.files import heatmap_stem, read_regular_file
from agent.records import FileIdentity, Judgement
from agent.wire import Failed, Job, Judged, Setup
from agent.worker.checks import check_output, check_strip, to_model_input
from agent.worker.heatmaps import write_heatmaps
from agent.worker.light import check_light
from agent.worker.scoring import score_heatmap
from agent.worker.session import run
from agent.worker.tiff import read_strip

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import ChecksSection, HeatmapsSection, ScoringSection
    from agent.worker.session import Model


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
    heatmap_folder: Path
    checks: ChecksSection
    scoring: ScoringSection
    heatmaps: HeatmapsSection

    @classmethod
    def of(cls, model: Model, setup: Setup) -> Judge:
        """Make one from what the supervisor sent."""
        return cls(model, Path(setup.heatmap_folder), *setup.sections)

    def fetch(self, job: Job, progress: Callable[[], None] = lambda: None) -> Fetched:
        """Read the strip's file; what is wrong with it comes out of `answer`. It calls `progress` as the bytes come."""
        try:
            data = self._read(job, progress)
        except (Reject, Retry, MemoryError) as error:
            return Fetched(job, error=error)
        return Fetched(job, data, hashlib.sha256(data).hexdigest())

    def answer(self, fetched: Fetched) -> Judged | Failed:
        """Judge one strip; every error that is known becomes an answer, the others end the worker."""
        job, digest = fetched.job, fetched.digest
        try:
            if fetched.error is not None:
                raise fetched.error
            return Judged(job.strip_id, self._judge(job, fetched.data, digest))
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

    def _judge(self, job: Job, data: bytes, digest: str) -> Judgement:
        facts, strip = self.model.facts, job.strip
        pixels = read_strip(data, height=facts.height, width=facts.width)
        check_strip(pixels, self.checks, facts.exposure)
        model_input, rescaled = to_model_input(pixels, self.checks, "gray8" if facts.input_scale == "gray8" else "unit")
        if facts.exposure is not None:
            check_light(model_input[0], WHITE if facts.input_scale == "gray8" else 1.0, facts.exposure)
        output, inference_ms = run(self.model, model_input)
        heatmap = check_output(output, facts.height, facts.width)
        scored = score_heatmap(heatmap, self.scoring)
        anomalous = scored.score >= job.threshold
        files = write_heatmaps(
            self.heatmap_folder,
            heatmap_stem(strip.camera, strip.identity.mtime_ns, strip.path, strip.strip_id, strip.revision),
            heatmap,
            pixels,
            scored,
            threshold=job.threshold,
            anomalous=anomalous,
            settings=self.heatmaps,
        )
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
            heatmaps=files,
        )
