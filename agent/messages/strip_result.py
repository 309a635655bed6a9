"""The message that the product is about: one judgement of one strip."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from agent.contract.threshold import Source  # noqa: TC001 - pydantic reads it
from agent.messages.base import Count, Duration, Message, Sha256OrNone, UtcText

INVALID_SCORE = -1.0
VERDICT_CODES = {"ok": 0, "anomalous": 1, "invalid": 2}
GOOD_QUALITY, BAD_QUALITY = 192, 0


class StripResult(Message):
    """One judgement of one strip. Retained on `state/last_strip/{camera}` it is what was judged last of that camera."""

    schema_: Annotated[Literal["strip-result/1"], Field(alias="schema")] = "strip-result/1"
    """Name and version of this message. New keys keep the version; anything else makes a new one."""
    msg_id: Annotated[str, Field(min_length=1)]
    """`stream-seq`. The same result sent twice carries the same one: drop repeats by it."""
    stream: Annotated[str, Field(min_length=1)]
    """Random name of the ledger that counted `seq`; a new ledger starts a new count."""
    seq: Annotated[int, Field(ge=1)]
    """Counts the results of a ledger in the order of their commit, without gaps: a missing number is a lost message."""
    revision: Annotated[int, Field(ge=1)]
    """1 for the first judgement of a strip; each `strips retry` adds one."""
    ts: UtcText
    """When the result was committed, UTC."""
    ts_ms: int
    """`ts` in Unix milliseconds."""
    agent: Annotated[str, Field(min_length=1)]
    """Name of the box."""
    camera: Annotated[str, Field(min_length=1)]
    """Name of the camera."""
    strip_id: Annotated[str, Field(min_length=1)]
    """Identity of the strip; revisions of one strip share it."""
    part_id: str
    """What the camera's `part_id_pattern` found in the file name; "" when there is none."""
    file: str
    """The strip's file, relative to the camera's folder; odd bytes are shown with backslash escapes."""
    captured_ts_ms: int
    """Modification time of the strip's file in Unix milliseconds: the best known time of the picture."""
    score: float
    """The strip's score by the configured method; -1.0 when it was not judged."""
    threshold: float
    """A score at or above it is anomalous."""
    verdict: Literal["ok", "anomalous", "invalid"]
    """`invalid` was not judged and never means ok."""
    verdict_code: Literal[0, 1, 2]
    """0 ok, 1 anomalous, 2 invalid."""
    reason: str
    """Why the strip is invalid, one of the codes in docs/reasons.md; "" otherwise."""
    quality: Literal[0, 192]
    """192 good; 0 bad: the score must not be used."""
    anomaly_area_px: Count
    """Pixels of all counted defect regions."""
    defect_count: Count
    """Number of defect regions; with `scoring.method: detections` of detections, of which a good strip has some too."""
    peak_row: Annotated[int, Field(ge=-1)]
    """Row of the heatmap's maximum, or of the best detection, from 0; -1 when there is no heatmap."""
    peak_col: Annotated[int, Field(ge=-1)]
    """Column of the heatmap's maximum, or of the best detection, from 0; -1 when there is no heatmap."""
    rescaled: bool
    """The strip's grey levels were outside the range and it was stretched before judging."""
    replayed: bool
    """True only on `replay/strip/{camera}`: a stored result again, because somebody asked for it."""
    model_id: str
    """The model that judged; "" when no model was involved."""
    model_version: Count
    """Its version; 0 when it has none."""
    model_sha256: Sha256OrNone
    """Digest of its file; "" when no model was involved."""
    inference_ms: Duration
    """Time that the model ran."""
    total_ms: Duration
    """Time from the settled file to the commit."""
    heatmap_path: str
    """The lossless heatmap (float TIFF), POSIX, relative to the heatmap folder; "" when there is none."""
    heatmap_sha256: Sha256OrNone
    """Digest of that file; "" when there is none."""
    preview_path: str
    """The picture for people (PNG), relative to the heatmap folder; "" when there is none."""
    preview_sha256: Sha256OrNone = ""
    """Digest of that file; "" when there is none."""
    preview_url: str
    """Its address by `heatmaps.url_template`; "" when there is none."""
    heatmap_state: Literal["saved", "by_rule", "no_space", "failed"]
    """`by_rule`: the configuration says not to save this one."""
    ignore_pixels_sha256: Sha256OrNone = ""
    """Digest of the camera's `ignore_pixels` file that was used; "" when there is none."""
    ignore_mask_sha256: Sha256OrNone = ""
    """Digest of the camera's `ignore_mask` file that was used; "" when there is none."""
    threshold_source: Source = "default"
    """Whose `threshold` it is: the operator's after `set_threshold`, else as configured, the model's, or 0.5."""

    @model_validator(mode="after")
    def _verdict_agrees(self) -> StripResult:
        invalid = self.verdict == "invalid"
        if self.verdict_code != VERDICT_CODES[self.verdict]:
            raise ValueError(f"verdict {self.verdict} has code {VERDICT_CODES[self.verdict]}, not {self.verdict_code}")
        if invalid != (self.quality == BAD_QUALITY) or invalid != bool(self.reason):
            raise ValueError("an invalid result has quality 0 and a reason, any other has quality 192 and none")
        if invalid and self.score != INVALID_SCORE:
            raise ValueError(f"an invalid result has score {INVALID_SCORE}, not {self.score}")
        return self
