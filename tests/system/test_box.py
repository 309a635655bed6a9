"""On a Debian without network, as docs/install.md says: installed, scored, upgraded, taken back, restored, removed.

One box for all tests, in the order in which they stand: each goes on with what the one before it left.
"""

from __future__ import annotations

import re
import zipfile
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.helpers.container import Container
from tests.helpers.repository import ROOT
from tests.system.conftest import PYTHON, SUITE, check_books, drop, follow, listen, status
from tools.packaging import bundle
from tools.packaging.deb import build_deb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.root]
OLD, NEWER, BROKEN, PAGELESS = __version__, "99.1.0", "99.2.0", "99.3.0"
NEW_TABLE = '    """\n    CREATE TABLE of_a_later_version (id INTEGER PRIMARY KEY);\n    """,\n)\n'


@pytest.fixture(scope="module")
def stick(base_stick: Path) -> Path:
    """Add three versions: one has a newer ledger, one does not start, and one has no page."""
    newer = {"agent/ledger/schema.py": (r"\)\n\Z", NEW_TABLE)}
    broken = {"agent/service.py": (r"(?<=\n)(def run_service\(.*\n)", r'\1    raise SystemExit("on purpose")\n')}
    _another(base_stick / OLD, base_stick / NEWER, newer)
    _another(base_stick / OLD, base_stick / BROKEN, newer | broken)
    _another(base_stick / OLD, base_stick / PAGELESS, {})
    (base_stick / PAGELESS / "systemd/strip-agent-web.service").unlink()
    sums = base_stick / PAGELESS / "SHA256SUMS"
    kept = [line for line in sums.read_text().splitlines(keepends=True) if "strip-agent-web.service" not in line]
    sums.write_text("".join(kept))
    return base_stick


def _another(old: Path, new: Path, changes: dict[str, tuple[str, str]]) -> None:
    """Make a bundle of another version, with changes (pattern, text) to files of the agent."""
    (new / "wheels").mkdir(parents=True)
    changes |= {"agent/__init__.py": (r'(?<=__version__ = )".*"', f'"{new.name}"')}
    changes |= {f"strip_agent-{new.name}.dist-info/METADATA": (r"(?m)(?<=^Version: ).*", new.name)}
    chosen = []
    for wheel in sorted((old / "wheels").iterdir()):
        name = wheel.name.replace(f"strip_agent-{old.name}", f"strip_agent-{new.name}")
        chosen.append(name)
        if name == wheel.name:
            (new / "wheels" / name).hardlink_to(wheel)
            continue
        with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(new / "wheels" / name, "w") as target:
            for entry in source.namelist():
                renamed, content = entry.replace(f"-{old.name}.dist-info", f"-{new.name}.dist-info"), source.read(entry)
                if renamed in changes:
                    text, count = re.subn(*changes[renamed], content.decode())
                    assert count == 1, (renamed, count)
                    content = text.encode()
                target.writestr(renamed, content)
    bundle.finish(new, ROOT, new.name, "x86_64", {PYTHON: chosen})


