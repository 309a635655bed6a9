"""One box under load, and everything that may be pushed to it and must not get in.

One service takes the whole tour. After each push the old model is still active; at the end every strip has been scored
exactly once, by that model.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.contract.manifest import MANIFEST_SUFFIX
from agent.errors import Reason
from tests.helpers.bad_models import BAD_BYTES, hard_linked_data
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.pushing import Signer, make_manifest, push, put, put_manifest
from tests.models.line import DOCS, Line, Plant, check_results, model_events, wait_for_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


VERSION = 10
SETTLE_SECONDS = 0.2


class Tour:
    """The running box, its line and its good model."""

    def __init__(self, folder: Path, port: int, strips: list[Path]) -> None:
        self.ours, self.second, self.foreign = Signer(), Signer(), Signer()
        folder.mkdir(exist_ok=True)
        keys = [key.write_public_key(folder / f"{key.key_id}.pem") for key in (self.ours, self.second)]
        self.box = Plant(
            folder,
            port,
            cameras=("top", "side"),
            models={
                "settle_seconds": SETTLE_SECONDS,
                "require_signature": True,
                "trusted_keys": [str(key) for key in keys],
                "trial": {"seconds": 20.0, "memory_mib": 512},
                "probation": {"max_latency_ratio": 5.0, "strips": 0},
            },
        )
        self.subscriber = Subscriber(port)
        self.line = Line(self.box, strips, 0.5)
        self.number = 0
        self.refused: dict[str, str] = {}  # file -> reason, of all the stops so far
        self.good = ""

    def path(self, end: str = "") -> Path:
        """Give the next file's path in the inbox."""
        self.number += 1
        return self.box.inbox / f"{self.number:02}{end}.onnx"

    def expect_refusal(self, file: str, reason: Reason) -> dict[str, Any]:
        """Wait until the file is refused for this reason, and see that all places say so."""
        # where this test is held up between a model and its manifest, what is missing is refused first
        what = f"{file} is refused (see {self.box.log_file})"
        state = wait_for_state(self.subscriber, what, last_refused_file=file, last_refused_reason=reason)
        assert state["active_sha256"] == self.good
        assert len(state["last_refused_detail"]) > 10
        row = self.box.model(file)
        assert row is not None
        assert (row["state"], row["reason"], row["detail"]) == ("rejected", reason, state["last_refused_detail"])
        self.refused[file] = reason
        self.expect_no_change()
        return state

    def expect_unchanged(self, file: str) -> None:
        """Wait until it is told that the file brings nothing new."""

        def is_told() -> bool:
            return any(event["file"] == file for event in model_events(self.subscriber, "unchanged"))

        wait_for(is_told, f"{file} is known (see {self.box.log_file})")
        self.expect_no_change()

    def expect_no_change(self) -> None:
        """See that the good model is active, that its worker has the strips, and that the store holds nothing else."""
        status = self.box.ask("status")
        assert status["models"]["default"]["active_sha256"] == self.good
        assert status["workers"]["default"]["model_sha256"] == self.good
        assert [path.stem for path in (self.box.state / "store").glob("*.onnx")] == [self.good]
        slots = self.box.state / "store" / "slots"
        wait_for(lambda: not list(slots.glob("*.candidate")), "no candidate is left in the store")


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory, strips: list[Path]) -> Iterator[Tour]:
    """Start the box with its good model and its line; at the end nothing is lost and nothing was scored by others."""
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield from _run(Tour(tmp_path_factory.mktemp("tour"), broker.port, strips))


def _run(tour: Tour) -> Iterator[Tour]:
    with tour.box, tour.subscriber:
        tour.box.start()
        tour.good = push(tour.path(), lambda path: difference_model(path, version=VERSION), tour.ours, version=VERSION)
        tour.box.wait_until_active(tour.good)
        with tour.line:
            yield tour
        found = check_results(tour.box, tour.subscriber, tour.line.names)
        assert {result["model_sha256"] for result in found} == {tour.good}
        assert {result["verdict"] for result in found} == {"ok", "anomalous"}
        assert [event["sha256"] for event in model_events(tour.subscriber, "activated")] == [tour.good]
        assert tour.box.stop() == 0


