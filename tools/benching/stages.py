"""What a strip costs between its file and its commit, stage by stage, by the worker's and the ledger's own code."""

from __future__ import annotations

import hashlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.config import ChecksSection, HeatmapsSection, ScoringSection
from agent.contract.exposure import WHITE
from agent.ledger import NewResult, open_ledger
from agent.records import FileIdentity, SettledFile
from agent.regular_files import read_regular_file
from agent.worker.checks import check_output, check_strip, to_model_input
from agent.worker.heatmaps import HeatmapWriter, encode_heatmaps
from agent.worker.measuring import measure
from agent.worker.model import load_model, read_model, run
from agent.worker.scoring import score_heatmap
from agent.worker.tiff import read_strip
from agent.worker.trial import prove

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STAGES = (
    "read",
    "decode and check",
    "infer",
    "measure, beside drawing",
    "score and draw",
    "write heatmaps",
    "begin and commit",
)
MOST_BYTES = 64 << 20
PATIENCE_SECONDS = 60.0
MESSAGE = b"x" * 900


def stages(folder: Path, strips: Mapping[str, bytes], model: Path, rounds: int) -> dict[str, list[float]]:
    """Judge every strip `rounds` times as a worker does, with nothing else in between: milliseconds by stage."""
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        found[stage].append((time.perf_counter() - began) * 1e3)

    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    loaded, _ = prove(load_model(read_model(model, digest), threads=None, unlabelled_input_scale="auto"))
    facts, checks, scoring, drawn = loaded.facts, ChecksSection(), ScoringSection(), HeatmapsSection(min_free_gib=0)
    writer = HeatmapWriter(folder / "heatmaps", drawn.min_free_gib, PATIENCE_SECONDS)
    ledger = open_ledger(folder / "ledger.db")
    result = NewResult("ok", "", 0.1, digest, 0, digest, "event/strip/top", dispose=False)
    for number in range(rounds):
        for name, data in strips.items():
            path = folder / f"{number}-{name}"
            path.write_bytes(data)
            with timed("read"):
                read, *_ = read_regular_file(str(folder), path.name, max_bytes=MOST_BYTES)
                hashlib.sha256(read).hexdigest()
            with timed("decode and check"):
                pixels = read_strip(read, height=facts.height, width=facts.width)
                check_strip(pixels, checks, None)
                fed, _ = to_model_input(pixels, checks, "gray8" if facts.input_scale == "gray8" else "unit")
            with timed("infer"):
                output, _ = run(loaded, fed)
            heatmap = check_output(output, facts.height, facts.width)
            with timed("measure, beside drawing"):
                measure(fed[0], WHITE if facts.input_scale == "gray8" else 1.0, float(heatmap.max()))
            with timed("score and draw"):
                scored = score_heatmap(heatmap, scoring)
                threshold = facts.threshold or 0.5
                contents = encode_heatmaps(
                    heatmap, pixels, scored, threshold=threshold, anomalous=scored.score >= threshold, settings=drawn,
                    name=path.stem, ignored=None,
                )  # fmt: skip
            with timed("write heatmaps"):
                writer.write(f"top/{path.stem}", contents)
            with timed("begin and commit"):
                ledger.strips.begin([SettledFile("top", path.name, FileIdentity.of(path.stat()))])
                strip = ledger.strips.next_waiting("top", 0, ())
                assert strip is not None  # noqa: S101 - it was just begun
                ledger.strips.commit(strip, result, lambda _seq, _ts: MESSAGE, 10**6)
    ledger.database.close()
    return found
