"""What the worker asks of the kernel: a candidate leaves the cores to the line, and an accepted model has its share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

PROGRAM = """
    import encodings.ascii, os, resource, sys, threading  # nobody may not read where Python lives
    from agent.worker.process import step_back

    def nice():
        return sorted(os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task"))

    if sys.argv[1] != "root":
        limit = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_NICE, (limit, limit))
        os.setuid(65534)  # a service has no privileges
    begun, over = threading.Event(), threading.Event()
    def work():
        begun.set()
        over.wait()
    step_forward = step_back()
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
    print(nice())
    step_forward()
    print(nice())
    over.set()
"""


def _run(nice_limit: str, *, nice: int = 0) -> list[str]:
    more = nice - os.getpriority(os.PRIO_PROCESS, 0)
    command = ["nice", "-n", str(more), sys.executable, "-c", textwrap.dedent(PROGRAM), nice_limit]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    if "not allowed to raise maximum limit" in done.stderr:
        pytest.skip("root may not raise limits here (no CAP_SYS_RESOURCE)")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


@pytest.mark.root
@needs_root
def test_a_candidate_stands_back_with_all_threads_and_comes_forward_again() -> None:
    """With the limit that the unit sets, a service without privileges can do both."""
    assert _run("20") == ["[10, 10]", "[0, 0]"]


@pytest.mark.root
@needs_root
def test_a_candidate_of_roots_stands_back_and_comes_forward_again() -> None:
    """No limit is needed where the process may do it anyway."""
    assert _run("root") == ["[10, 10]", "[0, 0]"]


@pytest.mark.root
@needs_root
def test_where_the_way_back_is_barred_nothing_is_changed() -> None:
    """A worker that is slow for ever would be worse than a trial that is felt."""
    assert _run("0") == ["[0, 0]", "[0, 0]"]


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("who", ["root", "0"])
@pytest.mark.parametrize("nice", [5, 10, 15])
def test_the_nice_value_of_the_service_is_what_a_candidate_comes_back_to(who: str, nice: int) -> None:
    """Whoever runs the service modestly, or more modestly than a candidate, finds it so for ever."""
    before, after = _run(who, nice=nice)
    modest = max(nice, 10) if who == "root" else nice
    assert (before, after) == (f"[{modest}, {modest}]", f"[{nice}, {nice}]")


ALONE = """
    import ctypes, encodings.ascii, os, socket, sys  # nobody may not read where Python lives
    from agent.worker.process import die_with_the_supervisor, leave_the_network, step_back

    if sys.argv[1] == "nobody":
        os.setresgid(65532, 65532, 65532)
        os.setresuid(65531, 65531, 65531)
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: as a program that was started by this user
    ours, theirs = socket.socketpair()
    before = os.readlink("/proc/self/ns/net")
    die_with_the_supervisor(os.getppid())
    left = leave_the_network()
    signal = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(signal))  # PR_GET_PDEATHSIG
    open(sys.argv[2], "x").close()
    theirs.sendall(b"heard")
    status = open("/proc/self/status").read()
    print(left, os.readlink("/proc/self/ns/net") != before)
    print(signal.value, ours.recv(9).decode(), os.getuid(), os.getgid(), os.stat(sys.argv[2]).st_uid)
    print(int(status.split("CapEff:")[1].split()[0], 16))
    print(*(name for _, name in socket.if_nameindex()))
    with socket.socket() as call:
        call.settimeout(5)
        print(call.connect_ex(("127.0.0.1", int(sys.argv[3]))) != 0)
"""


def _leave(who: str, *prefix: str) -> list[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        arguments = [who, str(Path(folder) / who), str(listener.getsockname()[1])]
        command = [*prefix, sys.executable, "-c", textwrap.dedent(ALONE), *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("who", ["root", "nobody"])
def test_a_worker_has_no_network_and_keeps_all_else(who: str) -> None:
    """Not even the box's own; its files, its user, its socket pair and the signal of the supervisor's death stay."""
    left, kept, capabilities, interfaces, refused = _leave(who)
    if left.startswith("False"):
        pytest.skip("the system allows no network namespace")
    assert left == "True True"
    assert kept == {"root": "9 heard 0 0 0", "nobody": "9 heard 65531 65532 65531"}[who]
    assert (capabilities == "0") == (who == "nobody")
    assert interfaces == "lo"
    assert refused == "True"


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("granted", ["-sys_admin", "-all,+dac_read_search"])
def test_a_worker_that_may_not_leave_the_network_stays_as_it_is(granted: str) -> None:
    """Where it is forbidden, or would cost a capability that was granted, nothing happens."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    bounding = [f"--bounding-set={granted}", f"--inh-caps={granted}"]
    left, kept, capabilities, *_ = _leave("root", "setpriv", *bounding)
    assert left == "False False"
    assert kept.startswith("9 heard 0 0")
    assert int(capabilities) & 4  # CAP_DAC_READ_SEARCH
