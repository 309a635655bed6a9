"""On an installed box: a camera comes by a reload, a configuration is broken, and things fail in a burst of strips.

One box for all tests, in the order in which they stand.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent import __version__
from agent.errors import ExitCode
from tests.helpers.container import Container
from tests.system.conftest import SUITE, check_books, follow, listen, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.root]
UNIT, CONFIG = "strip-agent", "/etc/strip-agent/agent.yaml"
IMPATIENT = "[Service]\nWatchdogSec=15\nTimeoutAbortSec=3\n"
LATE_MS = 1000
JUDGED = {"ok", "anomalous"}


@pytest.fixture(scope="module")
def box(base_stick: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Install it, with a model that scores, a watchdog and a deadline of few seconds, and somebody who listens."""
    with Container(tmp_path_factory.mktemp("line"), SUITE, {base_stick: "/media/usb"}) as box:
        listen(box)
        follow(box, "Install")
        box.run(f"mkdir -p /etc/systemd/system/{UNIT}.service.d")
        box.run(f"printf '{IMPATIENT}' > /etc/systemd/system/{UNIT}.service.d/90-test.conf; systemctl daemon-reload")
        follow(box, "Set up")
        box.run(f"sed -i 's/^  #deadline_seconds: .*/  deadline_seconds: 10/' {CONFIG} && systemctl restart {UNIT}")
        box.run("cp /media/usb/difference.onnx /srv/models/inbox/")
        box.wait_until('strip-agent status --json | grep -q \'"active_sha256": "[0-9a-f]\'', "the model is active")
        yield box


def write(box: Container, name: str, strips: int, every_seconds: float, camera: str = "top") -> None:
    """Have a camera write strips in the background, each with its own name, by renaming."""
    folder = f"/srv/cameras/{camera}"
    one = f"cp /media/usb/$((n % 6)).tif {folder}/.writing; mv {folder}/.writing {folder}/{name}-$n.tif"
    box.start(f"for n in $(seq {strips}); do {one}; sleep {every_seconds}; done")


def results(box: Container) -> list[dict[str, Any]]:
    """Give what has arrived, without repeats, in the order of `seq`."""
    found = {result["msg_id"]: result for result in map(json.loads, box.run("cat /root/results").splitlines())}
    return sorted(found.values(), key=lambda result: int(result["seq"]))


def arrived(box: Container, name: str, number: int) -> None:
    """Wait until so many results of files of that name have arrived."""
    box.wait_until(f"test $(grep -c '\"{name}-' /root/results) -ge {number}", f"{number} results of {name} arrive")


def seen(box: Container) -> int:
    """Give the number of strips so far."""
    return int(status(box)["strips"]["seen"])


def show(box: Container, what: str) -> str:
    """Ask systemd about the unit."""
    return box.run(f"systemctl show --value --property={what} {UNIT}").strip()


def test_a_camera_is_added_by_a_reload_while_strips_flow(box: Container) -> None:
    """None is lost, none of the other camera is late by more than a second, and nothing was started anew."""
    before, process = seen(box), show(box, "MainPID")
    write(box, "flow", 40, 0.5)
    arrived(box, "flow", 12)
    box.run("install -d -o strip-agent /srv/cameras/left")
    box.run(f"sed -i '/^cameras:/a\\  - name: left\\n    folder: /srv/cameras/left' {CONFIG}")
    assert "left" in box.run(f"systemctl reload {UNIT} && journalctl -u {UNIT} -n 20 -o cat")
    write(box, "new", 6, 0.5, "left")
    arrived(box, "new", 6)
    arrived(box, "flow", 40)
    check_books(box, before + 46)
    late = [
        int(r["ts_ms"]) - int(r["captured_ts_ms"]) for r in results(box) if r["camera"] == "top" and "flow" in r["file"]
    ]
    assert max(late[12:]) <= max(late[:12]) + LATE_MS, late
    assert show(box, "MainPID") == process
    assert status(box)["configuration"]["state"] == "same"


def test_broken_at_a_reload_the_service_goes_on_and_broken_at_a_start_it_is_not_tried_again(box: Container) -> None:
    """Each time the line is named; mended, it starts."""
    before, process = seen(box), show(box, "MainPID")
    box.run(f"cp {CONFIG} /root/good.yaml; echo 'speed: 3' >> {CONFIG}")
    line = box.run(f"wc -l < {CONFIG}").strip()
    refused = box.run(f"systemctl reload {UNIT} 2>&1 && exit 9; journalctl -u {UNIT} -n 20 -o cat")
    assert f"line {line}" in refused
    assert "speed" in refused
    assert (show(box, "MainPID"), show(box, "ActiveState")) == (process, "active")
    box.wait_until("strip-agent status --json | grep -q configuration_invalid", "the alarm is raised")
    assert f"NOT USABLE: {CONFIG}: line {line}" in box.run("strip-agent status 2>/dev/null")
    write(box, "broken", 3, 0.1)
    arrived(box, "broken", 3)
    box.run(f"systemctl restart {UNIT} 2>&1 || true")
    box.wait_until(f"systemctl is-failed {UNIT}", "it has given up")
    assert (show(box, "ExecMainStatus"), show(box, "NRestarts")) == (str(int(ExitCode.CONFIG)), "0")
    write(box, "meanwhile", 3, 0.1)
    box.run(f"cp /root/good.yaml {CONFIG} && systemctl start {UNIT}")
    arrived(box, "meanwhile", 3)
    check_books(box, before + 6)


FAULTS = {
    "supervisor killed": "kill -KILL {main}",
    "supervisor stopped": "kill -STOP {main}",
    "worker killed": "kill -KILL {worker}",
    "worker stopped": "kill -STOP {worker}",
    "broker stopped": "systemctl stop mosquitto; sleep 3; systemctl start mosquitto",
    "service restarted": "systemctl restart strip-agent",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_in_a_burst_costs_no_strip(box: Container, fault: str) -> None:
    """Each strip has one result, the books balance, and the service is up again by itself."""
    before, name = seen(box), fault.replace(" ", "-")
    worker = status(box)["workers"]["default"]["pid"]
    write(box, name, 20, 0.1)
    arrived(box, name, 2)
    box.run(FAULTS[fault].format(main=show(box, "MainPID"), worker=worker))
    arrived(box, name, 20)
    check_books(box, before + 20)
    assert {r["verdict"] for r in results(box) if r["file"].startswith(name)} <= JUDGED
    assert show(box, "ActiveState") == "active"
    assert status(box)["version"] == __version__
