"""What a model would have said of strips that have been judged, against what was published of them.

1. the model: a file, or one of the store by the beginning of its digest;  2. what was said, from the ledger;  3. each
strip's file, where it still is, judged again by a worker of its own;  4. what changes, and whether that is too much.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.oneshot import digest_of
from agent.comparing import Change, Verdict, Verdicts, change_of, most_changed_first
from agent.contract.threshold import choose_threshold
from agent.errors import AgentError, Reason
from agent.hindsight.asking import look_back, thresholds_of_operators
from agent.hindsight.rescoring import Chosen, rescorer
from agent.models.store import Store
from agent.regular_files import read_regular_file
from agent.strips.whereabouts import Found, Missing, find_file
from agent.wire import Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.config import Camera, Config
    from agent.hindsight.asking import Ask, Wanted
    from agent.hindsight.rescoring import Rescorer
    from agent.ledger import Said
    from agent.wire import Loaded

PICTURES = 8  # of the strips where most changes
LEFT_OUT_NAMED = 5  # of each kind
MAX_PICTURE_BYTES = 16 << 20
TRUTHS = {"defect": True, "no_defect": False}  # what the last review says


@dataclass(frozen=True, slots=True)
class Rescored:
    """One strip: what was published, and what the model says now; `why` it is invalid, where it is."""

    said: Said
    pair: Verdicts
    threshold: float
    why: str
    inference_ms: float | None
    pictures: tuple[bytes, bytes] = (b"", b"")  # PNG: as published, and now; b"" where there is none


@dataclass(frozen=True, slots=True)
class Replay:
    """All of it. `strips` has those first where most changes."""

    model: Loaded
    sha256: str
    change: Change
    strips: list[Rescored]
    left_out: dict[str, list[str]] = field(default_factory=dict)  # why -> the files
    more: bool = False  # there are strips beyond the limit

    def too_much(self, most_flips: int | None, share: float | None) -> bool:
        """Whether more verdicts change than are allowed: a number, or a share of the strips; None: any number."""
        too_many = most_flips is not None and self.change.flips > most_flips
        return too_many or (share is not None and self.change.flipped_share > share)


def choose_model(text: str, config: Config) -> Chosen:
    """Find the model that is meant: a file, or the beginning of a digest in the store. Raises LookupError, OSError."""
    store = Store(config.agent.state_folder / "store")
    if "/" in text or text.endswith(".onnx") or Path(text).is_file():
        return Chosen(Path(text), digest_of(Path(text)))
    kept = {sha256 for slot in config.slots for sha256 in store.load(slot).state.kept}
    fitting = sorted(sha256 for sha256 in kept if sha256.startswith(text.lower()))
    if len(fitting) != 1:
        what = "more than one model" if fitting else "no model"
        raise LookupError(f"{what} of the store has a digest that begins with {text!r}; a file may be named as well")
    return Chosen(store.model_path(fitting[0]), fitting[0])


def replay(
    model: Chosen, wanted: Wanted, config: Config, ask: Ask, progress: Callable[[int], None] = lambda _: None
) -> Replay:
    """Judge the strips again. Raises Reject where the model is refused or lost too often, Retry where the box cannot.

    `progress` is called with the number of strips so far.
    """
    cameras = {camera.name: camera for camera in config.cameras}
    operators = thresholds_of_operators(ask, config)
    left_out: dict[str, list[str]] = {}
    rescored: list[Rescored] = []
    looked_at = 0
    with tempfile.TemporaryDirectory(prefix="strip-agent-") as scratch, rescorer(model, config, Path(scratch)) as judge:
        facts = judge.facts
        for said in look_back(ask, wanted):
            looked_at += 1
            found = find_file(cameras.get(said.camera), said)
            if isinstance(found, Missing):
                left_out.setdefault(found.kind, []).append(f"{said.camera}/{said.file}: {found.detail}")
                continue
            threshold = _threshold(facts, cameras[said.camera], operators, config)
            one = _rescored(judge, said, found, threshold)
            if one is None:
                left_out.setdefault("replaced", []).append(f"{said.camera}/{said.file}: it changed while it was judged")
            else:
                rescored.append(one)
            progress(len(rescored))
    pairs = [one.pair for one in rescored]
    place = {pair.name: number for number, pair in enumerate(most_changed_first(pairs))}
    rescored.sort(key=lambda one: place[one.pair.name])
    return Replay(facts, model.sha256, change_of(pairs), rescored, left_out, more=looked_at == wanted.most)


def with_pictures(found: Replay, model: Chosen, config: Config) -> list[Rescored]:
    """Give the strips where most changes with the pictures of before and now, as far as there are any."""
    cameras = {camera.name: camera for camera in config.cameras}
    shown = []
    with (
        tempfile.TemporaryDirectory(prefix="strip-agent-") as scratch,
        rescorer(model, config, Path(scratch), pictures=True) as judge,
    ):
        for one in found.strips[:PICTURES]:
            said, threshold = one.said, one.threshold
            before = _picture(config.heatmap_folder, said.preview_path)
            now = b""
            file = find_file(cameras.get(said.camera), said)
            if isinstance(file, Found):
                answer = judge.judge(said, file, threshold)
                now = _picture(Path(scratch), answer.judgement.heatmaps.png_path) if isinstance(answer, Judged) else b""
            shown.append(Rescored(said, one.pair, threshold, one.why, one.inference_ms, (before, now)))
    return shown


def summary(found: Replay, *, too_much: bool) -> dict[str, Any]:
    """Give it for programs."""
    change = asdict(found.change) | {"flipped_share": found.change.flipped_share}
    return {
        "model": {"sha256": found.sha256, "model_id": found.model.model_id, "version": found.model.version},
        "change": change,
        "too_much": too_much,
        "more_strips": found.more,
        "inference_ms": {"published": _median([one.said.inference_ms or None for one in found.strips]),
                         "now": _median([one.inference_ms for one in found.strips])},
        "left_out": {why: len(files) for why, files in sorted(found.left_out.items())},
        "left_out_named": {why: files[:LEFT_OUT_NAMED] for why, files in sorted(found.left_out.items())},
        "published_by": dict(Counter(one.said.model_sha256 for one in found.strips).most_common()),
        "strips": [
            {
                "strip_id": one.said.strip_id, "camera": one.said.camera, "file": one.said.file, "seq": one.said.seq,
                "verdict_before": one.pair.verdicts[0], "verdict": one.pair.verdicts[1],
                "score_before": one.pair.scores[0], "score": one.pair.scores[1],
                "threshold_before": one.said.threshold, "threshold": one.threshold,
                "model_before": one.said.model_sha256, "finding": one.said.finding, "reason": one.why,
            }
            for one in found.strips
        ],
    }  # fmt: skip


def _rescored(judge: Rescorer, said: Said, found: Found, threshold: float) -> Rescored | None:
    """Judge one strip; None where it is another file by now."""
    answer = judge.judge(said, found, threshold)
    score_before = None if said.verdict == "invalid" else said.score
    if isinstance(answer, Judged):
        judgement = answer.judgement
        if judgement.digest != said.digest:
            return None
        verdict: Verdict = "anomalous" if judgement.anomalous else "ok"
        pair = Verdicts(
            said.strip_id, (said.verdict, verdict), (score_before, judgement.score), TRUTHS.get(said.finding)
        )
        return Rescored(said, pair, threshold, "", judgement.inference_ms)
    if answer.reason in {Reason.FILE_REPLACED, Reason.FILE_VANISHED} or answer.digest not in ("", said.digest):
        return None
    why = f"{answer.reason}: {answer.detail}"
    return Rescored(
        said,
        Verdicts(said.strip_id, (said.verdict, "invalid"), (score_before, None), TRUTHS.get(said.finding)),
        threshold,
        why,
        None,
    )


def _threshold(model: Loaded, camera: Camera, operators: Mapping[str, float | None], config: Config) -> float:
    """Return the threshold that would decide if the model were the active one now."""
    return choose_threshold(
        operator=operators.get(camera.name), camera=camera.threshold, scoring=config.scoring.threshold,
        model=model.threshold,
    ).value  # fmt: skip


def _picture(folder: Path, path: str) -> bytes:
    """Read a picture below a folder of heatmaps; b"" where there is none, or none any more."""
    if not path:
        return b""
    try:
        return read_regular_file(str(folder), path, max_bytes=MAX_PICTURE_BYTES)[0]
    except AgentError:
        return b""


def _median(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.median(there) if there else None
