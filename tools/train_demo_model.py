"""Trains the model that `strip-agent demo` brings along, and exports it to agent/demo/model.onnx.

    python tools/train_demo_model.py

takes about ten minutes of one core and gives the same weights again on the same versions. The strips come from the
simulated camera (`agent.demo.strips`); training, held-out and demo strips are drawn from different seeds. The result
is tested as the product uses it: the exported file, run by onnxruntime on whole held-out strips.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import tifffile
import torch
from torch.nn import functional
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import agent  # noqa: E402, F401, I001 - the root has to be on the path first, and `agent` before onnxruntime
import onnxruntime  # noqa: E402
from agent.demo.drawing import HEIGHT, WIDTH  # noqa: E402
from agent.demo.strips import Image, Truth, make_strip  # noqa: E402
from tools.exporter.networks import UNet  # noqa: E402
from tools.stamp_demo_model import CALIBRATION, stamp  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

TRAINING, HELD_OUT = 1, 2  # first number of the seeds; the demo's have 3 (agent/demo/camera.py), CALIBRATION 4
SEED = 0
PATCH = 128
NETWORK_WIDTH = 7  # the largest whose file stays below 2 MiB with room for a golden strip
TRAINING_STRIPS, HELD_OUT_STRIPS, CALIBRATION_STRIPS = 600, 120, 6
PATCHES_PER_STRIP = 15  # at least four defects and a blemish
PATCHES_PER_DEFECT = 3
EPOCHS = 2
BATCH = 8
LEARNING_RATE = 2e-3
BIAS_LEARNING_RATE = 3e-2  # of the last layer
TEMPERATURE = 2.0  # logits are divided by it at the end: no verdict changes, and scores are less often exactly 0 or 1
DEFECT_WEIGHT = 4.0  # in the cross entropy; one pixel in a few hundred belongs to a defect
THRESHOLD = 0.5
MODEL_ID = "flex-demo"
CREATED = "2026-11-23T00:00:00Z"
MAX_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Patches:
    """`images` (n, 3, 128, 128) uint8 grey levels: target and references; `masks` (n, 128, 128) bool: defect."""

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def strip_of(purpose: int, number: int) -> tuple[Image, Truth]:
    """Make a strip for one of the purposes; the even ones are good, the odd have one to four defects."""
    rng = np.random.default_rng([purpose, SEED, number])
    defects = int(rng.integers(1, 5)) if number % 2 else 0
    if purpose == TRAINING:  # under harder conditions than the demo's
        return make_strip(rng, defects=defects, blemished=0.5, shift_px=0.7)
    return make_strip(rng, defects=defects)


def cut_patches(number: int) -> Patches:
    """Cut patches out of a training strip: some around each defect and blemish, the rest anywhere."""
    strip, truth = strip_of(TRAINING, number)
    rng = np.random.default_rng([TRAINING, SEED, number, 1])
    corners = [
        (
            int(np.clip((defect.top + defect.bottom) // 2 - rng.integers(10, PATCH - 10), 0, HEIGHT - PATCH)),
            int(np.clip((defect.left + defect.right) // 2 - rng.integers(10, PATCH - 10), 0, WIDTH - PATCH)),
        )
        for defect in (*truth.defects, *truth.blemishes)
        for _ in range(PATCHES_PER_DEFECT)
    ]
    while len(corners) < PATCHES_PER_STRIP:  # a tenth more than fits, so that the borders come up often
        row = rng.integers(-(HEIGHT - PATCH) // 10, (HEIGHT - PATCH) * 11 // 10)
        column = rng.integers(-(WIDTH - PATCH) // 10, (WIDTH - PATCH) * 11 // 10)
        corners.append((int(np.clip(row, 0, HEIGHT - PATCH)), int(np.clip(column, 0, WIDTH - PATCH))))
    windows = [(slice(row, row + PATCH), slice(column, column + PATCH)) for row, column in corners]
    return Patches(
        np.stack([strip[:3, rows, columns] for rows, columns in windows]).astype(np.uint8),
        np.stack([truth.mask[rows, columns] for rows, columns in windows]),
    )


def train(patches: Patches) -> UNet:
    """Train with cross entropy and Dice loss; flips and an exchange of the references make more of the patches."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng([TRAINING, SEED])
    network = UNet(NETWORK_WIDTH)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs do not know it
    # A network this narrow says "defect" by features that vanish, and then only the last bias speaks: it has to learn
    # as fast as all the weights together, or every defect ends with the same doubtful score.
    last_bias = network.get_parameter("decoder.fin_out.0.bias")
    others = [parameter for parameter in network.parameters() if parameter is not last_bias]
    rates = [LEARNING_RATE, BIAS_LEARNING_RATE]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": [last_bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups)
    steps = len(patches.masks) * EPOCHS // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, steps, pct_start=0.2)
    order = np.concatenate([rng.permutation(len(patches.masks)) for _ in range(EPOCHS)])
    weight = torch.tensor([1.0, DEFECT_WEIGHT])
    for step in (progress := tqdm(range(steps), desc="training", unit="step", mininterval=5)):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        images = torch.from_numpy(patches.images[chosen]).float() / 255
        masks = torch.from_numpy(patches.masks[chosen])
        for axis in (1, 2):
            if rng.random() < 0.5:  # noqa: PLR2004 - as often as not
                images, masks = images.flip(axis + 1), masks.flip(axis)
        if rng.random() < 0.5:  # noqa: PLR2004 - as often as not
            images = images[:, [0, 2, 1]]
        logits = network(images.contiguous(memory_format=torch.channels_last))
        defect = logits.softmax(1)[:, 1]
        overlap = (2 * (defect * masks).sum() + 1) / (defect.sum() + masks.sum() + 1)
        loss = functional.cross_entropy(logits, masks.long(), weight=weight) + 0.5 * (1 - overlap)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    with torch.no_grad():
        for parameter in network.decoder.fin_out.parameters():
            parameter.div_(TEMPERATURE)
    network.eval()
    return network


