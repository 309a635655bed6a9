"""On an installed box: a camera by a reload, a broken configuration, the page, and what fails in a burst of strips.

One box for all tests, in the order in which they stand; the last ones stop and reboot it. A system call that the units'
filters deny ends its process here, where on other boxes it would only fail: what passes needs none of them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent import __version__
from agent.errors import ExitCode
from tests.helpers.broker import wait_for
from tests.helpers.container import Container
from tests.system.conftest import SUITE, check_books, follow, listen, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.root]
UNIT, CONFIG = "strip-agent", "/etc/strip-agent/agent.yaml"
WEB = "strip-agent-web"
IMPATIENT = "WatchdogSec=15\nTimeoutAbortSec=3\n"
# Three that do without an answer: OpenBLAS asks where its memory should lie; the page's pictures would be nicer still;
# on Intel's processors onnxruntime pins a thread to each core to see of what kind it is.
STRICT = "[Service]\nSystemCallErrorNumber=kill\nSystemCallFilter=mbind setpriority sched_setaffinity\n"
BURST_PAUSE_SECONDS = 0.2
ANSWERS = "insp7\ntop\n/srv/cameras/top\n\nn\nlocalhost\n\n\n"  # to the questions of `strip-agent setup`
LATE_MS = 1000
JUDGED = {"ok", "anomalous"}
DENIED = re.compile(r"SIGSYS|31/SYS|[Pp]ermission denied|Operation not permitted|PermissionError|Read-only file system")
BY_KERNEL = re.compile(r"\[ *([0-9.]+)\] audit: type=1326 .*exe=\S*python")
LOOK = """python3 -c 'import sys, urllib.request
with urllib.request.urlopen("http://127.0.0.1:8080" + sys.argv[1], timeout=60) as answer:
    sys.stdout.buffer.write(answer.read())' """


@pytest.fixture(scope="module", autouse=True)
def since() -> float:
    """Give the time of the kernel's last word about a denied call, before anything is done here."""
    return max((stamp for stamp, _ in denied_by_kernel()), default=0.0)