@pytest.fixture(scope="module")
def box(stick: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Boot a box with the stick, a broker, and somebody who listens to it."""
    with Container(tmp_path_factory.mktemp("box"), SUITE, {stick: "/media/usb"}) as box:
        listen(box)
        yield box


def versions(box: Container) -> tuple[str, str]:
    """Name the current version and the one before."""
    current, previous = (
        box.run(f"readlink /opt/strip-agent/{link} || true").strip() for link in ("current", "previous")
    )
    return current, previous


def test_from_the_stick_to_the_first_score_without_a_network(box: Container) -> None:
    """Two commands and a model; the results arrive at the broker; installed again, nothing changes."""
    assert {line.split()[0] for line in box.run("ip -brief link").splitlines()} == {"lo"}
    follow(box, "Install")
    assert "bad " not in follow(box, "Set up")
    follow(box, "The first score")
    box.run("cp /media/usb/0.tif /srv/cameras/top/first.tif")
    check_books(box, 1)
    assert status(box)["health"]["status"] == "ok"
    assert versions(box) == (OLD, "")
    assert "nothing is changed" in box.run(f"sh /media/usb/{OLD}/install.sh")
    assert box.run("systemctl is-enabled strip-agent").strip() == "enabled"


def test_people_get_the_rights_that_they_need_and_no_more(box: Container) -> None:
    """A pusher pushes and a reader asks; neither may do the other's, nor read the ledger or stop the service."""
    box.run("useradd ana; useradd ben")
    box.run("strip-agent setup --yes --pusher ana --reader ben")
    as_ana, as_ben = (f"setpriv --reuid={name} --regid={name} --init-groups" for name in ("ana", "ben"))
    box.run(f"{as_ana} cp /media/usb/model.onnx /srv/models/inbox/again.onnx")
    box.run(f"{as_ben} strip-agent status")
    for refused in (
        f"{as_ana} strip-agent status",
        f"{as_ana} cat /etc/strip-agent/agent.yaml",
        f"{as_ben} cp /media/usb/model.onnx /srv/models/inbox/ben.onnx",
        f"{as_ben} cp /media/usb/0.tif /srv/cameras/top/ben.tif",
    ):
        assert box.run(f"{refused} >/dev/null 2>&1 && echo done || echo refused").strip() == "refused", refused


def test_an_account_that_pushes_over_sftp_can_do_nothing_else(box: Container) -> None:
    """With its key into the inbox; no shell, no password, no other folder, no forwarding."""
    box.run("ssh-keygen -q -t ed25519 -N '' -f /root/key && systemctl start ssh")
    box.run("strip-agent setup --yes --sftp-pusher line-pc=/root/key.pub")
    options = "-i /root/key -o StrictHostKeyChecking=no -o BatchMode=yes"
    sftp = f"sftp -b - {options} line-pc@localhost"
    box.run(f"echo 'put /media/usb/model.onnx pushed.onnx' | {sftp}")
    assert "/srv/models/inbox/pushed.onnx" in box.run("ls /srv/models/inbox/*")
    box.wait_until(
        "setpriv --reuid=strip-agent --clear-groups cat /srv/models/inbox/pushed.onnx >/dev/null", "it is read"
    )
    assert box.run(f"echo 'ls /' | {sftp}").split()[-1] == "/inbox"
    for refused in (
        f"echo 'put /media/usb/model.onnx /outside.onnx' | {sftp}",
        f"echo 'get /etc/passwd' | {sftp}",
        f"ssh {options} line-pc@localhost true",
        f"ssh {options} -N -o ExitOnForwardFailure=yes -W localhost:1883 line-pc@localhost",
    ):
        assert box.run(f"{refused} >/dev/null 2>&1 && echo done || echo refused").strip() == "refused", refused


def test_upgraded_to_a_newer_ledger_and_back_no_strip_is_lost_or_judged_twice(box: Container) -> None:
    """Strips come before, between and after; the old version goes on in a stream of its own."""
    drop(box, "before")
    box.run(f"sh /media/usb/{NEWER}/install.sh", timeout=600)
    assert versions(box) == (NEWER, OLD)
    drop(box, "between")
    check_books(box, 13)
    assert "a ledger of its own" in follow(box, "Upgrade, and back")
    assert versions(box) == (OLD, NEWER)
    drop(box, "after")
    check_books(box, 19)
    assert status(box)["version"] == OLD


def test_a_version_that_does_not_start_gives_way_to_the_old_one(box: Container) -> None:
    """By itself, with the reason; what was there before is the way back still."""
    said = box.run(f"sh /media/usb/{BROKEN}/install.sh && exit 9 || true", timeout=600)
    assert f"new_version_failed: {OLD} is back" in said
    assert versions(box) == (OLD, NEWER)
    drop(box, "after-the-broken-one")
    check_books(box, 25)


@pytest.mark.parametrize("moment", ["/opt/strip-agent/change.json", "/var/lib/strip-agent/backups/.new"])
def test_a_power_cut_in_the_middle_of_an_upgrade_leaves_one_version_that_works(box: Container, moment: str) -> None:
    """Old or new, never neither; installed again it is the new one, and taken back for the next."""
    before = status(box)["strips"]["seen"]
    box.run(f"rm -rf {moment}")
    box.start(f"sh /media/usb/{NEWER}/install.sh")
    box.wait_until(f"test -e {moment} || test $(readlink /opt/strip-agent/current) = {NEWER}", "it has begun", 300)
    box.cut_power()
    box.boot()
    listen(box)
    box.wait_until("strip-agent status | grep -q running", "the service runs again")
    drop(box, f"cut-{before}")
    check_books(box, before + 6)
    box.run(f"sh /media/usb/{NEWER}/install.sh", timeout=600)
    assert versions(box) == (NEWER, OLD)
    check_books(box, before + 6)
    box.run("/opt/strip-agent/current/install.sh --rollback", timeout=600)


def test_a_version_without_the_page_takes_it_away_and_leaves_nothing_failed(box: Container) -> None:
    """The page of the other version does not run on, and no unit is failed or half there; back, it can be had again."""
    web = "systemctl enable --now strip-agent-web"
    box.run("cp -p /etc/strip-agent/agent.yaml /root/before.yaml")
    box.run("sed -i '/^web:/,/^[a-z]/ s/^  #enabled: false/  enabled: true/' /etc/strip-agent/agent.yaml")
    box.run(f"systemctl reload strip-agent && {web} && systemctl is-active strip-agent-web")
    box.run(f"sh /media/usb/{PAGELESS}/install.sh", timeout=600)
    assert versions(box) == (PAGELESS, OLD)
    assert box.run("systemctl list-units --all --no-legend --plain 'strip-agent*'").split()[0] == "strip-agent.service"
    assert box.run("find /etc/systemd -name '*strip-agent-web*'") == ""
    assert box.run("grep -l strip-agent-web /proc/[0-9]*/cgroup 2>/dev/null || true") == ""
    box.run("/opt/strip-agent/current/install.sh --rollback", timeout=600)
    assert versions(box) == (OLD, PAGELESS)
    box.run(f"{web} && systemctl is-active strip-agent-web && systemctl disable --now strip-agent-web")
    box.run("cp -p /root/before.yaml /etc/strip-agent/agent.yaml && systemctl reload strip-agent")


def test_restored_from_a_backup_it_goes_on_without_judging_a_strip_twice(box: Container) -> None:
    """Configuration, ledger and models on the stick; a box that knows nothing takes them over."""
    before = status(box)["strips"]["seen"]
    follow(box, "Back up")
    box.run("/opt/strip-agent/current/install.sh --uninstall --purge")
    box.run(f"sh /media/usb/{OLD}/install.sh", timeout=600)
    follow(box, "Restore to a spare box")
    check_books(box, before)
    drop(box, "restored")
    check_books(box, before + 6)


def test_removed_it_leaves_the_broker_clean_and_nothing_behind(box: Container) -> None:
    """Data first stays and is named; purged, no file, unit, user or group of ours is there; cameras' files are."""
    said = follow(box, "Uninstall")
    assert "/var/lib/strip-agent" in said
    assert "retained" in said
    assert box.run("mosquitto_sub -t 'strip-agent/#' -W 2 || true").replace("Timed out\n", "") == ""
    box.run(f"sh /media/usb/{OLD}/install.sh", timeout=600)
    box.run("/opt/strip-agent/current/install.sh --uninstall --purge")
    left = box.run("find / -xdev -name '*strip-agent*' -not -path '/media/*' -not -path '/proc/*' -not -path '/run/*'")
    assert left == ""
    assert "strip-agent" not in box.run("cat /etc/passwd /etc/group /etc/shadow /etc/gshadow")
    assert box.run("ls /srv").split() == ["cameras"]
    assert "first.tif" in box.run("ls /srv/cameras/top")


def test_the_debian_package_does_the_same(box: Container, stick: Path) -> None:
    """Installed by apt without a network, set up, removed with its data left, purged without a trace."""
    build_deb(stick / OLD, stick, bundle.LONG_AGO)
    box.run("apt-get install --yes /media/usb/strip-agent_*.deb", timeout=600)
    box.run("strip-agent setup --yes --name insp8")
    assert status(box)["version"] == OLD
    box.run("apt-get remove --yes strip-agent", timeout=300)
    assert box.run("test -e /etc/strip-agent/agent.yaml && test ! -e /opt/strip-agent && echo so").strip() == "so"
    box.run("apt-get purge --yes strip-agent", timeout=300)
    left = box.run("find / -xdev -name '*strip-agent*' -not -path '/media/*' -not -path '/proc/*' -not -path '/run/*'")
    assert [path for path in left.splitlines() if not path.startswith(("/var/lib/dpkg", "/var/cache"))] == []
    assert "strip-agent" not in box.run("cat /etc/passwd /etc/group")
