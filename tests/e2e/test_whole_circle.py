"""From the first export to the second model in production, with the tools that people use, on strips made here."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from click.testing import CliRunner
from torch.nn import functional

from tests.exporter.trained import TRAINED_IMAGE, save_strips, save_trained
from tests.helpers.box import Box, drop_file, wait_for_results
from tests.helpers.broker import Subscriber, wait_for
from tools.evaluating import figures
from tools.export import main as tools_export
from tools.exporter.networks import UNet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.broker import Broker

BASE = "strip-agent/box1"
STRIPS = 8  # every other one has a defect
CALM, DOUBT = 0.3, 7.5  # the first model is less sure than the trained one, and sees too little: it misses some defects
STEPS = 60
SIDE = 128  # of a patch
CHANNELS = 4  # with a mask
SIZE = ("--image-size", *TRAINED_IMAGE)


def tool(*arguments: object) -> str:
    """Run tools/export.py."""
    done = CliRunner().invoke(tools_export, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def tool_json(*arguments: object) -> Any:
    """Run it for a program."""
    return json.loads(tool(*arguments, "--json"))


def agent(box: Box, *arguments: object) -> Any:
    """Run strip-agent on the box."""
    done = box.cli(*map(str, arguments), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def drop_all(strips: Path, box: Box, before: str = "") -> None:
    """Have the camera write all strips."""
    for path in sorted(strips.iterdir()):
        drop_file(path, box.camera() / f"{before}{path.name}")


def shadow_looks_on(box: Box) -> bool:
    """Say whether a shadow has noted where it begins: what is published before that is not its own."""
    with contextlib.closing(sqlite3.connect(f"file:{box.state / 'ledger.db'}?mode=ro", uri=True)) as ledger:
        return ledger.execute("SELECT 1 FROM shadow_progress").fetchone() is not None


def review_all(box: Box, published: dict[str, Any], defective: set[str]) -> None:
    """Have a person say of every strip what is true."""
    for name, one in published.items():
        finding = "defect" if name in defective else "no_defect"
        agent(box, "strips", "review", one["strip_id"], finding, "--by", "ann")


def save_doubtful(good: Path, path: Path) -> Path:
    """Take a trained checkpoint, and have it doubt every defect."""
    content = torch.load(good, weights_only=True)
    weights = content["model_state_dict"]
    for what in ("weight", "bias"):
        weights[f"decoder.fin_out.0.{what}"] *= CALM
    weights["decoder.fin_out.0.bias"][1] -= DOUBT
    torch.save(content, path)
    return path


def train_further(checkpoint: Path, collected: Path, path: Path) -> Path:
    """Train the last layer for a few steps on a collected folder, as any script reads it: TIFF, fourth channel, table.

    Where a mask is known the pixels teach, everywhere the label does, by the highest pixel of the strip.
    """
    content = torch.load(checkpoint, weights_only=True)
    network = UNet(len(content["model_state_dict"]["encoder.block1.0.weight"]))
    network.load_state_dict(content["model_state_dict"])
    network.eval()
    with (collected / "labels.csv").open() as table:
        rows = [row for row in csv.DictReader(table) if row["label"] in ("good", "defect")]
    strips = [tifffile.imread(collected / row["file"]) for row in rows]
    known = torch.tensor([row["mask"] == "channel 4" for row in rows])
    whole = np.stack([strip if len(strip) == CHANNELS else np.stack([*strip, 0 * strip[0]]) for strip in strips])
    corners = [(top, left) for top in (0, TRAINED_IMAGE[0] - SIDE) for left in (0, TRAINED_IMAGE[1] - SIDE)]
    patches = np.stack([whole[..., top : top + SIDE, left : left + SIDE] for top, left in corners], axis=1)
    images, masks = torch.from_numpy(patches[:, :, :3] / np.float32(255)), torch.from_numpy(patches[:, :, 3] > 0)
    labels = torch.tensor([float(row["label"] == "defect") for row in rows])
    last = network.get_submodule("decoder.fin_out")
    features: list[torch.Tensor] = []
    with torch.no_grad(), last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0])):
        network(images.flatten(0, 1))
    optimizer = torch.optim.Adam(last.parameters(), lr=0.05)
    losses = []
    for _ in range(STEPS):
        logits = last(features[0]).diff(dim=1).unflatten(0, images.shape[:2])[:, :, 0]
        by_label = functional.binary_cross_entropy_with_logits(logits.amax((1, 2, 3)), labels)
        by_mask = functional.binary_cross_entropy_with_logits(logits[known], masks[known].float())
        loss = by_label + by_mask
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    torch.save(content | {"model_state_dict": network.state_dict()}, path)
    return path


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals have tests of their own."""
    monkeypatch.setattr(figures, "RESAMPLES", 20)


