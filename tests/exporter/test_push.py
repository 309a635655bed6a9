"""Pushing to a folder, and over SFTP to a real OpenSSH server: complete under the final name, or not there."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.helpers.broker import free_port
from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tests.helpers.tcp_proxy import TcpProxy
from tools.export import main
from tools.exporter.errors import ExportError
from tools.exporter.keys import make_keys, manifest_path, read_manifest, sign_model, verify_model
from tools.exporter.push import SshOptions, push_model

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh-keygen") is None, reason="needs OpenSSH's server and tools: sshd, ssh-keygen"
)
DEADLINE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running sshd that only offers SFTP; `inbox` is where models go."""

    port: int
    inbox: Path
    options: SshOptions

    def target(self, port: int | None = None) -> str:
        """Where to push, by default without a detour."""
        return f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{port or self.port}{self.inbox}"


def _make_ssh_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Start OpenSSH's server with internal-sftp on a loopback port, as an ordinary child process."""
    assert SSHD
    folder = tmp_path / "ssh"
    (inbox := tmp_path / "inbox").mkdir()
    folder.mkdir(mode=0o700)
    host_key, port = _make_ssh_key(folder / "host"), free_port()
    (folder / "authorized").write_text(_make_ssh_key(folder / "user"))
    (folder / "authorized").chmod(0o600)
    (folder / "known_hosts").write_text(f"* {host_key}")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"Subsystem sftp internal-sftp\nForceCommand internal-sftp\nMaxStartups 100\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd as root locks its unprivileged half in
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "config")], stderr=log)
        try:
            _wait_for_port(port, process, folder / "log")
            yield Server(port, inbox, SshOptions(folder / "user", folder / "known_hosts"))
        finally:
            process.terminate()
            process.wait(DEADLINE_SECONDS)


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    pytest.fail(f"sshd does not answer: {log.read_text()}")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Make a signed model of a few megabytes, so that a push takes a moment."""
    path = tmp_path / "model.onnx"
    difference_model(path)
    content = path.read_bytes()
    make_keys(tmp_path / "line")
    # An unknown field of a protobuf is skipped: it makes the file large without changing the model.
    padding = os.urandom(3_000_000)
    path.write_bytes(content + bytes([0xFA, 0x3F]) + _varint(len(padding)) + padding)
    sign_model(path, tmp_path / "line.key", slot="default", rollback=False)
    return path


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def test_folder_gets_model_and_manifest(model: Path, tmp_path: Path) -> None:
    """Both arrive, nothing else stays, and what arrived verifies with the key."""
    (inbox := tmp_path / "inbox").mkdir()
    push_model(model, [str(inbox)], SshOptions())
    assert sorted(path.name for path in inbox.iterdir()) == ["model.onnx", "model.onnx.manifest.json"]
    assert any("signature fits" in line for line in verify_model(inbox / "model.onnx", [tmp_path / "line.pub"]))


def test_a_manifest_that_asks_for_a_shadow_comes_first(model: Path, tmp_path: Path) -> None:
    """Between the two the model would be one that is to be active; without a key it is not signed."""
    (inbox := tmp_path / "inbox").mkdir()
    run = CliRunner().invoke(main, ["push", str(model), str(inbox), "--shadow"])
    assert run.exit_code == 0, run.output
    assert "as a shadow, not signed" in run.output
    manifest = read_manifest(inbox / "model.onnx")
    assert manifest is not None
    assert (manifest.manifest.shadow, manifest.key_id) == (True, "")
    times = [(inbox / name).stat().st_ctime_ns for name in ("model.onnx.manifest.json", "model.onnx")]
    assert times == sorted(times)
    assert CliRunner().invoke(main, ["push", str(model), str(inbox)]).exit_code == 0
    manifest = read_manifest(inbox / "model.onnx")
    assert manifest is not None
    assert not manifest.manifest.shadow


def test_a_signed_shadow_is_not_pushed_as_something_else_by_accident(model: Path, tmp_path: Path) -> None:
    """Without --shadow it has to be signed anew."""
    (inbox := tmp_path / "inbox").mkdir()
    key = ["--sign", str(tmp_path / "line.key")]
    assert CliRunner().invoke(main, ["push", str(model), str(inbox), "--shadow", *key]).exit_code == 0
    refused = CliRunner().invoke(main, ["push", str(model), str(inbox)])
    assert "asks for a shadow and is signed" in str(refused.exception)
    assert CliRunner().invoke(main, ["push", str(model), str(inbox), *key]).exit_code == 0
    assert any("signature fits" in line for line in verify_model(inbox / "model.onnx", [tmp_path / "line.pub"]))


def test_no_planted_link_is_written_through(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not under the old name of unfinished files, and not where somebody guesses the new one."""
    (inbox := tmp_path / "inbox").mkdir()
    (victim := tmp_path / "victim").write_text("mine")
    (inbox / ".model.onnx.part").symlink_to(victim)
    push_model(model, [str(inbox)], SshOptions())
    monkeypatch.setattr("secrets.token_hex", lambda _count: "0" * 16)
    (inbox / f".model.onnx.{'0' * 16}.part").symlink_to(victim)
    with pytest.raises(ExportError, match="File exists"):
        push_model(model, [str(inbox)], SshOptions())
    assert victim.read_text() == "mine"


