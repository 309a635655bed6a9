"""The whole demo: it ends well, on both brokers; Ctrl-C ends it with the audit; killing it leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.demo import broker as broker_module
from agent.demo.broker import find_mosquitto
from agent.demo.demo import run_demo
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from pathlib import Path


def _start_endless_demo(folder: Path, until: str = "top_000000") -> tuple[subprocess.Popen[str], str]:
    """Start a demo without end and return, with the line, when it has shown this, by default its first result."""
    command = [sys.executable, "-m", "agent.cli", "demo", "--folder", str(folder)]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    for line in demo.stdout:
        if until in line:
            return demo, line
    demo.stdout.close()
    pytest.fail(f"the demo ended with {demo.wait()} before it showed {until!r}")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def _same_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cameras draw the same strips in each run: the model is good, not perfect."""
    monkeypatch.setattr("agent.demo.demo.secrets.randbelow", lambda _limit: 0)


@pytest.mark.mosquitto
@pytest.mark.skipif(not find_mosquitto(), reason="no mosquitto: the same runs on amqtt in the next test")
@pytest.mark.usefixtures("_same_strips")
def test_the_demo_finds_good_defective_and_broken_strips(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Six strips, among them defective ones, a slow one and a broken one: all have a result, and the audit balances."""
    before = set(psutil.Process().children())
    assert run_demo(6, tmp_path, None, page=False) == 0
    shown = capfd.readouterr().out
    assert "6 results: 3 ok, 2 anomalous, 1 invalid · 0 repeated · no gap in seq" in shown
    assert "balanced: seen = pending" in shown
    assert "MISSING" not in shown
    assert len(list(tmp_path.glob("*/heatmaps/**/*.png"))) == 5
    assert set(psutil.Process().children()) <= before


def test_a_good_push_goes_live_a_damaged_one_is_refused_and_ctrl_c_ends_with_the_audit(tmp_path: Path) -> None:
    """What was written until then is judged and acknowledged first, and the exit code is the audit's.

    Both answers to the pushes are shown as they come and once more at the end, and no strip is missing.
    """
    demo, _ = _start_endless_demo(tmp_path, until="find nothing): rejected")
    demo.send_signal(signal.SIGINT)
    shown, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0, shown
    assert "model v2 (a newer version): activated, golden strip reproduced" in shown
    assert "model v3 (a layer of it zeroed, so that it would find nothing): rejected, golden_mismatch" in shown
    assert "MISSING" not in shown
    assert "NOT AS IT SHOULD BE" not in shown
    assert "balanced: seen = pending" in shown


@pytest.mark.usefixtures("_same_strips")
def test_the_demo_runs_on_the_broker_that_is_written_in_python(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without mosquitto shows the same."""
    monkeypatch.setattr(broker_module, "find_mosquitto", lambda: None)
    assert run_demo(2, tmp_path, None, page=False) == 0
    shown = capfd.readouterr().out
    assert "amqtt at 127.0.0.1" in shown
    assert "2 results: 1 ok, 1 anomalous, 0 invalid" in shown


def test_the_demo_says_where_its_page_is_and_serves_it_there(tmp_path: Path) -> None:
    """Whoever opens the address sees the line of the demo."""
    demo, line = _start_endless_demo(tmp_path, until="page      http")
    address = line.split()[1]

    def served() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{address}line", timeout=30) as answer:  # noqa: S310 - by HTTP
            return "<strong>demo</strong>" in answer.read().decode()
        return False

    wait_for(served, "the page shows the line")
    demo.kill()
    demo.communicate()


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    """Broker, service, worker, page and cameras end by themselves after SIGKILL."""
    demo, _ = _start_endless_demo(tmp_path)
    parts = psutil.Process(demo.pid).children(recursive=True)
    assert len(parts) >= 5
    demo.kill()
    demo.communicate()
    wait_for(lambda: not any(map(_runs, parts)), "all of them have ended")
