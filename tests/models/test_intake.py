"""Whatever is in the inbox, and whatever becomes of its folder, costs pushes and nothing else."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.disks import needs_fuse, needs_root, remote_share
from tests.faults.reliability import Row, tell
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.programs import needs
from tests.helpers.pushing import push
from tests.helpers.soak import SHARE, share_of
from tests.models.line import Line, Plant, check_results, model_events

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.disks import Share
    from tests.helpers.broker import Broker, Subscriber


def kill_the_worker(box: Plant) -> None:
    """Kill it, and wait for another that has the strips."""
    before = box.ask("status")["workers"]["default"]["pid"]
    (worker,) = [worker for worker in box.workers() if worker.pid == before]
    worker.kill()

    def is_replaced() -> bool:
        return box.ask("status")["workers"]["default"]["pid"] not in (before, None)

    wait_for(is_replaced, "a killed worker is replaced")


def judge(box: Plant, strips: list[Path], line: Line | None = None, number: int = 5) -> list[str]:
    """Let strips come and see that all are judged."""
    first = len(line.names) if line is not None else 0
    with Line(box, strips, 0.05, first=first) as more:
        wait_for(lambda: len(more.names) >= number, "strips come")
    box.wait_until_published(first + len(more.names))
    return more.names


def junk(box: Plant, number: int) -> None:
    """Fill the inbox with files that are no models: empty ones, nonsense, links, lonely manifests."""
    for count in range(number):
        path = box.inbox / f"junk{count:06}.onnx"
        if count % 4 == 0:
            path.touch()
        elif count % 4 == 1:
            path.write_bytes(b"nonsense %d" % count)
        elif count % 4 == 2:
            path.symlink_to("/dev/zero")
        else:
            path.with_name(f"{path.name}.manifest.json").write_text("{}")


@pytest.mark.parametrize("number", [3000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_junk_in_the_inbox_changes_nothing_for_strips_pushes_and_the_start(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path], number: int
) -> None:
    """Files that are no models are dealt with one by one, behind everything else."""
    soaks = number > 3000
    number = share_of(number, 3000) if soaks else number
    with Plant(tmp_path / "box", broker.port, cameras=("top", "side")) as box:
        box.start()
        one = push(box.inbox / "1.onnx", lambda path: difference_model(path, version=1))
        box.wait_until_active(one)
        assert box.stop() == 0
        junk(box, number)
        began = time.monotonic()
        box.start()
        with Line(box, strips, 0.1) as line:
            wait_for(lambda: box.ask("status")["strips"]["acknowledged"] > 0, "the first strip is judged")
            first_strip = time.monotonic() - began
            kill_the_worker(box)
            began = time.monotonic()
            two = push(box.inbox / "2.onnx", lambda path: difference_model(path, version=2))
            box.wait_until_active(two)
            pushed = time.monotonic() - began
            left = number - len(model_events(subscriber, "rejected"))
            kill_the_worker(box)
            assert left > 0, "the junk was dealt with before: this showed nothing"
        check_results(box, subscriber, line.names)
        assert "no progress" not in box.log
    promise = "strips, pushes and the start as ever; the junk is dealt with one file at a time, behind everything else"
    figures = f"first strip after {first_strip:.1f} s, a push active after {pushed:.1f} s, {left} files left by then"
    how = f"{number} empty files, nonsense, links and lonely manifests; start, a push, two killed workers"
    run, share = ("soak", SHARE) if soaks else ("test", 1.0)
    tell(Row("Models", "inbox full of junk", promise, how, figures, run, share=share))  # type: ignore[arg-type] # one of two


def test_junk_is_dealt_with_one_file_at_a_time_and_not_again(tmp_path: Path, broker: Broker) -> None:
    """Refusals and superseded files are told while nothing waits for them; a restart does not begin anew."""
    with Plant(tmp_path / "box", broker.port) as box:
        junk(box, 16)
        box.start()

        def rows() -> int:
            return len(box.ask("models_list")["models"])

        wait_for(lambda: rows() == 16, "each is told")
        assert box.stop() == 0
        box.start()
        box.wait_until_active(push(box.inbox / "1.onnx", lambda path: difference_model(path, version=1)))
        wait_for(lambda: box.ask("models_list")["inboxes"]["default"]["state"] == "ok", "it has been looked at")
        assert rows() == 17


BUDGET_SECONDS = 15.0  # a machine that stands still for some seconds ends no service


def on_a_share(folder: Path, broker: Broker) -> Plant:
    """Make a box whose loops are given up soon when they do not move, as systemd would."""
    box = Plant(folder / "box", broker.port)
    settings = json.loads(box.settings.read_text())
    settings["constants"] |= {
        "agent.models.intake.UNREACHABLE_SECONDS": 2.0,
        "agent.loops.BUDGET_SECONDS": dict.fromkeys(("strips", "publisher", "models", "control"), BUDGET_SECONDS),
    }
    box.settings.write_text(json.dumps(settings))
    return box


WATCHED = {"WATCHDOG_USEC": "1000000"}


def put(share: Share, folder: Path, name: str, version: int) -> str:
    """Let the other machine push a model; return its digest."""
    sha256 = push(folder / name, lambda path: difference_model(path, version=version))
    share.put(folder / name, name)
    return sha256


@needs_fuse
def test_an_inbox_that_hangs_costs_only_pushes(
    tmp_path: Path, broker: Broker, subscriber: Subscriber, strips: list[Path]
) -> None:
    """A killed worker is replaced, strips are judged, the heart beats, and an alarm says why nothing is taken."""
    with on_a_share(tmp_path, broker) as box, remote_share(box.inbox) as share:
        box.start(env=WATCHED)
        one = put(share, tmp_path, "1.onnx", 1)
        box.wait_until_active(one)
        share.hang()
        wait_for(lambda: "slot_default_inbox_unreachable" in box.ask("status")["health"]["alarms"], "the alarm")
        kill_the_worker(box)
        with Line(box, strips, 0.1) as line:
            wait_for(lambda: len(line.names) > 20, "strips come")
        check_results(box, subscriber, line.names)
        assert "is unreachable" in box.cli("models", "list").stdout
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > BUDGET_SECONDS + 1, "longer than the heart waits for a loop")
        assert "no progress" not in box.log
        share.come_back()
        two = put(share, tmp_path, "2.onnx", 2)
        box.wait_until_active(two)
        wait_for(lambda: "inbox" not in box.ask("status")["health"]["alarms"], "the alarm is over")
        assert box.stop() == 0
    promise = "a killed worker is replaced, strips are judged, an alarm; pushes are taken when it answers again"
    how = "a FUSE share whose server is stopped, longer than a loop may stand still; a killed worker meanwhile"
    tell(Row("Models", "inbox on a share that hangs", promise, how, f"{len(line.names)} strips judged meanwhile"))


@needs_fuse
def test_a_box_starts_and_stops_while_its_inbox_hangs(tmp_path: Path, broker: Broker, strips: list[Path]) -> None:
    """With the model that it has."""
    with on_a_share(tmp_path, broker) as box, remote_share(box.inbox) as share:
        box.start(env=WATCHED)
        one = put(share, tmp_path, "1.onnx", 1)
        box.wait_until_active(one)
        assert box.stop() == 0
        share.hang()
        box.start(env=WATCHED)
        box.wait_until_active(one)
        judge(box, strips)
        assert box.stop() == 0
        share.come_back()


@needs_fuse
def test_an_inbox_at_100_kb_a_second_costs_pushes_time(tmp_path: Path, broker: Broker, strips: list[Path]) -> None:
    """A model is copied for as long as it takes; strips are judged meanwhile, the heart beats, nothing is refused."""
    with on_a_share(tmp_path, broker) as box, remote_share(box.inbox) as share:
        box.start(env=WATCHED)
        box.wait_until_active(put(share, tmp_path, "1.onnx", 1))
        share.slow_down(100_000)
        two = put(share, tmp_path, "2.onnx", 2)
        judge(box, strips)
        box.wait_until_active(two)
        assert "no progress" not in box.log
        assert box.stop() == 0


@needs("setpriv")
@needs_root
def test_an_inbox_that_may_not_be_read_raises_an_alarm_and_costs_pushes_only(
    tmp_path: Path, broker: Broker, strips: list[Path]
) -> None:
    """What is pushed meanwhile is taken when it may be read again."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.program = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *box.program]
        box.start()
        box.wait_until_active(push(box.inbox / "1.onnx", lambda path: difference_model(path, version=1)))
        box.inbox.chmod(0)
        wait_for(lambda: "slot_default_inbox_unreadable" in box.ask("status")["health"]["alarms"], "the alarm")
        judge(box, strips)
        two = push(box.inbox / "2.onnx", lambda path: difference_model(path, version=2))
        box.inbox.chmod(0o755)
        box.wait_until_active(two)
        wait_for(lambda: "inbox" not in box.ask("status")["health"]["alarms"], "the alarm is over")
        assert box.stop() == 0


def test_an_inbox_that_is_away_raises_an_alarm_and_costs_nothing_else(
    tmp_path: Path, broker: Broker, subscriber: Subscriber
) -> None:
    """And what was in it has still been dealt with when it is back."""
    with Plant(tmp_path / "box", broker.port) as box:
        box.start()
        box.wait_until_active(push(box.inbox / "1.onnx", lambda path: difference_model(path, version=1)))
        two = push(box.inbox / "2.onnx", lambda path: difference_model(path, version=2))
        box.wait_until_active(two)
        aside = box.inbox.with_name("aside")
        box.inbox.rename(aside)
        wait_for(lambda: "slot_default_inbox_missing" in box.ask("status")["health"]["alarms"], "the alarm")
        assert "is missing" in box.cli("models", "list").stdout
        aside.rename(box.inbox)
        wait_for(lambda: "inbox" not in box.ask("status")["health"]["alarms"], "the alarm is over")
        box.wait_until_active(push(box.inbox / "3.onnx", lambda path: difference_model(path, version=3)))
        wait_for(lambda: len(model_events(subscriber)) >= 3, "all are told")
        assert {event["event"] for event in model_events(subscriber)} == {"activated"}
        shutil.rmtree(box.inbox)
        assert box.stop() == 0
