"""Judge files, or try a model, once and without a service: the same worker, the same answers, no ledger, no broker."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.config import Camera, Config
from agent.contract.threshold import choose_threshold
from agent.errors import AgentError, Reason, Reject, Retry
from agent.models.dealt_with import DealtWith
from agent.models.message import trial_summary
from agent.models.store import Store
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
    facts: dict[str, Any] = {"file": str(file), "sha256": digest_of(file)}
    facts["before"] = known_before(config, facts["sha256"]) if config is not None else []
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
        "provider": loaded.provider,
        "provider_refused": loaded.provider_refused,
    }


def try_active(config: Config, sha256: str) -> Loaded:
    """Load an active model out of the store, as the service does at its start. Raises Reject or Retry."""
    model = Store(config.agent.state_folder / "store").model_path(sha256)
    with tempfile.TemporaryDirectory(prefix="strip-agent-") as scratch:
        worker, loaded = _start(model, sha256, config, Path(scratch), "none", role="worker")
        worker.close()
    return loaded


def load_active(config: Config, slot: str, sha256: str) -> str:
    """Do so for a slot; "" or why it cannot be."""
    try:
        try_active(config, sha256)
    except (Reject, Retry) as refusal:
        return f"slot {slot}: {refusal.reason}: {refusal.detail}"
    return ""


def known_before(config: Config, sha256: str) -> list[dict[str, Any]]:
    """Give what this box has said of a model, for each slot that knows it; `kind` is a Fate, or `active`."""
    store = Store(config.agent.state_folder / "store")
    found = []
    for slot in config.slots:
        state, dealt = store.load(slot).state, DealtWith(store.dealt_path(slot))
        dealt.load()
        refusal = next((one for key, one in state.refused.items() if sha256 in (key, one.sha256)), None)
        kind = "active" if sha256 == state.active else refusal.kind if refusal else dealt.kind_of(sha256)
        reason, detail = (refusal.reason, refusal.detail) if refusal else ("", "")
        if kind:
            found.append({"slot": slot, "kind": kind, "reason": reason, "detail": detail})
    return found


def score_files(
    files: Sequence[Path], model: Path, heatmaps: Path | None, config: Config | None
) -> Iterator[dict[str, Any]]:
    """Judge files in turn; what cannot be judged is `invalid` with its reason. Raises Reject for a refused model."""
    with tempfile.TemporaryDirectory(prefix="strip-agent-") as scratch:
        config = config or _default_config(Path(scratch))
        save = "none" if heatmaps is None else "all"
        start = partial(_start, model, digest_of(model), config, heatmaps or Path(scratch), save)
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
                choose_threshold(
                    operator=None, camera=None, scoring=config.scoring.threshold, model=model.threshold
                ).value,
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


def _start(
    model: Path,
    sha256: str,
    config: Config,
    folder: Path,
    save: str,
    role: Literal["candidate", "worker"] = "candidate",
) -> tuple[WorkerHandle, Loaded]:
    setup = Setup.of(config, model.absolute(), sha256, role)
    return started(
        replace(
            setup,
            lock_file=str(model.absolute()),
            heatmap_folder=str(folder.absolute()),
            ignored={},  # these are of cameras, and this strip is of none
            heatmaps=setup.heatmaps | {"png": save, "tiff": save, "min_free_gib": 0.0},
        ),
        config.models.trial.seconds,
    )


def started(setup: Setup, seconds: float, nice: int | None = None) -> tuple[WorkerHandle, Loaded]:
    """Start a worker, of that nice value, and wait until its model has proved itself. Raises Reject, Retry, OSError."""
    worker = WorkerHandle(setup)
    try:
        if nice is not None:
            os.setpriority(os.PRIO_PROCESS, worker.pid, nice)  # it has one thread yet, whose value the others get
        while True:
            loaded = worker.poll_loaded(POLL_SECONDS, seconds)
            if loaded is not None:
                return worker, loaded
    except (AgentError, OSError):
        worker.close(0.0)
        raise


def _default_config(folder: Path) -> Config:
    return Config(cameras=[Camera(name="score", folder=folder)])


def digest_of(file: Path) -> str:
    """Return the sha256 of a model file. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