@pytest.mark.soak
@pytest.mark.timeout(3600)  # 44 s of processor time, and a shadow takes only what nobody else wants
def test_the_whole_circle_from_the_first_model_to_the_second(tmp_path: Path, broker: Broker) -> None:
    """Export, push, score, review, collect, train, evaluate, compare, shadow, replay, activate."""
    strips = save_strips(tmp_path / "strips", STRIPS)
    defective = {f"strip_{number}.tif" for number in range(0, STRIPS, 2)}
    first = save_doubtful(save_trained(tmp_path / "trained.pth"), tmp_path / "first.pth")
    how = (*SIZE, "--calibration", strips, "--threshold", 0.5)
    tool("export", first, "--out", tmp_path / "first.onnx", "--version", 1, "--model-id", "first", *how)
    with (
        Box(tmp_path / "box", broker.port, heatmaps={"tiff": "all"}) as box,
        Subscriber(broker.port, f"{BASE}/#") as subscriber,
    ):
        box.start()
        tool("push", tmp_path / "first.onnx", box.inbox)
        drop_all(strips, box)
        published = {one["file"]: one for one in wait_for_results(subscriber, STRIPS)}
        missed = {name for name in defective if published[name]["verdict"] == "ok"}
        found = {name for name in defective if published[name]["verdict"] == "anomalous"}
        assert missed, "the first model leaves nothing to learn"
        assert found, "the first model finds nothing that could be confirmed"

        review_all(box, published, defective)
        collected = tmp_path / "collected"
        gathered = agent(box, "collect", "--reviewed", "--out", collected)
        assert gathered["labels"] == {"defect": STRIPS // 2, "good": STRIPS // 2}
        assert gathered["masks"] == len(found) + STRIPS // 2

        second = train_further(first, collected, tmp_path / "second.pth")
        before = tool_json("evaluate", first, collected, *SIZE)
        after = tool_json("evaluate", second, collected, *SIZE)
        assert before["confusion"]["missed"] == len(missed)
        assert (after["confusion"]["missed"], after["confusion"]["false_alarms"]) == (0, 0)
        tool("export", second, "--out", tmp_path / "second.onnx", "--version", 2, "--model-id", "second", *how)
        changes = tool_json("compare", tmp_path / "first.onnx", tmp_path / "second.onnx", collected)
        flips = f"{len(missed)}: {len(missed)} become right, 0 become wrong"
        assert changes["change"]["verdicts that change"] == flips

        tool("push", "--shadow", tmp_path / "second.onnx", box.inbox)
        wait_for(lambda: shadow_looks_on(box), "it is the shadow, and looks on")
        drop_all(strips, box, "again_")
        again = {one["file"]: one for one in wait_for_results(subscriber, 2 * STRIPS)[STRIPS:]}
        assert {one["model_id"] for one in again.values()} == {"first"}, "a shadow decides nothing"
        wait_for(lambda: agent(box, "models", "shadow")["comparison"]["compared"] == STRIPS, "both have judged them")
        beside = agent(box, "models", "shadow")
        assert (beside["comparison"]["to_anomalous"], beside["comparison"]["to_ok"]) == (len(missed), 0)
        disagreed = agent(box, "collect", "--uncertain", "--near", 0, "--out", tmp_path / "disagreed.zip")
        assert disagreed["strips"] == len(missed)

        digest = beside["shadow"]["sha256"]
        replayed = agent(box, "replay", "--model", digest[:12], "--max-flips", "50%", "--out", tmp_path / "replay.html")
        assert replayed["change"]["kinds"] == {"ok to anomalous": 2 * len(missed)}
        assert (replayed["change"]["mended"], replayed["change"]["broken"]) == (len(missed), 0), "by the reviews"

        agent(box, "models", "activate", digest)
        wait_for(lambda: box.ask("status")["models"]["default"]["active_model_id"] == "second", "it is active")
        name = min(missed)
        drop_file(strips / name, box.camera() / f"then_{name}")
        *_, last = wait_for_results(subscriber, 2 * STRIPS + 1)
        assert (last["model_id"], last["verdict"]) == ("second", "anomalous")
        assert box.audit()["balanced"]