@pytest.fixture(scope="module")
def box(base_stick: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Install it, with a model that scores, a watchdog and a deadline of few seconds, and somebody who listens."""
    with Container(tmp_path_factory.mktemp("line"), SUITE, {base_stick: "/media/usb"}) as box:
        listen(box)
        for unit, more in ((UNIT, IMPATIENT), (WEB, "")):
            box.run(f"mkdir -p /etc/systemd/system/{unit}.service.d")
            box.run(f"printf '{STRICT}{more}' > /etc/systemd/system/{unit}.service.d/90-test.conf")
        follow(box, "Install on a box", "README.md", ANSWERS)
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


def show(box: Container, what: str, unit: str = UNIT) -> str:
    """Ask systemd about a unit."""
    return box.run(f"systemctl show --value --property={what} {unit}").strip()


@contextmanager
def burst(box: Container, stick: Path, name: str) -> Iterator[list[str]]:
    """Have a camera that is not part of the box write strips, as long as the block takes; their names."""
    folder, stop, written = box.root / "srv/cameras/top", threading.Event(), list[str]()

    def write_on() -> None:
        while not stop.wait(BURST_PAUSE_SECONDS):
            file = f"{name}-{len(written)}.tif"
            shutil.copy(stick / f"{len(written) % 6}.tif", folder / ".writing")
            (folder / ".writing").rename(folder / file)
            written.append(file)

    camera = threading.Thread(target=write_on)
    camera.start()
    try:
        yield written
    finally:
        stop.set()
        camera.join()


def denied_by_kernel() -> list[tuple[float, str]]:
    """Give when (seconds since the machine's start) the kernel ended a Python for a denied call, and its words."""
    lines = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [(float(found[1]), line) for line in lines if (found := BY_KERNEL.search(line))]


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


def test_asked_after_its_state_folder_was_edited_the_service_is_found(box: Container) -> None:
    """It answers from where it keeps its state until it is restarted, and that is said."""
    box.run(f"cp {CONFIG} /root/good.yaml; sed -i 's|^  #state_folder: .*|  state_folder: /var/lib/other|' {CONFIG}")
    said = box.run("strip-agent status 2>&1")
    assert "insp7: running" in said
    assert "the service, which answers here, has /var/lib/strip-agent until it is restarted" in said
    assert "agent.state_folder" in box.run(f"systemctl reload {UNIT} 2>&1 && exit 9; journalctl -u {UNIT} -n 20 -o cat")
    box.run(f"cp /root/good.yaml {CONFIG} && systemctl reload {UNIT}")


def test_the_first_pages_can_be_followed(box: Container) -> None:
    """A third camera as docs/install.md says, without a restart; a model taken back; what helps from afar."""
    process = show(box, "MainPID")
    box.run(f"sed -i '/^cameras:/a\\  - name: right\\n    folder: /srv/cameras/right' {CONFIG}")
    assert "without a restart" in follow(box, "Another camera")
    assert show(box, "MainPID") == process
    assert "right" in box.run("strip-agent status")
    box.run("cp /media/usb/newer.onnx /srv/models/inbox/")
    box.wait_until("strip-agent models list | grep -q 'active .*newer.onnx'", "the newer model is active")
    follow(box, "Push a model", "README.md")
    box.wait_until("strip-agent models list | grep -q 'active .*difference.onnx'", "the one before is back")
    follow(box, "When somebody is to help from afar")
    assert "status" in box.run("tar -tf /tmp/strip-agent-support-*")


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


def test_the_page_is_watched_within_its_walls_and_costs_the_service_nothing(box: Container) -> None:
    """As docs/web.md says: enabled, it shows lines and pictures; killed, it comes again, and the service goes on."""
    before, process = seen(box), show(box, "MainPID")
    box.run(f"sed -i '/^web:/,/^[a-z]/ s/^  #enabled: false/  enabled: true/' {CONFIG}")
    box.run(f"systemctl reload {UNIT} && systemctl enable --now {WEB}")
    box.wait_until(f"{LOOK} /line | grep -q '<html'", "the page is served")
    write(box, "shown", 1, 0.0)
    arrived(box, "shown", 1)
    newest = results(box)[-1]
    for kind in ("target", "heat", "thumb"):  # a process of its own decodes them
        picture = f"/strips/{newest['strip_id']}/{newest['revision']}/{kind}.png"
        assert box.run(f"{LOOK} {picture} 2>/dev/null | tail -c +2 | head -c 3") == "PNG", picture
    killed = show(box, "MainPID", WEB)
    box.run(f"kill -KILL {killed}")
    write(box, "watched", 3, 0.1)
    arrived(box, "watched", 3)
    box.wait_until(f"{LOOK} /strips | grep -q watched-3", "the page is served again")
    assert show(box, "MainPID", WEB) not in {killed, "0"}
    assert (show(box, "MainPID"), show(box, "NRestarts", WEB)) == (process, "1")
    check_books(box, before + 4)


def test_stopped_in_a_burst_it_goes_on_where_it_was(box: Container, base_stick: Path) -> None:
    """`systemctl stop` ends it in good order; what came before and meanwhile is judged at the next start, and once."""
    before = seen(box)
    with burst(box, base_stick, "stopped") as written:
        arrived(box, "stopped", 2)
        box.run(f"systemctl stop {UNIT}")
        assert (show(box, "ActiveState"), show(box, "Result")) == ("inactive", "success")
        assert '"online":false' in box.run("mosquitto_sub -C 1 -W 60 -t strip-agent/insp7/state/agent").replace(" ", "")
        meanwhile = len(written)
        wait_for(lambda: len(written) >= meanwhile + 3, "the camera goes on", 120)
        box.run(f"systemctl start {UNIT}")
        arrived(box, "stopped", meanwhile + 2)
    check_burst(box, before, "stopped", written)


def test_rebooted_in_a_burst_it_comes_up_and_goes_on(box: Container, base_stick: Path) -> None:
    """Service and page by themselves; the service had time to finish, and the broker was there until it had."""
    before = seen(box)
    with burst(box, base_stick, "rebooted") as written:
        arrived(box, "rebooted", 2)
        box.reboot()
        meanwhile = len(written)
        listen(box)
        box.wait_until("strip-agent status | grep -q running", "the service runs again")
        arrived(box, "rebooted", meanwhile)
    check_burst(box, before, "rebooted", written)
    end = box.run(f"journalctl -b -1 -u {UNIT} -o cat --no-pager").rpartition("stopping: finishing")[2]
    assert f"{UNIT}.service: Deactivated successfully" in end
    assert "No connection" not in end, "the broker had gone first"
    box.wait_until(f"{LOOK} /line | grep -q '<html'", "the page is served")


def check_burst(box: Container, before: int, name: str, written: list[str]) -> None:
    """Each strip of a burst has exactly one result, and it is a verdict."""
    arrived(box, name, len(written))
    check_books(box, before + len(written))
    found = [r for r in results(box) if r["file"].startswith(f"{name}-")]
    assert sorted(r["file"] for r in found) == sorted(written)
    assert {r["verdict"] for r in found} <= JUDGED


def test_nothing_was_denied(box: Container, since: float) -> None:
    """In all that was done here: no system call by a filter, no file by a right or a wall, and no unit has failed."""
    lines = box.run(f"journalctl -u {UNIT} -u {WEB} -o cat --no-pager").splitlines()
    assert any("reloaded" in line for line in lines), "the journal of the first boot is there"
    assert [line for line in lines if DENIED.search(line)] == []
    assert [line for stamp, line in denied_by_kernel() if stamp > since] == []
    assert box.run("systemctl list-units --state=failed --no-legend --plain 'strip-agent*'") == ""