@pytest.mark.parametrize("kind", BAD_BYTES)
def test_bad_bytes_are_refused_whoever_signed_them(tour: Tour, kind: str) -> None:
    """The signature is good, the model is not: the reason says what is wrong with it."""
    reason, write = BAD_BYTES[kind]
    path = put(tour.path(), write)
    is_huge = kind == "2 GiB sparse"  # its digest would take seconds
    put_manifest(path, make_manifest(tour.box.inbox / "01.onnx" if is_huge else path), tour.ours)
    state = tour.expect_refusal(path.name, reason)
    assert bool(state["last_refused_sha256"]) == (kind not in ("empty", "2 GiB sparse"))


def test_external_data_in_a_file_of_a_second_name_is_not_read(tour: Tour, tmp_path: Path) -> None:
    """A hard link beside the model would pass checks of its path."""
    path = tour.path()
    hard_linked_data(path, tmp_path / "elsewhere")
    put_manifest(path, make_manifest(path), tour.ours)
    tour.expect_refusal(path.name, Reason.MODEL_UNREADABLE)


def good_model(tour: Tour, *, version: int = 99) -> Path:
    """Put a model into the inbox that would be accepted with the right papers."""
    path = tour.path()
    return put(path, lambda part: difference_model(part, version=version, salt=tour.number))


def test_a_model_without_manifest_is_refused(tour: Tour) -> None:
    """Where signatures are required a model alone is nobody's."""
    path = good_model(tour)
    tour.expect_refusal(path.name, Reason.MANIFEST_MISSING)


def test_an_unsigned_manifest_is_refused(tour: Tour) -> None:
    """Anybody can write a manifest."""
    path = good_model(tour)
    put_manifest(path, make_manifest(path), None)
    tour.expect_refusal(path.name, Reason.SIGNATURE_MISSING)


def test_a_strangers_signature_is_refused(tour: Tour) -> None:
    """A good signature with a key that the box does not trust."""
    path = good_model(tour)
    put_manifest(path, make_manifest(path), tour.foreign)
    tour.expect_refusal(path.name, Reason.KEY_UNKNOWN)


def test_a_signature_of_another_text_is_refused(tour: Tour) -> None:
    """The manifest was changed after it was signed."""
    path = good_model(tour)
    manifest = put_manifest(path, make_manifest(path, slot="other"), tour.second)
    outer = json.loads(manifest.read_text())
    outer["manifest"] = outer["manifest"].replace('"other"', '"default"')
    put(manifest, lambda part: part.write_text(json.dumps(outer)))
    tour.expect_refusal(path.name, Reason.SIGNATURE_INVALID)


def test_a_model_for_another_slot_is_refused(tour: Tour) -> None:
    """The slot is part of what is signed."""
    path = good_model(tour)
    put_manifest(path, make_manifest(path, slot="other"), tour.second)
    tour.expect_refusal(path.name, Reason.MANIFEST_WRONG_SLOT)


def test_an_older_version_is_refused(tour: Tour) -> None:
    """A good old signature is still good: the version is what stops it."""
    path = good_model(tour, version=VERSION - 1)
    put_manifest(path, make_manifest(path, version=VERSION - 1), tour.ours)
    tour.expect_refusal(path.name, Reason.VERSION_TOO_LOW)


def test_a_version_that_the_model_does_not_know_is_refused(tour: Tour) -> None:
    """The manifest of a newer model does not make an older one newer."""
    path = good_model(tour, version=VERSION - 1)
    put_manifest(path, make_manifest(path, version=99), tour.ours)
    tour.expect_refusal(path.name, Reason.MANIFEST_CONTRADICTED)