def save_checkpoint(network: UNet, path: Path) -> None:
    """Save as users' trainings do."""
    content = {
        "model_state_dict": {key: value.contiguous() for key, value in network.state_dict().items()},
        "img_height": PATCH,
        "img_width": PATCH,
        "image_type": "strip",
        "epoch": EPOCHS,
        "seed": SEED,
    }
    torch.save(content, path)


def export(checkpoint: Path, work: Path, model: Path) -> None:
    """Export with the product's own exporter, which proves the file on strips and puts a golden one into it.

    What goes into the file is fixed, so that its bytes are too.
    """
    calibration, golden = work / "calibration", work / "golden.tif"
    calibration.mkdir(exist_ok=True)
    for number in range(CALIBRATION_STRIPS):
        strip, _ = strip_of(CALIBRATION, number)
        write_strip(calibration / f"{number}.tif", strip)
    # The last one has defects. Noise does not compress, and the file has to stay small: smooth, in steps of 8 levels.
    write_strip(golden, np.stack([np.rint(cv2.medianBlur(channel, 5) / 8) * 8 for channel in strip]))
    command = [sys.executable, str(ROOT / "tools" / "export.py"), "export", str(checkpoint), "--out", str(model)]
    command += ["--model-id", MODEL_ID, "--version", "1", "--created", CREATED, "--threshold", str(THRESHOLD)]
    subprocess.run([*command, "--calibration", str(calibration), "--golden", str(golden)], check=True)
    if model.stat().st_size >= MAX_BYTES:
        sys.exit(f"{model} has {model.stat().st_size} bytes; at most {MAX_BYTES} are wanted in the package")


def write_strip(path: Path, strip: Image) -> None:
    """Write a strip as the cameras do."""
    tifffile.imwrite(path, strip, photometric="minisblack", planarconfig="separate", metadata=None)


def heatmap_of(session: onnxruntime.InferenceSession, strip: Image) -> Image:
    """Run the exported model on one strip; (976, 176) float32, 0..1."""
    output = session.run(["output"], {"input": strip[None, :3] / np.float32(255)})[0]
    return np.asarray(output[0, 0], dtype=np.float32)


def test(model: Path) -> bool:
    """Judge the held-out strips, print what came out, and return whether it is good enough for a demo."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    good, defective = list[float](), list[float]()
    found, made = dict[str, int](), dict[str, int]()
    for number in tqdm(range(HELD_OUT_STRIPS), desc="held-out strips", mininterval=5):
        strip, truth = strip_of(HELD_OUT, number)
        heatmap = heatmap_of(session, strip)
        (defective if truth.defects else good).append(float(heatmap.max()))
        for defect in truth.defects:
            made[defect.kind] = made.get(defect.kind, 0) + 1
            peak = heatmap[defect.top : defect.bottom, defect.left : defect.right].max()
            found[defect.kind] = found.get(defect.kind, 0) + int(peak >= THRESHOLD)
    auroc = float(np.mean([[bad > fine for bad in defective] for fine in good]))
    right = sum(score < THRESHOLD for score in good) + sum(score >= THRESHOLD for score in defective)
    accuracy = right / (len(good) + len(defective))
    print(
        f"strips: AUROC {auroc:.4f}, verdicts right {accuracy:.3f} of {len(good)} good and {len(defective)} defective"
    )
    print(
        f"scores: good at most {max(good):.3f}, median {np.median(good):.3f}; highest {np.round(np.sort(good)[-5:], 3)}"
    )
    print(f"        defective at least {min(defective):.3f}; lowest {np.round(np.sort(defective)[:5], 3)}")
    for kind in sorted(made):
        print(f"  {kind:16} {found[kind]:3} of {made[kind]:3} found")
    return auroc > 0.99 and accuracy > 0.97  # noqa: PLR2004 - what a demo needs


def main() -> None:
    """Make strips, train, save, export, test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "demo-model", help="folder for the checkpoint")
    parser.add_argument("--out", type=Path, default=ROOT / "agent" / "demo" / "model.onnx")
    parser.add_argument("--only-export", action="store_true", help="take the checkpoint that is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    cv2.setNumThreads(1)
    started = time.process_time()
    arguments.work.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.work / "demo.pth"
    if not arguments.only_export:
        parts = [cut_patches(number) for number in tqdm(range(TRAINING_STRIPS), desc="training strips", mininterval=5)]
        patches = Patches(
            np.concatenate([part.images for part in parts]), np.concatenate([part.masks for part in parts])
        )
        save_checkpoint(train(patches), checkpoint)
    export(checkpoint, arguments.work, arguments.out)
    stamp(arguments.out)
    good_enough = test(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {time.process_time() - started:.0f} s of CPU time")
    sys.exit(0 if good_enough else 1)


if __name__ == "__main__":
    main()
