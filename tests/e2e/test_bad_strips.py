"""Every kind of bad file against the running service: invalid with its own reason, and never in the way of the next."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from agent.errors import Reason
from agent.records import show_name
from tests.e2e.checks import check_audit, check_messages
from tests.helpers.bad_strips import BAD_STRIPS, READABLE_BY_ROOT
from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import encode, make_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.broker import Broker

KINDS = [kind for kind in BAD_STRIPS if kind != "folder"]  # a folder is looked into and is never a strip itself
ODD_NAMES = [
    b"line\nbreak.tif",
    b"100%s %d %n.tif",
    b"star*?[a].tif",
    b"x..dots...tif",
    b"-rf.tif",
    b"quote'\"$(id)`id`;.tif",
    b"back\\slash.tif",
    b"not utf-8 \xff\xfe.tif",
    "Prüfling 検査 🙂.tif".encode(),
    b"tab\tand\x1b[31mescape.tif",
    b"UPPER.TIFF",
    b"n" * 240 + b".tif",
    b"a/x..b/c .tif",
]


class Fed:
    """A running service, the strips that it was fed, and what it published of them."""

    def __init__(self, box: Box, subscriber: Subscriber) -> None:
        self.box = box
        self.subscriber = subscriber
        self.number = 0

    def result_of(self, name: str) -> dict[str, Any]:
        """Wait for the result of a file, by the name that is published."""

        def results() -> list[dict[str, Any]]:
            return [result for result in unique_results(self.subscriber).values() if result["file"] == name]

        wait_for(results, f"{name} has a result (see {self.box.log_file})")
        assert len(results()) == 1
        return results()[0]


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Iterator[Fed]:
    """Run one service for all bad files, with little patience for half written ones."""
    folder = tmp_path_factory.mktemp("bad")
    with Box(folder, broker.port, checks={"incomplete_seconds": 1.0}) as box:
        difference_model(box.inbox / "model.onnx")
        box.start()
        with Subscriber(broker.port) as subscriber:
            yield Fed(box, subscriber)


@pytest.fixture(scope="module")
def bad_results(fed: Fed, good_strip: Path) -> dict[str, dict[str, Any]]:
    """Drop all bad files at once, a good one behind each; give the results by file name."""
    inside = fed.box.camera() / "bad"
    inside.mkdir()
    for number, kind in enumerate(KINDS):
        # Built where no pattern matches, then renamed: a camera's file appears at once.
        BAD_STRIPS[kind][0](inside / f"{number:02}.building")
        (inside / f"{number:02}.building").rename(inside / f"{number:02}.tif")
        drop_file(good_strip, inside / f"{number:02}-next.tif")
    fed.box.wait_until_published(2 * len(KINDS))
    wait_for(lambda: len(unique_results(fed.subscriber)) >= 2 * len(KINDS), "the subscriber has them as well")
    return {result["file"]: result for result in unique_results(fed.subscriber).values()}


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)))
def test_a_bad_strip_is_invalid_with_its_own_reason(
    bad_results: dict[str, dict[str, Any]], number: int, kind: str
) -> None:
    """What cannot be judged is published as invalid with the reason; the strip behind it is judged."""
    if kind in READABLE_BY_ROOT and os.geteuid() == 0:
        pytest.skip("root reads it; test_a_service_that_may_not_read_a_strip is for this")
    result = bad_results[f"bad/{number:02}.tif"]
    assert (result["verdict"], result["reason"]) == ("invalid", BAD_STRIPS[kind][1])
    assert (result["score"], result["quality"], result["verdict_code"]) == (-1.0, 0, 2)
    assert result["heatmap_path"] == result["preview_path"] == ""
    assert bad_results[f"bad/{number:02}-next.tif"]["verdict"] == "ok"


def test_thirty_kinds_with_thirty_reasons_and_one_worker(fed: Fed, bad_results: dict[str, dict[str, Any]]) -> None:
    """More than 30 kinds of bad input; the worker that refused them all is the first one still."""
    assert len(bad_results) > 60
    assert fed.box.ask("status")["health"]["worker_restarts"] == 0
    check_audit(fed.box, fed.box.ask("status")["strips"]["seen"])
    check_messages(fed.subscriber)


@pytest.mark.parametrize("name", ODD_NAMES, ids=repr)
def test_odd_names_with_good_content(fed: Fed, good_strip: Path, name: bytes) -> None:
    """A name is only bytes: the strip is judged, shown with escapes, and its heatmap has a harmless name."""
    path = fed.box.camera() / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("in the making")
    shutil.copyfile(good_strip, temporary)
    temporary.rename(path)
    shown = show_name(os.fsdecode(name))
    result = fed.result_of(shown)
    assert result["verdict"] == "ok"
    assert shown.isprintable()
    assert "\n" not in result["file"]
    preview = fed.box.heatmaps / result["preview_path"]
    assert preview.is_file()
    assert preview.resolve().is_relative_to(fed.box.heatmaps.resolve())
    assert set(result["preview_path"]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
    listed = fed.box.cli("strips", "show", result["strip_id"])
    assert listed.returncode == 0
    assert shown in listed.stdout


def test_a_fourth_channel_of_zeros_is_fine(fed: Fed) -> None:
    """Channel 3 is not used and never examined: zeros, or numbers that are none."""
    for name, value in (("zeros.tif", 0.0), ("nans.tif", np.nan)):
        pixels = make_pixels()
        pixels[3] = value
        (fed.box.camera() / f".{name}").write_bytes(encode(pixels))
        (fed.box.camera() / f".{name}").rename(fed.box.camera() / name)
        assert fed.result_of(name)["verdict"] == "ok"


def test_other_files_are_no_strips(fed: Fed, good_strip: Path) -> None:
    """Files that no pattern matches, and what the agent hides itself, are left alone."""
    for name in (".strip-agent-0123456789abcdef", "strip.tif.part", "readme.txt"):
        drop_file(good_strip, fed.box.camera() / name)
    drop_file(good_strip, fed.box.camera() / "behind them.tif")
    fed.result_of("behind them.tif")
    published = {result["file"] for result in unique_results(fed.subscriber).values()}
    assert all(name.lower().endswith((".tif", ".tiff")) for name in published)
    assert "strip.tif" not in published


def test_a_service_that_may_not_read_a_strip(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """An unreadable file is waited for, then invalid; when it becomes readable in time it is judged."""
    with Box(tmp_path / "box", broker.port, checks={"incomplete_seconds": 15.0}) as box:
        box.config["agent"]["name"] = "box2"
        box.write_config()
        difference_model(box.inbox / "model.onnx")
        if os.geteuid() == 0:  # permissions do not bind root, but a root without these capabilities
            if shutil.which("setpriv") is None:
                pytest.skip("needs setpriv (util-linux) to run without root's rights")
            box.program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *box.program]
        box.start()
        with Subscriber(broker.port, "strip-agent/box2/#") as subscriber:
            fed = Fed(box, subscriber)
            for name in ("never.tif", "later.tif"):
                temporary = box.camera() / f".{name}"
                shutil.copyfile(good_strip, temporary)
                temporary.chmod(0)
                temporary.rename(box.camera() / name)
            wait_for(lambda: box.ask("status")["strips"]["pending"] == 2, "both are begun")
            (box.camera() / "later.tif").chmod(0o644)
            assert fed.result_of("later.tif")["verdict"] == "ok"
            result = fed.result_of("never.tif")
            assert (result["verdict"], result["reason"]) == ("invalid", Reason.UNREADABLE)
            assert fed.box.stop() == 0
