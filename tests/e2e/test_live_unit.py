"""The unit under a real systemd: readiness, the walls around the service, restarts, the watchdog, and a clean stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.cli.doctor.walls import Access, ask_unit, look, rules_of
from agent.control import endpoint
from agent.errors import ExitCode
from tests.helpers.box import drop_file, unique_results, wait_for_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.live_systemd import USER_ID, LiveSystemd, booted
from tests.helpers.models import difference_model

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture
def live(tmp_path: Path, broker: Broker) -> Iterator[LiveSystemd]:
    """Boot a systemd whose service has a camera, an inbox with a model, and the broker."""
    with booted(tmp_path / "live") as live:
        for name in ("cameras/top", "inbox"):
            (live.srv / name).mkdir(parents=True)
        config = {
            "agent": {"name": "live", "state_folder": "/var/lib/strip-agent"},
            "cameras": [{"name": "top", "folder": "/srv/cameras/top", "settle_seconds": 0.2}],
            "models": {"inbox": "/srv/inbox", "settle_seconds": 0.2},
            "heatmaps": {"min_free_gib": 0},
            "mqtt": {"host": "127.0.0.1", "port": broker.port},
        }
        (live.srv / "agent.yaml").write_text(yaml.safe_dump(config))
        difference_model(live.srv / "inbox" / "model.onnx")
        yield live


def ask(live: LiveSystemd, command: str) -> dict[str, Any]:
    """Ask the service over its control socket."""
    return endpoint.ask(live.state / "control.sock", {"command": command})


def start(live: LiveSystemd) -> None:
    """Start the service and wait for its model."""
    done = live.systemctl("start", "strip-agent")
    assert done.returncode == 0, f"{done.stderr}\n{live.systemctl('status', 'strip-agent').stdout}\n{live.log}"
    wait_for(lambda: ask(live, "status")["workers"]["default"]["pid"], "the model is active")


def is_back(live: LiveSystemd, starts: int) -> bool:
    """Whether it was started again so many times and answers."""
    try:
        return int(live.show("NRestarts")) >= starts and bool(ask(live, "status")["ok"])
    except (OSError, endpoint.NotRunningError):
        return False


def test_the_service_is_ready_scores_behind_its_walls_and_stops_clean(
    live: LiveSystemd, broker: Broker, good_strip: Path
) -> None:
    """As its own user, under the unit's filters, from start to drained stop; systemd is told how it is.

    A worker whose model was on trial is as nice as the supervisor afterwards. This does not show that LimitNICE= did
    it: where root itself may not raise limits (containers), the limit stays 0 and the worker was never modest.
    """
    with Subscriber(broker.port, "strip-agent/live/#") as subscriber:
        start(live)
        assert (live.show("ActiveState"), live.show("SubState")) == ("active", "running")
        assert live.show("StatusText")
        processes = live.processes()
        assert {process.uids().effective for process in processes} == {USER_ID}
        assert len(processes) == 2
        drop_file(good_strip, live.srv / "cameras/top/a.tif")
        (result,) = wait_for_results(subscriber, 1)
        assert result["verdict"] == "ok", result
        supervisor, worker = live.processes()
        usual = os.getpriority(os.PRIO_PROCESS, supervisor.pid)
        assert {os.getpriority(os.PRIO_PROCESS, thread.id) for thread in worker.threads()} == {usual}
        assert (live.state.stat().st_mode & 0o777, live.state.stat().st_uid) == (0o750, USER_ID)
        assert live.systemctl("stop", "strip-agent").returncode == 0
        assert (live.show("Result"), live.show("ExecMainStatus"), live.show("NRestarts")) == ("success", "0", "0")
        assert not live.processes()


def test_a_killed_supervisor_is_started_again_and_nothing_is_lost(
    live: LiveSystemd, broker: Broker, good_strip: Path
) -> None:
    """SIGKILL, as the kernel would: systemd starts it again, and each strip has its one result."""
    live.change(RestartSec="100ms")
    with Subscriber(broker.port, "strip-agent/live/#") as subscriber:
        start(live)
        for kills in range(3):
            for number in range(3):
                drop_file(good_strip, live.srv / f"cameras/top/{kills}-{number}.tif")
            live.systemctl("kill", "--signal=KILL", "--kill-who=main", "strip-agent")
            wait_for(lambda kills=kills: is_back(live, kills + 1), "it is started again")  # type: ignore[misc]
        wait_for_results(subscriber, 9)
        assert sorted(result["file"] for result in unique_results(subscriber).values()) == sorted(
            f"{kills}-{number}.tif" for kills in range(3) for number in range(3)
        )
        wait_for(lambda: ask(live, "status")["strips"]["pending"] == 0, "all are acknowledged")
        assert ask(live, "audit")["balanced"]


def test_a_supervisor_that_stands_still_is_ended_by_the_watchdog(live: LiveSystemd) -> None:
    """No beat for WatchdogSec: systemd ends it and starts it again."""
    live.change(WatchdogSec="3", TimeoutAbortSec="1", RestartSec="100ms")
    start(live)
    supervisor = live.processes()[0]
    supervisor.send_signal(signal.SIGSTOP)
    wait_for(lambda: not supervisor.is_running() and is_back(live, 1), "it is started again")
    assert live.systemctl("stop", "strip-agent").returncode == 0


def configure(live: LiveSystemd, **camera: str) -> None:
    """Change the camera's settings."""
    config = yaml.safe_load((live.srv / "agent.yaml").read_text())
    config["cameras"][0].update(camera)
    (live.srv / "agent.yaml").write_text(yaml.safe_dump(config))


