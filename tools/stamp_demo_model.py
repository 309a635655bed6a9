"""Stamps into the demo's model how the simulated cameras' strips look, as the exporter does with `--calibration`.

    python tools/stamp_demo_model.py

needs no torch and takes some seconds. `tools/train_demo_model.py` does it to what it has exported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import agent  # noqa: E402, F401, I001 - the root has to be on the path first, and `agent` before onnxruntime
import onnxruntime  # noqa: E402
from agent.contract.exposure import WHITE  # noqa: E402
from agent.contract.measures import Reference, format_reference, make_reference  # noqa: E402
from agent.demo.pushes import MODEL, set_metadata  # noqa: E402
from agent.demo.strips import make_strip  # noqa: E402
from agent.worker.measuring import measure  # noqa: E402

CALIBRATION = 4  # first number of the seeds, see tools/train_demo_model.py
STRIPS = 60  # every other one with one to four defects
THRESHOLD = 0.5
KEY = "calibration_measures"


def reference_of(model: bytes) -> Reference:
    """Judge and measure strips of the simulated cameras; each one is a good one or not, as on the demo's line."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the sums of several are not always the same
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    looks = []
    for number in range(STRIPS):
        rng = np.random.default_rng([CALIBRATION, 0, number])
        strip, _ = make_strip(rng, defects=int(rng.integers(1, 5)) if number % 2 else 0)
        output = session.run(["output"], {"input": strip[None, :3] / np.float32(WHITE)})[0]
        looks.append(measure(strip[:3], WHITE, float(output[0, 0].max())))
    reference = make_reference(looks, stretched=False, good_below=THRESHOLD)
    assert reference is not None  # noqa: S101 - there are enough
    return reference


def stamp(model: Path) -> None:
    """Write the reference behind what is in the file; of a stamp from before the later one counts."""
    content = model.read_bytes()
    model.write_bytes(set_metadata(content, KEY, format_reference(reference_of(content))))


if __name__ == "__main__":
    stamp(MODEL)
