"""The simulated cameras: write strips into folders as cameras do, some of them slowly, some of them broken.

Runs in a process of its own (`python -m agent.demo.camera`), started by the demo and stopped by SIGTERM. What it wrote
stands in a file of its own, one JSON object on each line, which the agent never sees: the demo compares at the end.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import tifffile

from agent.demo.strips import Image, make_strip
from agent.demo.truth import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

CAMERAS = ("top", "bottom")  # the bottom one sorts its strips into folders by date
PURPOSE = 3  # seeds of the demo; 1 and 2 are the training's and the held-out strips' (tools/train_demo_model.py)
SLOW_PIECES = 6
SLOW_PAUSE_SECONDS = 0.1  # between the pieces; well below any settle_seconds that makes sense

# Twelve strips at a time: the number of defects of each, or "broken". Kinds of broken files take turns.
CYCLE: tuple[int | str, ...] = (0, 2, 0, 0, 1, "broken", 0, 3, "broken", 0, 1, 0)
SLOW = (2, 9)  # which of the twelve are written slowly
BROKEN = ("truncated", "with a pixel that is no number", "constant", "wrong shape", "empty", "grey levels 0..1")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the cameras do next; `broken` is "" or what is wrong with the file."""

    camera: str
    defects: int
    broken: str
    slow: bool


def plans(seed: int) -> Iterator[Plan]:
    """Say, without end, what comes next: of twelve strips four have defects, two are broken, two are slow."""
    kinds = itertools.cycle(np.random.default_rng([PURPOSE, seed]).permutation(BROKEN))
    for index, what in enumerate(itertools.cycle(CYCLE)):
        yield Plan(
            camera=CAMERAS[index % len(CAMERAS)],
            defects=what if isinstance(what, int) else 0,
            broken=str(next(kinds)) if isinstance(what, str) else "",
            slow=index % len(CYCLE) in SLOW,
        )


def run_camera(
    folder: Path, truth_file: Path, stop: threading.Event, *, rate: float, strips: int | None, seed: int
) -> None:
    """Write `strips` strips (None: until `stop`), `rate` each second, into one folder below `folder` for each camera.

    A line of `truth_file` (`Written` as JSON) is complete on disk before the strip that it is about appears.
    """
    due = time.monotonic()
    with truth_file.open("a", encoding="utf-8", buffering=1) as truth:
        for index, plan in enumerate(itertools.islice(plans(seed), strips)):
            strip, found = make_strip(np.random.default_rng([PURPOSE, seed, index]), defects=plan.defects)
            content = encode(strip, plan.broken)
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            due = max(due + 1 / rate, time.monotonic())
            path = _path(folder / plan.camera, plan.camera, index)
            kinds = tuple(defect.kind for defect in found.defects)
            written = Written(plan.camera, path.relative_to(folder / plan.camera).as_posix(), kinds, plan.broken)
            truth.write(json.dumps(asdict(written)) + "\n")
            (_write_slowly if plan.slow else _write_at_once)(path, content)


def encode(strip: Image, broken: str = "") -> bytes:
    """Make the bytes of a TIFF file, planar and uncompressed; broken in the way that `BROKEN` names."""
    if broken == "empty":
        return b""
    if broken == "constant":
        strip = np.full_like(strip, 128)
    elif broken == "wrong shape":
        strip = strip[:, : strip.shape[1] // 2]
    elif broken == "grey levels 0..1":
        strip = strip / np.float32(255)
    elif broken == "with a pixel that is no number":
        strip = strip.copy()
        strip[0, strip.shape[1] // 2, strip.shape[2] // 2] = np.nan
    file = io.BytesIO()
    tifffile.imwrite(file, strip, photometric="minisblack", planarconfig="separate", metadata=None)
    content = file.getvalue()
    return content[: len(content) // 2] if broken == "truncated" else content


def _path(folder: Path, camera: str, index: int) -> Path:
    if camera == CAMERAS[1]:
        folder = folder / datetime.now(UTC).strftime("%Y-%m-%d")
    return folder / f"{camera}_{index:06d}.tif"


def _write_at_once(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.rename(path)


def _write_slowly(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = -(-len(content) // SLOW_PIECES)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(content), size):
            file.write(content[start : start + size])
            time.sleep(SLOW_PAUSE_SECONDS)


def main() -> None:
    """Run as a program; SIGTERM and Ctrl-C end it after the strip that is being written."""
    parser = argparse.ArgumentParser(description=run_camera.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("truth_file", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--strips", type=int)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    os.nice(5)  # the line's computer is the agent's; a real camera would not take part of it
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_camera(
        arguments.folder,
        arguments.truth_file,
        stop,
        rate=arguments.rate,
        strips=arguments.strips,
        seed=arguments.seed,
    )


if __name__ == "__main__":
    main()