def walls_said(live: LiveSystemd) -> list[str]:
    """Return what `check-config` says about the unit's walls."""
    done = live.run("/srv/strip-agent", "check-config", "--json", "--config", "/srv/agent.yaml")
    return [one["message"] for one in json.loads(done.stdout)["problems"] if "drop-in" in one["message"]]


def test_what_the_walls_forbid_is_said_before_and_the_named_line_opens_it(
    live: LiveSystemd, broker: Broker, good_strip: Path
) -> None:
    """A camera's files are to be removed, which the unit forbids: found by the check, opened by the line it names."""
    assert walls_said(live) == []
    configure(live, when_done="delete")
    (said,) = walls_said(live)
    assert "read-only for the service, behind ProtectSystem=strict" in said
    key, value = said.rpartition("[Service] ")[2].split("=", 1)
    live.change(**{key: value})
    assert walls_said(live) == []
    (live.srv / "cameras/top").chmod(0o777)
    with Subscriber(broker.port, "strip-agent/live/#") as subscriber:
        start(live)
        drop_file(good_strip, live.srv / "cameras/top/a.tif")
        wait_for_results(subscriber, 1)
        wait_for(lambda: not (live.srv / "cameras/top/a.tif").exists(), "the file is removed")


def test_the_check_and_systemd_agree_about_every_path(
    live: LiveSystemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that open, close, hide and bind, one in the other: what is foretold is what the service can do."""
    places = ("plain", "open", "open/closed", "open/closed/open", "closed", "hidden/open", "covered", "covered/bound")
    for place in places:
        (live.srv / place / "x").mkdir(parents=True)
    for folder in (live.srv, *live.srv.glob("**/")):
        folder.chmod(0o777)
    live.change(
        ReadWritePaths="-/srv/open -/srv/open/closed/open -/srv/hidden/open -/srv/not/there",
        ReadOnlyPaths="/srv/open/closed /srv/closed",
        InaccessiblePaths="/srv/hidden",
        TemporaryFileSystem="/srv/covered",
        BindPaths="/srv/plain:/srv/covered/bound",
    )
    start(live)
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\nexec nsenter --target {live.init} --mount --pid {which("systemctl")} "$@"\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    rules = rules_of(ask_unit())
    for path in (*(f"/srv/{place}/x" for place in places), "/var/lib/strip-agent", "/var/lib", "/etc"):
        service, as_user = live.processes()[0].pid, ("setpriv", f"--reuid={USER_ID}", "--clear-groups")
        there, writable = (live.run(*as_user, "test", f, path, where=service).returncode == 0 for f in ("-e", "-w"))
        foretold = look(rules, Path(path)).access
        assert (foretold in {Access.READ_ONLY, Access.WRITABLE}) == there, (path, foretold)
        assert (foretold is Access.WRITABLE) == writable, (path, foretold)


def test_an_unusable_configuration_is_not_started_again_and_again(live: LiveSystemd) -> None:
    """Exit code 78 and the list of problems; it stays failed until somebody mends it."""
    live.change(RestartSec="100ms")
    (live.srv / "agent.yaml").write_text("cameras: []\nspeed: 3\n")
    assert live.systemctl("start", "strip-agent").returncode != 0
    wait_for(lambda: live.show("ActiveState") == "failed", "it has failed")
    assert live.show("ExecMainStatus") == str(ExitCode.CONFIG.value)
    assert live.show("NRestarts") == "0"
    assert "speed" in live.log
