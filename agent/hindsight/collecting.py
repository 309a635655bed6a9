"""Strips for the next training: those that people reviewed, that the model was unsure of, or of some verdict.

1. what was said of them;  2. in the order of their use: reviewed, seen otherwise by a shadow, nearest to the threshold;
3. each file, found by its bytes, copied with its heatmap, the regions that somebody confirmed as a mask in its fourth
channel;  4. a table beside it that `tools/export.py evaluate` reads.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.files import free_bytes
from agent.hindsight.archive import new_archive
from agent.hindsight.asking import look_back
from agent.hindsight.masks import Masks
from agent.regular_files import read_regular_file
from agent.strips.whereabouts import Missing, find_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.config import Config
    from agent.hindsight.archive import Archive
    from agent.hindsight.asking import Ask, Wanted
    from agent.ledger import Said

LABELS = {"defect": "defect", "no_defect": "good", "unsure": "unsure", "": ""}
"""What is said of a strip, by its last review; as `evaluate` takes it."""
UNLABELLED = "unlabelled"
MAX_HEATMAP_BYTES = 64 << 20
GIB = 1 << 30
MASK = "channel 4"
COLUMNS = ("file", "label", "mask", "heatmap", "camera", "strip_id", "original", "verdict", "score", "threshold",
           "shadow_verdict", "shadow_score", "model_id", "model_version", "model_sha256", "sha256")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is gathered at most."""

    strips: int
    size_bytes: int  # of strips and heatmaps together, before they are packed


@dataclass(slots=True)
class Collected:
    """What has been gathered; `stopped` says what ended it before all was."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    size_bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    without_mask: list[str] = field(default_factory=list)  # confirmed, and why there is no mask all the same
    stopped: str = ""


def collect(out: Path, wanted: Wanted, bounds: Bounds, config: Config, ask: Ask) -> Collected:
    """Gather the strips into a new folder or ZIP file. Raises LookupError where there are none, OSError.

    The files of the line are only read.
    """
    found = sorted(look_back(ask, wanted), key=usefulness)
    collected = Collected()
    with new_archive(out) as archive, Masks(config) as masks:
        for said in found:
            if len(collected.rows) >= bounds.strips:
                collected.stopped = f"there are more than {bounds.strips} of them (--limit)"
            if collected.stopped:
                break
            _take(said, archive, masks, collected, bounds, config, out)
        if not collected.rows:
            raise LookupError(_why_none(found, collected))
        archive.add("labels.csv", _table(collected.rows))
    return collected


def usefulness(said: Said) -> tuple[bool, bool, float, int]:
    """Order strips by what training gains from them: the smallest first, of equal ones the newest."""
    distance = float("inf") if said.verdict == "invalid" else abs(said.score - said.threshold)
    return not said.finding, not said.shadow_verdict, distance, -said.row


def safe_name(said: Said) -> str:
    """Name a strip in the collection: its camera, what is harmless of its name, and its id."""
    stem = said.path.rpartition("/")[2].rpartition(".")[0]
    harmless = re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:80].lstrip(".")
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', said.camera)[:60]}-{harmless or 'strip'}-{said.strip_id}"


def _take(
    said: Said, archive: Archive, masks: Masks, collected: Collected, bounds: Bounds, config: Config, out: Path
) -> None:
    camera = next((camera for camera in config.cameras if camera.name == said.camera), None)
    file = find_file(camera, said)
    if isinstance(file, Missing):
        collected.left_out[file.kind] += 1
        return
    heatmap = _heatmap(config.heatmap_folder, said)
    data, mask = file.data, ""
    confirmed = said.found_at_revision == said.revision
    if confirmed and (said.finding == "no_defect" or (said.finding == "defect" and said.verdict == "anomalous")):
        masked, why = masks.put_into(data, heatmap, said)
        data, mask = (masked, MASK) if masked else (data, "")
        collected.without_mask += [f"{said.camera}/{said.file}: {why}"] if why else []
    size_bytes = len(data) + len(heatmap)
    if collected.size_bytes + size_bytes > bounds.size_bytes:
        collected.stopped = f"more than {bounds.size_bytes >> 20} MiB (--max-mib)"
        return
    if free_bytes(out.absolute().parent) - size_bytes < config.heatmaps.min_free_gib * GIB:
        collected.stopped = f"the disk of {out} is nearly full (heatmaps.min_free_gib)"
        return
    label, name = LABELS[said.finding], safe_name(said)
    where = f"{label or UNLABELLED}/{name}.tiff"
    archive.add(where, data)
    if heatmap:
        archive.add(f"heatmaps/{name}.tiff", heatmap)
    collected.size_bytes += size_bytes
    collected.rows.append(
        {
            "file": where, "label": label, "mask": mask, "heatmap": f"heatmaps/{name}.tiff" if heatmap else "",
            "camera": said.camera, "strip_id": said.strip_id, "original": f"{said.camera}/{said.file}",
            "verdict": said.verdict, "score": said.score, "threshold": said.threshold,
            "shadow_verdict": said.shadow_verdict, "shadow_score": said.shadow_score if said.shadow_verdict else "",
            "model_id": said.model_id, "model_version": said.model_version, "model_sha256": said.model_sha256,
            "sha256": said.digest,
        }
    )  # fmt: skip


def _heatmap(folder: Path, said: Said) -> bytes:
    """Read the heatmap as it was published; b"" where there is none, or another one by now."""
    if not said.heatmap_path:
        return b""
    try:
        data = read_regular_file(str(folder), said.heatmap_path, max_bytes=MAX_HEATMAP_BYTES)[0]
    except AgentError:
        return b""
    return data if hashlib.sha256(data).hexdigest() == said.heatmap_sha256 else b""


def _table(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _why_none(found: Sequence[Said], collected: Collected) -> str:
    if not found:
        return "there are no such strips"
    left_out = ", ".join(f"{number} {why}" for why, number in sorted(collected.left_out.items()))
    return f"none of {len(found)} strips could be taken: {collected.stopped or left_out}"
