"""`install.sh` on a root of its own: whole, twice the same, killed anywhere and run again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.helpers.bundles import contents, small_bundle
from tests.helpers.programs import needs
from tests.helpers.soak import share_of
from tools.packaging.installer.refusal import Code

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away"),
    needs("systemd-sysusers", "systemd-tmpfiles", "userdel"),
]
# Ends the process the hard way at the n-th thing that it does to files or other programs.
KILLED = """
import atexit, os, signal, sys
left = int(sys.argv.pop(1))
DOES = "os.mkdir os.rename os.symlink os.link os.remove os.chmod os.chown shutil. subprocess.Popen".split()
def count(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event.startswith(tuple(DOES)):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
begun = left
atexit.register(lambda: print(begun - left, file=sys.stderr))
sys.path.insert(0, sys.argv.pop(1))
from installer.main import main
main()
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make two versions."""
    folder = tmp_path_factory.mktemp("bundles")
    return small_bundle(folder / "old", "0.1.0"), small_bundle(folder / "new", "0.2.0")


def install(bundle: Path, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a bundle's install.sh on a root of its own, with this Python."""
    root.mkdir(exist_ok=True)
    environment = os.environ | {"STRIP_AGENT_PYTHON": sys.executable}
    command = ["sh", str(bundle / "install.sh"), f"--root={root}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=environment)


def killed_after(steps: int, bundle: Path, root: Path) -> int:
    """Install, but die after so many steps; how many there were in all where it did not come to that, else 0."""
    command = [sys.executable, "-I", "-B", "-c", KILLED, str(steps), str(bundle), f"--root={root}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return int(done.stderr.split()[-1]) if done.returncode == 0 else 0


def test_everything_is_in_its_place(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """A version's folder, the link to it, the program on PATH, configuration, units, users, inbox."""
    root = tmp_path / "box"
    done = install(bundles[0], root)
    assert done.returncode == 0, done.stderr
    assert (root / "opt/strip-agent/current").readlink().name == "0.1.0"
    assert str((root / "usr/local/bin/strip-agent").readlink()) == "/opt/strip-agent/current/bin/strip-agent"
    program = root / "opt/strip-agent/current/bin/strip-agent"
    assert program.read_text().startswith("#!/opt/strip-agent/0.1.0/bin/python\n")  # its own, never another version's
    assert os.access(program, os.X_OK)
    assert list((root / "opt/strip-agent/0.1.0/lib").rglob("__pycache__/*.pyc"))
    assert not list(root.rglob("never-unpacked"))
    assert "strip-agent-push:" in (root / "etc/group").read_text()
    assert (root / "etc/strip-agent/agent.yaml").stat().st_mode & 0o777 == 0o640
    assert (root / "srv/models/inbox").stat().st_mode & 0o7777 == 0o2775
    assert (root / "etc/systemd/system/strip-agent.service").exists()


def test_twice_installed_changes_nothing(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """Not a byte, a mode or a time of the version's files, and it says so; an edited configuration stays."""
    root = tmp_path / "box"
    install(bundles[0], root)
    (root / "etc/strip-agent/agent.yaml").write_text("agent: {name: mine}\n")
    before, inode = contents(root), (root / "opt/strip-agent/0.1.0").stat().st_ino
    done = install(bundles[0], root)
    assert done.returncode == 0, done.stderr
    assert "nothing is changed" in done.stdout
    assert contents(root) == before
    assert (root / "opt/strip-agent/0.1.0").stat().st_ino == inode


def test_another_version_and_back(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """The new one is current, the old one stays beside it; --rollback takes it back; two are kept, not three."""
    root = tmp_path / "box"
    for bundle in bundles:
        assert install(bundle, root).returncode == 0
    links = root / "opt/strip-agent"
    assert ((links / "current").readlink().name, (links / "previous").readlink().name) == ("0.2.0", "0.1.0")
    done = install(links / "current", root, "--rollback")
    assert done.returncode == 0, done.stderr
    assert ((links / "current").readlink().name, (links / "previous").readlink().name) == ("0.1.0", "0.2.0")
    assert install(small_bundle(tmp_path / "third", "0.3.0"), root).returncode == 0
    assert sorted(path.name for path in links.iterdir() if not path.is_symlink()) == ["0.1.0", "0.3.0"]


def test_uninstall_leaves_data_and_purge_leaves_nothing(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """What stays is named; afterwards no file, user or group of ours is there."""
    root = tmp_path / "box"
    (root / "etc").mkdir(parents=True)
    before = contents(root)
    install(bundles[0], root)
    done = install(root / "opt/strip-agent/current", root, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert (root / "etc/strip-agent/agent.yaml").exists()
    assert not (root / "opt/strip-agent").exists()
    assert all(word in done.stdout for word in ("/etc/strip-agent", "/var/lib/strip-agent", "/srv/models/inbox"))
    install(bundles[0], root)
    done = install(root / "opt/strip-agent/current", root, "--uninstall", "--purge")
    assert done.returncode == 0, done.stderr
    left = {path for path in contents(root).keys() - before.keys() if "strip-agent" in path or "models" in path}
    assert left <= {"run/strip-agent-install.lock"}
    for table in ("passwd", "group", "shadow", "gshadow"):
        path = root / "etc" / table
        assert not path.exists() or "strip-agent" not in path.read_text()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (
            lambda bundle: (bundle / "wheels/strip_agent-0.1.0-py3-none-any.whl").write_bytes(b"half"),
            Code.DAMAGED_BUNDLE,
        ),
        (lambda bundle: (bundle / "systemd/strip-agent.service").unlink(), Code.DAMAGED_BUNDLE),
        (lambda bundle: (bundle / "SHA256SUMS").unlink(), Code.DAMAGED_BUNDLE),
    ],
    ids=["a wheel cut off", "a file missing", "no checksums"],
)
def test_a_damaged_bundle_is_refused(
    bundles: tuple[Path, Path], tmp_path: Path, spoil: Callable[[Path], object], code: Code
) -> None:
    """Before anything is written."""
    bundle = shutil.copytree(bundles[0], tmp_path / "bundle")
    spoil(bundle)
    done = install(bundle, tmp_path / "box")
    assert done.returncode == 1
    assert f"strip-agent: {code}: " in done.stderr
    assert not (tmp_path / "box/opt").exists()


def test_the_program_alone_is_laid_down_for_an_image(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """For a container: the version and the link on PATH, and nothing in /etc."""
    root = tmp_path / "image"
    done = install(bundles[0], root, "--program-only")
    assert done.returncode == 0, done.stderr
    assert (root / "opt/strip-agent/current/bin/strip-agent").exists()
    assert (root / "usr/local/bin/strip-agent").is_symlink()
    assert not (root / "etc").exists()


def test_there_is_nothing_to_go_back_to_at_first(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """Said as such, with and without an installation."""
    root = tmp_path / "box"
    assert Code.NOT_INSTALLED in install(bundles[0], root, "--rollback").stderr
    install(bundles[0], root)
    assert Code.NOTHING_TO_GO_BACK_TO in install(bundles[0], root, "--rollback").stderr


@pytest.fixture(scope="module")
def before_and_after(
    bundles: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """Give a box with the first version, and what the second one makes of it undisturbed."""
    folder = tmp_path_factory.mktemp("before")
    install(bundles[0], folder / "box")
    subprocess.run(["cp", "-a", folder / "box", folder / "after"], check=True)
    install(bundles[1], folder / "after")
    return folder / "box", contents(folder / "after")


def check_killed(steps: int, bundle: Path, before_and_after: tuple[Path, dict[str, str]], root: Path) -> int:
    """Kill an upgrade after so many steps, run it again; how many there were where it was not killed, else 0."""
    before, after = before_and_after
    subprocess.run(["cp", "-a", before, root], check=True)
    whole = killed_after(steps, bundle, root)
    current = root / "opt/strip-agent/current"
    assert (current / "installed.json").exists(), f"{steps}: neither version is whole"
    assert (current / "bin/strip-agent").exists()
    done = install(bundle, root)
    assert done.returncode == 0, f"{steps}: {done.stderr}"
    assert contents(root) == after, steps
    shutil.rmtree(root)
    return whole


def test_killed_in_the_middle_and_run_again_it_is_whole(
    bundles: tuple[Path, Path], before_and_after: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """Killed -9 in the middle: old or new version, never neither; the second run ends like an undisturbed one."""
    assert check_killed(60, bundles[1], before_and_after, tmp_path / "box") == 0


@pytest.mark.soak
def test_killed_at_every_step_and_run_again_it_is_whole(
    bundles: tuple[Path, Path], before_and_after: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """The same at steps spread over all that it does to files, and at each of the last ones, which are the switch."""
    steps = check_killed(1 << 20, bundles[1], before_and_after, tmp_path / "box")
    assert steps > 100
    spread = {number * steps // share for share in (share_of(40, at_least=3),) for number in range(share)}
    for step in sorted(spread | set(range(steps - share_of(25, at_least=12), steps))):
        assert check_killed(step, bundles[1], before_and_after, tmp_path / "box") == 0
