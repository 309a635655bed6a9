"""Judge files, or try a model, once and without a service: the same worker, the same answers, no ledger, no broker."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config import Camera, Config
from agent.contract.threshold import choose_threshold
from agent.errors import AgentError, Reason, Reject, Retry
from agent.models.message import trial_summary
from agent.records import FileIdentity, Strip, make_strip_id
from agent.supervision import WorkerHandle
from agent.wire import Job, Judged, Setup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.wire import Loaded

POLL_SECONDS = 1.0
LOST = (Reason.WORKER_CRASHED, Reason.WORKER_TIMEOUT)


def verify_model(file: Path, config: Config | None) -> dict[str, Any]:
    """Try a model file as the service would, without its manifest; a refusal is an answer, not an error."""
    facts: dict[str, Any] = {"file": str(file), "sha256": _digest(file)}
    with tempfile.TemporaryDirectory(prefix="strip-agent-") as scratch:
        config = config or _default_config(Path(scratch))
        try:
            worker, loaded = _start(file, facts["sha256"], config, Path(scratch), "none")
        except (Reject, Retry) as refusal:
            return facts | {"good": False, "reason": str(refusal.reason), "detail": refusal.detail}
        worker.close()
    return facts | {
        "good": True,
        "reason": "",
        "detail": trial_summary(loaded),
        "labelled": loaded.labelled,
        "model_id": loaded.model_id,
        "version": loaded.version,
        "golden": loaded.golden,
        "golden_difference": loaded.golden_difference,
        "run_ms": loaded.run_ms,
        "load_ms": loaded.load_ms,
    }


def score_files(
    files: Sequence[Path], model: Path, heatmaps: Path | None, config: Config | None
) -> Iterator[dict[str, Any]]:
    """Judge files in turn; what cannot be judged is `invalid` with its reason. Raises Reject for a refused model."""
    with tempfile.TemporaryDirectory(prefix="strip-agent-") as scratch:
        config = config or _default_config(Path(scratch))
        save = "none" if heatmaps is None else "all"
        start = partial(_start, model, _digest(model), config, heatmaps or Path(scratch), save)
        worker, loaded = start()
        try:
            for number, file in enumerate(files, start=1):
                facts = _score(worker, loaded, file, config)
                yield facts
                if facts["reason"] in LOST and number < len(files):
                    worker.close(0.0)
                    worker, loaded = start()
        finally:
            worker.close()


def _score(worker: WorkerHandle, model: Loaded, file: Path, config: Config) -> dict[str, Any]:
    facts: dict[str, Any] = {"file": str(file), "verdict": "invalid", "score": -1.0}
    try:
        identity = FileIdentity.of(os.lstat(file))
        strip_id = make_strip_id("score", str(file), identity, 0)
        worker.send(
            Job(
                Strip(0, strip_id, "score", file.name, identity, attempts=0, revision=1, seen_ms=0),
                str(file.absolute().parent),
                choose_threshold(camera=None, scoring=config.scoring.threshold, model=model.threshold),
            )
        )
        answer = None
        while answer is None:
            answer = worker.poll(POLL_SECONDS, config.inference.deadline_seconds)
    except OSError as error:
        return facts | {"reason": str(Reason.UNREADABLE), "detail": str(error)}
    except Retry as lost:
        return facts | {"reason": str(lost.reason), "detail": lost.detail}
    if not isinstance(answer, Judged):
        return facts | {"reason": answer.reason, "detail": answer.detail}
    judgement = answer.judgement
    return facts | {
        "verdict": "anomalous" if judgement.anomalous else "ok",
        "score": judgement.score,
        "threshold": judgement.threshold,
        "anomaly_area_px": judgement.anomaly_area_px,
        "defect_count": judgement.defect_count,
        "peak_row": judgement.peak_row,
        "peak_col": judgement.peak_col,
        "rescaled": judgement.rescaled,
        "inference_ms": judgement.inference_ms,
        "heatmap_path": judgement.heatmaps.tiff_path,
        "preview_path": judgement.heatmaps.png_path,
        "reason": "",
        "detail": "",
    }


def _start(model: Path, sha256: str, config: Config, folder: Path, save: str) -> tuple[WorkerHandle, Loaded]:
    worker = WorkerHandle(
        replace(
            Setup.of(config, model.absolute(), sha256, "worker"),
            lock_file=str(model.absolute()),
            heatmap_folder=str(folder.absolute()),
            heatmaps=config.heatmaps.model_dump(mode="json") | {"png": save, "tiff": save, "min_free_gib": 0.0},
        )
    )
    try:
        while True:
            loaded = worker.poll_loaded(POLL_SECONDS, config.models.trial.seconds)
            if loaded is not None:
                return worker, loaded
    except AgentError:
        worker.close(0.0)
        raise


def _default_config(folder: Path) -> Config:
    return Config(cameras=[Camera(name="score", folder=folder)])


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
