"""Has masks put into strips by a process of its own: strips are from strangers, and pixels are none of ours here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.models.store import Store
from agent.supervision.handle import ENVIRONMENT

if TYPE_CHECKING:
    from typing import Self

    from agent.config import Config
    from agent.ledger import Said

MEMORY_MIB = 1024
ANSWER_SECONDS = 60.0
MAX_SIZES = 8
LOST = "the process that makes masks was lost"


class Masks:
    """The process is started with the first strip, and once only: where it is lost there are no masks any more."""

    def __init__(self, config: Config) -> None:
        self._scoring = config.scoring
        store = Store(config.agent.state_folder / "store")
        self._accepted = {
            sha256: (model.height, model.width)
            for slot in config.slots
            for sha256, model in store.load(slot).state.kept.items()
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="strip-agent-")

    def __enter__(self) -> Self:
        """Use it, and end the process at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()

    def put_into(self, strip: bytes, heatmap: bytes, said: Said) -> tuple[bytes, str]:
        """Return the strip with its confirmed regions as a mask, or none of it and why: there is no heatmap, say."""
        if said.finding == "defect" and not heatmap:
            return b"", "its heatmap is not there (heatmaps.tiff, heatmaps.keep_days)"
        folder = Path(self._folder.name)
        (folder / "strip").write_bytes(strip)
        (folder / "heatmap").write_bytes(heatmap)
        known = self._accepted.get(said.model_sha256)
        sizes = [known] if known else [*dict.fromkeys(self._accepted.values())][:MAX_SIZES]
        answer = self._ask({
            "strip": str(folder / "strip"), "heatmap": str(folder / "heatmap") if said.finding == "defect" else "",
            "out": str(folder / "out"), "sizes": sizes, "pixel_threshold": self._scoring.pixel_threshold,
            "min_area_px": self._scoring.min_area_px,
        })  # fmt: skip
        return (b"", answer["why"]) if answer["why"] else ((folder / "out").read_bytes(), "")

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            command = [sys.executable, "-m", "agent.worker.masking", str(MEMORY_MIB)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | ENVIRONMENT
            )
        assert self._process.stdin is not None  # noqa: S101 - a pipe, above
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]:
                self._process.kill()
            answer: dict[str, Any] = json.loads(self._process.stdout.readline() or b"{}")
        except (BrokenPipeError, ValueError):
            answer = {}
        return answer if "why" in answer else {"why": LOST}
