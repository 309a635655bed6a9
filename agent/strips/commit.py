"""Step 5 of the strip's journey: result, message bytes and sequence number in one durable transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent import messages
from agent.ledger import NewResult
from agent.logs import event
from agent.records import HeatmapFiles, Judgement, show_name
from agent.strips.message import strip_message, verdict_of

if TYPE_CHECKING:
    from agent.config import Camera, Config
    from agent.contract.threshold import Threshold
    from agent.ledger import Ledger
    from agent.records import Strip
    from agent.supervision import WorkerHandle

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a strip: a judgement, or why there is none. `digest` is the sha256 of the bytes, "" if unread."""

    judgement: Judgement | None = None
    reason: str = ""
    detail: str = ""
    digest: str = ""

    @property
    def heatmaps(self) -> HeatmapFiles:
        """The files that were written for it."""
        return HeatmapFiles() if self.judgement is None else self.judgement.heatmaps


def commit(
    config: Config,
    ledger: Ledger,
    camera: Camera,
    strip: Strip,
    threshold: Threshold,
    outcome: Outcome,
    worker: WorkerHandle,
) -> bytes | None:
    """Record the outcome and return the message's bytes; None when the strip's file was written on meanwhile.

    `threshold` is the one it was judged by, or would have been; `worker` judged it, or was lost on it. Raises Retry
    where the ledger cannot: nothing is recorded.
    """
    judgement = outcome.judgement
    verdict = verdict_of(judgement)
    result = NewResult(
        verdict=verdict,
        reason=outcome.reason,
        score=messages.INVALID_SCORE if judgement is None else judgement.score,
        model_sha256=worker.setup.model_sha256,
        heatmap_bytes=outcome.heatmaps.bytes_written,
        digest=outcome.digest if judgement is None else judgement.digest,
        topic=messages.strip_event_topic(strip.camera),
        dispose=camera.when_done != "keep",
        detail=outcome.detail,
        in_pixels=config.scoring.method == "area",
        inference_seconds=None if judgement is None else judgement.inference_ms / 1000,
        measures=None if judgement is None else judgement.measures,
    )
    message = partial(
        strip_message, config, camera, strip, threshold, judgement, outcome.reason, worker.facts,
        stream=ledger.database.stream, model_sha256=worker.setup.model_sha256,
    )  # fmt: skip
    payload = b""

    def build(seq: int, ts_ms: int) -> bytes:
        nonlocal payload
        payload = messages.encode(message(seq=seq, ts_ms=ts_ms))
        return payload

    seq = ledger.strips.commit(strip, result, build, config.outbox.max_messages)
    if seq is None:
        log.info("strip %s: its file was written on while it was judged; once more", strip.strip_id)
        return None
    event(
        log,
        logging.WARNING if verdict == "invalid" else logging.INFO,
        "strip",
        f"{strip.camera}/{show_name(strip.path)} {verdict}"
        + (f" ({outcome.reason}: {outcome.detail})" if outcome.reason else f" score {result.score:.4f}"),
        strip_id=strip.strip_id,
        seq=seq,
        verdict=verdict,
        reason=outcome.reason,
        score=result.score,
        inference_ms=round(judgement.inference_ms, 1) if judgement else 0.0,
    )
    return payload
