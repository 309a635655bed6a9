"""Starting, stopping, being asked, being watched: what systemd and people see of the service."""

from __future__ import annotations

import json
import platform
import re
import shutil
import signal
import socket
import sqlite3
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.checks import check_audit, check_messages
from tests.helpers.box import Box, drop_file, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self


@pytest.fixture(scope="module")
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """Listen to the module's box."""
    with Subscriber(broker.port, "strip-agent/box1/#") as subscriber:
        yield subscriber


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, broker: Broker, subscriber: Subscriber) -> Iterator[Box]:
    """Run a service that has judged a good strip, a defect and a broken one."""
    folder = tmp_path_factory.mktemp("service")
    with Box(folder, broker.port) as box:
        difference_model(box.inbox / "model.onnx")
        box.start()
        write_strip(folder / "good.tif")
        write_strip(folder / "defect.tif", defect=True)
        (folder / "broken.tif").write_bytes(b"no picture")
        for name in ("good.tif", "defect.tif", "broken.tif"):
            drop_file(folder / name, box.camera() / name)
        wait_for_results(subscriber, 3)
        box.wait_until_published(3)
        yield box


def said(box: Box, *arguments: str, code: int = 0, process: bool = False) -> str:
    """Run a command, in a process of its own if asked, check its exit code and give what it printed."""
    done = (box.cli_process if process else box.cli)(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def facts(box: Box, *arguments: str, code: int = 0, process: bool = False) -> dict[str, Any]:
    """Run a command with --json and give what it printed."""
    done: dict[str, Any] = json.loads(said(box, *arguments, "--json", code=code, process=process))
    return done


def check_commands(box: Box, *, running: bool) -> None:
    """Ask everything that can be asked."""
    if running:
        box.wait_until_published(3)
    status = facts(box, "status", process=True)
    assert status["running"] is running
    assert status["strips"]["acknowledged"] == 3
    assert ("health" in status) is running
    shown = said(box, "status")
    assert "box1" in shown
    assert ("not running" not in shown) is running
    assert facts(box, "audit", process=True)["strips"] == status["strips"]
    assert "balanced" in said(box, "audit")
    assert "balanced" in said(box, "audit", "--since", "1d")
    listed = facts(box, "strips", "list")["strips"]
    assert {(strip["file"], strip["state"]) for strip in listed} == {
        ("good.tif", "ok"),
        ("defect.tif", "anomalous"),
        ("broken.tif", "invalid"),
    }
    (invalid,) = facts(box, "strips", "list", "--state", "invalid")["strips"]
    assert invalid["reason"] == "not_a_tiff"
    assert "not_a_tiff" in said(box, "strips", "list")
    shown = said(box, "strips", "show", invalid["strip_id"][:8])
    assert "broken.tif" in shown
    assert "not_a_tiff" in shown
    assert re.search(r"^  detail +begins with .+; a TIFF begins with II or MM", shown, re.MULTILINE), shown
    assert "no strip" in said(box, "strips", "show", "ffffffffffffffff", code=1, process=True)
    (model,) = facts(box, "models", "list")["models"]
    assert model["state"] == "active"
    assert model["sha256"][:12] in said(box, "models", "list")
    assert "there is no state" in said(box, "strips", "list", "--state", "nonsense", code=1)


def arenas(pid: int) -> int:
    """Count glibc's arenas beside the main one: 64 MiB of addresses each, at a multiple of that, partly in use."""
    mib64 = 64 << 20
    parts = []
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
        edges, rights, *rest = line.split()
        if len(rest) == 3:  # it is of no file
            start, end = (int(edge, 16) for edge in edges.split("-"))
            parts.append((start, end, rights))
    return sum(
        used == "rw-p" and kept == "---p" and start % mib64 == 0 and end == middle and last == start + mib64
        for (start, end, used), (middle, last, kept) in pairwise(parts)
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's arenas")
def test_the_supervisor_has_few_arenas(box: Box) -> None:
    """Each keeps free memory between what is in use; by itself glibc makes one for each of its first threads."""
    assert box.process is not None
    assert arenas(box.process.pid) == 1


def test_commands_while_the_service_runs(box: Box) -> None:
    """Every command asks the running service over its control socket."""
    check_commands(box, running=True)


def test_retry_makes_a_second_revision(box: Box, subscriber: Subscriber) -> None:
    """The strip is judged again: another result, another message, heatmaps beside the old ones, one strip."""
    (strip,) = facts(box, "strips", "list", "--state", "anomalous")["strips"]
    assert facts(box, "strips", "retry", strip["strip_id"])["retried"] == [strip["strip_id"]]
    wait_for_results(subscriber, 4)
    first, second = sorted(
        (result for result in unique_results(subscriber).values() if result["strip_id"] == strip["strip_id"]),
        key=lambda result: int(result["revision"]),
    )
    assert (first["revision"], second["revision"]) == (1, 2)
    assert first["msg_id"] != second["msg_id"]
    assert first["score"] == second["score"]
    assert first["preview_path"] != second["preview_path"]
    assert (box.heatmaps / first["preview_path"]).read_bytes() != b""
    assert (box.heatmaps / second["preview_path"]).is_file()
    box.wait_until_published(3)
    shown = facts(box, "strips", "show", strip["strip_id"])["strip"]
    assert [result["revision"] for result in shown["results"]] == [1, 2]
    refused = facts(box, "strips", "retry", "0000000000000000", code=1)
    assert refused["refused"] == {"0000000000000000": "no such strip"}
    assert "name strips" in said(box, "strips", "retry", code=2, process=True)


def test_a_second_service_on_the_same_state_folder(box: Box) -> None:
    """It refuses with a sentence and leaves the first one alone."""
    shown = said(box, "run", code=1, process=True)
    assert "another strip-agent owns" in shown
    assert box.ask("status")["running"]


def test_commands_while_the_service_does_not_run(box: Box, subscriber: Subscriber) -> None:
    """The same commands take the lock and answer from the ledger; what needs a worker says so."""
    check_messages(subscriber)
    assert box.stop() == 0
    check_commands(box, running=False)
    assert "not running" in said(box, "models", "rollback", code=1)
    (strip,) = facts(box, "strips", "list", "--state", "ok")["strips"]
    said(box, "strips", "retry", strip["strip_id"])
    box.start()
    wait_for_results(subscriber, 5)
    box.wait_until_published(3)


def test_the_state_after_a_clean_stop(box: Box, subscriber: Subscriber) -> None:
    """The last words are retained: offline, and why."""
    assert box.stop() == 0
    wait_for(lambda: not agent_state(subscriber)["online"], "it says goodbye")
    assert agent_state(subscriber)["reason"] == "shutdown"
    box.start()
    wait_for(lambda: agent_state(subscriber)["online"] is True, "it is back")


def agent_state(subscriber: Subscriber) -> dict[str, Any]:
    """Give the newest `state/agent`."""
    state: dict[str, Any] = json.loads(subscriber.payloads("state/agent")[-1])
    return state


def test_the_audit_notices_a_ledger_that_was_tampered_with(box: Box) -> None:
    """A row that nobody accounts for makes the audit fail, with a sentence and exit code 1."""
    assert box.stop() == 0
    copy = box.folder / "state copy"
    shutil.copytree(box.state, copy)
    for change, sign in (
        ("DELETE FROM outbox WHERE seq = 2", "results have no message"),
        ("UPDATE counters SET n = n + 1 WHERE kind = 'seen'", "NOT BALANCED"),
        ("UPDATE strips SET state = 'ok' WHERE state = 'invalid'", "no acknowledged message says so"),
        ("DELETE FROM results WHERE seq = 1", "sequence numbers have no result"),
    ):
        with closing(sqlite3.connect(box.state / "ledger.db", isolation_level=None)) as ledger:
            for (trigger,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                ledger.execute(f"DROP TRIGGER {trigger}")
            ledger.execute(change)
        assert sign in said(box, "audit", code=1, process=True)
        assert facts(box, "audit", code=1)["balanced"] is False
        shutil.rmtree(box.state)
        shutil.copytree(copy, box.state)
    assert "balanced" in said(box, "audit")


def test_check_config_names_every_problem_with_its_line(box: Box) -> None:
    """Exit 78, all problems at once; the service itself refuses the same way."""
    good = box.config_file.read_text()
    said(box, "check-config", process=True)
    try:
        box.config_file.write_text(f"{good}\nnonsense: 1\noutbox: {{max_messages: -5}}\nscoring: {{methd: max}}\n")
        shown = said(box, "check-config", code=78, process=True)
        for sign in ("nonsense", "max_messages", "methd", "line "):
            assert sign in shown
        assert facts(box, "check-config", code=78, process=True)["ok"] is False
        assert "nonsense" in said(box, "run", code=78, process=True)
    finally:
        box.config_file.write_text(good)


def test_score_needs_no_service(box: Box, tmp_path: Path) -> None:
    """The same judgement without service, ledger or broker; exit 1 as soon as one strip is invalid."""
    model = box.inbox / "model.onnx"
    heatmaps = tmp_path / "heatmaps"
    good, defect = (str(box.folder / name) for name in ("good.tif", "defect.tif"))
    done = box.cli_process("score", good, defect, "--model", str(model), "--heatmaps", str(heatmaps), "--json")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["verdict"], second["verdict"]) == ("ok", "anomalous")
    assert (heatmaps / second["heatmap_path"]).is_file()
    listed = {strip["file"]: strip for strip in facts(box, "strips", "list")["strips"]}
    assert second["score"] == pytest.approx(listed["defect.tif"]["score"], abs=1e-6)
    bad = box.cli_process("score", good, str(box.folder / "broken.tif"), "--model", str(model))
    assert bad.returncode == 1
    assert "not_a_tiff" in bad.stdout
    assert "model_unreadable" in said(box, "score", good, "--model", good, code=1, process=True)


def test_wrong_usage(box: Box) -> None:
    """Unknown commands and options end with 2 and a hint."""
    assert "No such command" in said(box, "fly", code=2, process=True)
    assert "Missing argument" in said(box, "strips", "show", code=2, process=True)


STRIPS_FOR_A_STOP = 30  # a second each: so long the stop may be late


def slow_box(folder: Path, port: int, name: str) -> Box:
    """Make a box whose worker takes a second for a strip, so that a stop comes in the middle of one."""
    box = Box(folder / "box", port, agent={"name": name})
    box.program = [sys.executable, "-m", "tests.e2e.faulty", str(folder / "switches")]
    (folder / "switches").mkdir()
    (folder / "switches" / "slow").touch()
    difference_model(box.inbox / "model.onnx")
    return box


def test_sigterm_drains_and_leaves_nothing_half_done(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """What a worker holds is finished, recorded and published; the rest waits in the ledger; exit 0."""
    with (
        slow_box(tmp_path, broker.port, "drained") as box,
        Subscriber(broker.port, "strip-agent/drained/#") as subscriber,
    ):
        box.start()
        for number in range(STRIPS_FOR_A_STOP):
            drop_file(good_strip, box.camera() / f"{number} slow.tif")
        wait_for((tmp_path / "switches" / "slow.began").exists, "a strip is being judged")
        assert box.stop() == 0
        assert not box.workers()
        audit = box.audit()["strips"]
        assert audit["judged"] == 0
        assert audit["acknowledged"] >= 1
        wait_for(lambda: len(unique_results(subscriber)) == audit["acknowledged"], "they arrive")
        assert audit["waiting"] == STRIPS_FOR_A_STOP - audit["acknowledged"] > 0
        assert not list(box.heatmaps.rglob(".*"))
        (tmp_path / "switches" / "slow").unlink()
        box.start()
        box.wait_until_published(STRIPS_FOR_A_STOP)
        check_audit(box, STRIPS_FOR_A_STOP)


def test_a_second_sigterm_forces(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """Then it ends at once with 1; nothing is lost by it."""
    with slow_box(tmp_path, broker.port, "forced") as box:
        (tmp_path / "switches" / "hang").touch()
        box.start()
        drop_file(good_strip, box.camera() / "hang.tif")
        wait_for(lambda: any(worker.status() == "stopped" for worker in box.workers()), "the worker hangs")
        assert box.process is not None
        box.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "a second signal forces" in box.log, "it drains")
        box.process.send_signal(signal.SIGTERM)
        assert box.process.wait(120) == 1
        wait_for(lambda: not box.workers(), "no process is left over")
        (tmp_path / "switches" / "hang").unlink()
        box.start()
        box.wait_until_published(1)
        check_audit(box, 1)


class ServiceManager:
    """A datagram socket that keeps what the service tells systemd."""

    def __init__(self, path: Path) -> None:
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        self.lines: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def count(self, line: str) -> int:
        """Take in what has come, and give how often this line did."""
        try:
            while True:
                self.lines += self._socket.recv(65536).decode().splitlines()
        except BlockingIOError:
            return self.lines.count(line)


def test_readiness_watchdog_and_stop_messages(tmp_path: Path, broker: Broker) -> None:
    """Ready once the model is up, a heartbeat while all loops move, a status line, and a word before the end."""
    with (
        ServiceManager(tmp_path / "notify") as manager,
        Box(tmp_path / "box", broker.port, agent={"name": "told"}) as box,
    ):
        difference_model(box.inbox / "model.onnx")
        box.start(env=manager.env)
        wait_for(lambda: manager.count("READY=1") == 1, "it is ready")
        wait_for(lambda: manager.count("WATCHDOG=1") >= 5, "the heart beats")
        wait_for(
            lambda: manager.count("STATUS=ok; 0 strips wait, 0 messages wait, 0 acknowledged"), "it says how it is"
        )
        assert box.stop() == 0
        assert manager.count("STOPPING=1") == 1
        assert manager.count("READY=1") == 1


def test_the_heart_stops_when_a_loop_hangs(tmp_path: Path, broker: Broker) -> None:
    """A publisher that stands still keeps the watchdog message back, so that systemd restarts the service."""
    with (
        ServiceManager(tmp_path / "notify") as manager,
        slow_box(tmp_path, broker.port, "hanging") as box,
    ):
        box.start(env=manager.env)
        wait_for(lambda: manager.count("WATCHDOG=1") >= 3, "the heart beats")
        (tmp_path / "switches" / "publisher").touch()
        wait_for(lambda: "no progress in publisher" in box.log, "it is noticed")

        def beats_in_two_seconds() -> int:
            before = manager.count("WATCHDOG=1")
            uptime_s = box.ask("status")["health"]["uptime_s"]
            wait_for(lambda: box.ask("status")["health"]["uptime_s"] > uptime_s + 2, "time goes by")
            return manager.count("WATCHDOG=1") - before

        wait_for(lambda: beats_in_two_seconds() == 0, "it hangs: on a busy machine it was late once before that")
        assert beats_in_two_seconds() == 0
        beats = manager.count("WATCHDOG=1")
        (tmp_path / "switches" / "publisher").unlink()
        wait_for(lambda: manager.count("WATCHDOG=1") > beats, "the heart beats again")


def test_no_model_then_a_push_heals(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """Without a model the service stays up, accounts for strips and says so; a model in the inbox is all it takes."""
    with (
        Box(tmp_path / "box", broker.port, agent={"name": "empty"}) as box,
        Subscriber(broker.port, "strip-agent/empty/#") as subscriber,
    ):
        box.start()
        drop_file(good_strip, box.camera() / "early.tif")
        wait_for(lambda: box.ask("status")["strips"]["pending"] == 1, "it is begun")
        health = box.ask("status")["health"]
        assert health["status"] == "failing"
        assert "slot_default_no_model" in health["alarms"]
        difference_model(box.inbox / "model.onnx")
        wait_for_results(subscriber, 1)
        check_messages(subscriber)
        assert box.stop() == 0


def test_a_damaged_ledger_is_set_aside_and_said(tmp_path: Path, broker: Broker, good_strip: Path) -> None:
    """The box goes on with a new ledger and a new stream, keeps the old one, and raises an alarm."""
    with (
        Box(tmp_path / "box", broker.port, agent={"name": "damaged"}) as box,
        Subscriber(broker.port, "strip-agent/damaged/#") as subscriber,
    ):
        difference_model(box.inbox / "model.onnx")
        box.start()
        drop_file(good_strip, box.camera() / "a.tif")
        (first,) = wait_for_results(subscriber, 1)
        assert box.stop() == 0
        (box.state / "ledger.db").write_bytes(b"this was a ledger" * 1000)
        box.start()
        assert "ledger_was_damaged" in box.ask("status")["health"]["alarms"]
        wait_for_results(subscriber, 2)  # the file is still there: it is seen as new
        second = next(result for result in unique_results(subscriber).values() if result["stream"] != first["stream"])
        assert (second["seq"], second["file"], second["strip_id"]) == (1, "a.tif", first["strip_id"])
        assert list(box.state.glob("ledger.db.corrupt.*"))
        check_audit(box, 1)