def test_parts_of_pushes_that_broke_off_are_removed_by_the_next(model: Path, tmp_path: Path) -> None:
    """Those that are an hour old; a push that is under way beside this one is left alone, and other names are."""
    (inbox := tmp_path / "inbox").mkdir()
    old, young, other = (inbox / f".{name}.onnx.{'0' * 15}{n}.part" for n, name in enumerate(["model", "model", "x"]))
    for path in (old, young, other):
        path.touch()
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    push_model(model, [str(inbox)], SshOptions())
    assert sorted(inbox.glob(".*.part")) == [young, other]


def test_flipped_byte_is_refused_by_digest(model: Path, tmp_path: Path) -> None:
    """A model that changed after it was signed is neither pushed nor verified."""
    (inbox := tmp_path / "inbox").mkdir()
    content = bytearray(model.read_bytes())
    content[-1000] ^= 1
    model.write_bytes(content)
    with pytest.raises(ExportError, match="changed after it was signed"):
        push_model(model, [str(inbox)], SshOptions())
    assert list(inbox.iterdir()) == []
    with pytest.raises(ExportError, match="digest_mismatch"):
        verify_model(model, [])


def test_other_key_does_not_verify(model: Path, tmp_path: Path) -> None:
    """A signature by an unknown key is named as such."""
    make_keys(tmp_path / "other")
    with pytest.raises(ExportError, match="key_unknown"):
        verify_model(model, [tmp_path / "other.pub"])