def test_a_manifest_without_a_model_is_refused(tour: Tour, tmp_path: Path) -> None:
    """Somebody who waits for it has to be told."""
    path = tour.path()
    difference_model(tmp_path / "model.onnx")
    put_manifest(path, make_manifest(tmp_path / "model.onnx"), tour.ours)
    tour.expect_refusal(path.name, Reason.MODEL_MISSING)


def test_a_manifest_that_is_none_is_refused(tour: Tour) -> None:
    """Text that is no manifest."""
    path = good_model(tour)
    put(path.with_name(path.name + MANIFEST_SUFFIX), lambda part: part.write_text('{"manifest": 1}'))
    tour.expect_refusal(path.name, Reason.MANIFEST_MALFORMED)


def test_a_file_that_changed_after_its_manifest_is_refused(tour: Tour) -> None:
    """The signature is of other bytes."""
    path = tour.path()
    put(path, lambda part: difference_model(part, version=99, golden_shift=0.5))
    manifest = make_manifest(path)
    put(path, lambda part: difference_model(part, version=99, salt=tour.number))
    put_manifest(path, manifest, tour.ours)
    tour.expect_refusal(path.name, Reason.DIGEST_MISMATCH)


def write_slowly(path: Path, data: bytes, before: float) -> float:
    """Write a file as a slow upload does; return the longest time, from `before` on, in which nothing came."""
    longest = 0.0
    with path.open("wb") as file:
        for position in range(0, len(data), len(data) // 40):
            file.write(data[position : position + len(data) // 40])
            file.flush()
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
            time.sleep(SETTLE_SECONDS / 4)  # the pace of a slow upload
    return longest


def test_a_file_that_is_still_being_written_is_left_alone(tour: Tour) -> None:
    """It is looked at once, when it is complete, and only then refused for what it is."""
    source = tour.box.folder / "source.onnx"
    longest_pause = SETTLE_SECONDS
    while longest_pause > 0.75 * SETTLE_SECONDS:  # a writer that was held up itself shows nothing
        path = tour.path()
        difference_model(source, version=99, salt=tour.number, golden_shift=0.02)
        manifest, before = make_manifest(source), time.monotonic()
        put_manifest(path, manifest, tour.ours)
        longest_pause = write_slowly(path, source.read_bytes(), before)
    tour.expect_refusal(path.name, Reason.GOLDEN_MISMATCH)
    told = [event["reason"] for event in model_events(tour.subscriber) if event["file"] == path.name]
    assert told == [Reason.GOLDEN_MISMATCH]


def test_a_file_that_is_replaced_again_and_again_is_judged_as_a_whole(tour: Tour) -> None:
    """Whatever moment it is copied at, its bytes are those of one push."""
    path = tour.path()
    for number in range(40):
        put(path, lambda part, number=number: part.write_bytes(b"%d" % number * 1_000_000))  # type: ignore[misc]
        time.sleep(0.02)  # the pace of somebody who cannot decide
    put(path, lambda part: difference_model(part, version=99, golden_shift=0.03))
    put_manifest(path, make_manifest(path), tour.ours)
    tour.expect_refusal(path.name, Reason.GOLDEN_MISMATCH)


def test_a_symbolic_link_is_not_followed(tour: Tour, tmp_path: Path) -> None:
    """A link may point to anything that the box can read."""
    path = tour.path()
    difference_model(tmp_path / "model.onnx", version=99)
    path.symlink_to(tmp_path / "model.onnx")
    put_manifest(path, make_manifest(path), tour.ours)
    tour.expect_refusal(path.name, Reason.SYMLINK)


def test_a_hard_link_is_refused(tour: Tour, tmp_path: Path) -> None:
    """Somebody else could change the file under another name."""
    path = tour.path()
    difference_model(tmp_path / "model.onnx", version=99)
    os.link(tmp_path / "model.onnx", path)
    put_manifest(path, make_manifest(path), tour.ours)
    tour.expect_refusal(path.name, Reason.HARD_LINK)


def test_a_pipe_is_refused_and_nobody_waits_for_it(tour: Tour, tmp_path: Path) -> None:
    """To open a pipe would wait for somebody who writes."""
    path = tour.path()
    os.mkfifo(path)
    difference_model(tmp_path / "model.onnx", version=99)
    put_manifest(path, make_manifest(tmp_path / "model.onnx"), tour.ours)
    tour.expect_refusal(path.name, Reason.NOT_A_REGULAR_FILE)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_is_refused_unopened(tour: Tour, tmp_path: Path) -> None:
    """To open a device can already do something."""
    path = tour.path()
    os.mknod(path, 0o020644, os.makedev(1, 5))
    difference_model(tmp_path / "model.onnx", version=99)
    put_manifest(path, make_manifest(tmp_path / "model.onnx"), tour.ours)
    tour.expect_refusal(path.name, Reason.NOT_A_REGULAR_FILE)


def test_a_folder_is_refused(tour: Tour, tmp_path: Path) -> None:
    """A folder with the name of a model."""
    path = tour.path()
    path.mkdir()
    difference_model(tmp_path / "model.onnx", version=99)
    put_manifest(path, make_manifest(tmp_path / "model.onnx"), tour.ours)
    tour.expect_refusal(path.name, Reason.NOT_A_REGULAR_FILE)


@pytest.mark.parametrize("odd", ["\n", "\\..\\x", "\x1b[2J", "\udcff"])
def test_odd_names_are_refused_and_shown_escaped(tour: Tour, odd: str) -> None:
    """No name reaches a terminal, a path or a subscriber as it is."""
    path = tour.path(odd)
    push(path, lambda part: difference_model(part, version=99), tour.ours)
    shown = {"\n": "\\n", "\\..\\x": "\\\\..\\\\x", "\x1b[2J": "\\x1b[2J", "\udcff": "\\xff"}[odd]
    tour.expect_refusal(path.name.replace(odd, shown), Reason.FILE_NAME)


def test_the_active_bytes_under_another_name_are_a_no_op(tour: Tour) -> None:
    """A push that brings nothing new is recorded, and nothing is loaded again."""
    worker = tour.box.ask("status")["workers"]["default"]["pid"]
    path = tour.path()
    push(path, lambda part: difference_model(part, version=VERSION), tour.second, version=VERSION)
    tour.expect_unchanged(path.name)
    assert tour.box.ask("status")["workers"]["default"]["pid"] == worker


def test_the_same_rejected_bytes_again_are_a_no_op(tour: Tour) -> None:
    """They are not tried again under another name, and the old reason is told."""
    path = tour.path()
    push(path, lambda part: difference_model(part, version=99, golden_shift=0.04), tour.ours)
    tour.expect_refusal(path.name, Reason.GOLDEN_MISMATCH)
    again = tour.path()
    shutil.copy(path, again.with_name(".part"))
    again.with_name(".part").rename(again)
    put_manifest(again, make_manifest(again), tour.ours)
    tour.expect_unchanged(again.name)
    (event,) = [event for event in model_events(tour.subscriber, "unchanged") if event["file"] == again.name]
    assert event["reason"] == Reason.GOLDEN_MISMATCH
    wait_for_state(tour.subscriber, "it is the last one refused", last_refused_file=again.name)


def test_every_refusal_of_the_tour_can_be_read_on_the_command_line(tour: Tour) -> None:
    """`strip-agent models list` names each file with its reason, and docs/reasons.md explains the reason."""
    shown = tour.box.cli("models", "list").stdout
    explained = (DOCS / "reasons.md").read_text()
    for file, reason in tour.refused.items():
        assert any(file in line and f"{reason}: " in line for line in shown.splitlines()), (file, reason, shown)
        assert f"`{reason}`" in explained