def test_secret_key_is_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    """Mode 0600, and a second keygen of the same name is refused."""
    make_keys(tmp_path / "line")
    assert (tmp_path / "line.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ExportError, match="never overwritten"):
        make_keys(tmp_path / "line")


def test_keys_are_not_written_through_a_planted_link(tmp_path: Path) -> None:
    """Where the public key would go to, too."""
    (tmp_path / "line.pub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match="choose another"):
        make_keys(tmp_path / "line")
    assert not (tmp_path / "elsewhere").exists()


def test_one_bad_target_does_not_stop_the_others(model: Path, tmp_path: Path) -> None:
    """Every target is tried; the command fails and names the one that did not work."""
    (inbox := tmp_path / "inbox").mkdir()
    inventory = tmp_path / "lines.txt"
    inventory.write_text(f"# both lines\n{tmp_path}/missing\n{inbox}  # line 2\n")
    result = CliRunner().invoke(main, ["push", str(model), "--inventory", str(inventory)])
    assert isinstance(result.exception, ExportError)
    assert "missing" in str(result.exception)
    assert (inbox / "model.onnx").read_bytes() == model.read_bytes()


def test_push_needs_no_torch(model: Path, tmp_path: Path) -> None:
    """Yesterday's file goes to line 2 from a machine without the training's libraries."""
    (inbox := tmp_path / "inbox").mkdir()
    blocked = "import sys; sys.modules['torch'] = None; sys.argv[0] = 'export.py'; import runpy; "
    script = str(ROOT / "tools" / "export.py")
    program = (
        blocked
        + f"sys.argv[1:] = ['push', {str(model)!r}, {str(inbox)!r}]; runpy.run_path({script!r}, run_name='__main__')"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert (inbox / "model.onnx").exists()


@needs_sshd
def test_sftp_push_cut_ten_times_then_succeeds(server: Server, model: Path) -> None:
    """The final name never holds a part, whenever the line is cut; the next push starts over and succeeds."""
    whole = model.read_bytes()
    final, manifest = server.inbox / model.name, manifest_path(server.inbox / model.name)
    seen_partial = threading.Event()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if final.exists() and final.read_bytes() != whole:
                seen_partial.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for cut in range(10):
            # From the handshake to the last tenth of the file.
            _push_and_cut(server, model, after_bytes=2000 + cut * len(whole) // 10)
            assert not final.exists()
            assert not manifest.exists()
        for part in server.inbox.iterdir():
            os.utime(part, (1, 1))  # long ago
        push_model(model, [server.target()], server.options)
    finally:
        done.set()
        watcher.join()
    assert not seen_partial.is_set()
    assert final.read_bytes() == whole
    assert manifest.read_bytes() == manifest_path(model).read_bytes()
    assert len(list(server.inbox.iterdir())) == 2


def _push_and_cut(server: Server, model: Path, *, after_bytes: int) -> None:
    with TcpProxy(server.port) as proxy:
        proxy.chunk_bytes = 16384

        def look(_sender: str, _data: bytes) -> None:
            if proxy.requests_bytes >= after_bytes:
                proxy.frozen = True  # however late the cut comes, nothing more has passed

        proxy.watch = lambda: look

        def cut_when_due() -> None:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not proxy.frozen and time.monotonic() < deadline:
                time.sleep(0.0005)
            proxy.refuse = True
            proxy.cut()

        cutter = threading.Thread(target=cut_when_due)
        cutter.start()
        with pytest.raises(ExportError, match="push again"):
            push_model(model, [server.target(proxy.port)], server.options)
        cutter.join()


@needs_sshd
def test_sftp_replaces_an_older_model(server: Server, model: Path) -> None:
    """A file of the same name is replaced in one step."""
    (server.inbox / model.name).write_bytes(b"older")
    push_model(model, [server.target()], server.options)
    assert (server.inbox / model.name).read_bytes() == model.read_bytes()


@needs_sshd
@pytest.mark.parametrize(
    ("fault", "says"),
    [("host key", "known_hosts"), ("user key", "--identity"), ("folder", "check that the folder exists")],
)
def test_sftp_refusals_say_what_to_do(server: Server, model: Path, tmp_path: Path, fault: str, says: str) -> None:
    """Unknown host key, wrong user key, missing folder."""
    options, target = server.options, server.target()
    if fault == "host key":
        (tmp_path / "none").touch()
        options = SshOptions(options.identity, tmp_path / "none")
    elif fault == "user key":
        _make_ssh_key(tmp_path / "stranger")
        options = SshOptions(tmp_path / "stranger", options.known_hosts)
    else:
        target += "/missing"
    with pytest.raises(ExportError, match=says) as refused:
        push_model(model, [target], options)
    assert "\n" not in str(refused.value)
    assert list(server.inbox.iterdir()) == []


@pytest.mark.parametrize("target", ["ftp://host/path", "ssh://host", "ssh://user:secret@host/path"])
def test_targets_that_are_none_are_refused(model: Path, target: str) -> None:
    """Other schemes, no path, a password on the command line."""
    with pytest.raises(ExportError, match="is no target"):
        push_model(model, [target], SshOptions())
