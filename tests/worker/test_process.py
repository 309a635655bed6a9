"""What the worker asks of the kernel: a candidate leaves the cores to the line, and an accepted model has its share."""

from __future__ import annotations

import errno
import os
import shutil
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
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
    import ctypes, encodings.ascii, os, socket, sys, threading  # nobody may not read where Python lives
    from agent.worker.process import die_with_the_supervisor, give_up_the_network

    if sys.argv[1] == "nobody":
        os.setresgid(65532, 65532, 65532)
        os.setresuid(65531, 65531, 65531)
        ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: as a program that was started by this user
    ours, theirs = socket.socketpair()
    die_with_the_supervisor(os.getppid())
    print(give_up_the_network())
    signal = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(signal))  # PR_GET_PDEATHSIG
    open(sys.argv[2], "x").close()
    theirs.sendall(b"heard")
    status = open("/proc/self/status").read()
    print(signal.value, ours.recv(9).decode(), os.getuid(), os.getgid(), os.stat(sys.argv[2]).st_uid)
    print(int(status.split("CapEff:")[1].split()[0], 16))

    def answer(call):
        try:
            call()
        except OSError as error:
            return error.errno
        return "done"

    def try_all():
        print(*(answer(lambda: socket.socket(family)) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)))
        libc = ctypes.CDLL(None, use_errno=True)
        print(libc.syscall(425, 1, None), ctypes.get_errno())  # io_uring_setup
        print(libc.syscall(0x40000000 | 39))  # getpid by the numbers of x32

    thread = threading.Thread(target=try_all)
    thread.start()
    thread.join()
"""


def _give_up(who: str, *prefix: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [*prefix, sys.executable, "-c", textwrap.dedent(ALONE), who, str(Path(folder) / who)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("who", ["root", "nobody"])
def test_a_worker_has_no_network_and_keeps_all_else(who: str) -> None:
    """Not even the box's own, in no thread; its files, user, socket pair and its supervisor's last signal stay."""
    allowed, kept, _, sockets, *past_it = _give_up(who)
    if allowed == "False":
        pytest.skip("the kernel has no filter for system calls")
    assert kept == {"root": "9 heard 0 0 0", "nobody": "9 heard 65531 65532 65531"}[who]
    assert sockets.split() == [str(errno.EPERM)] * 3
    assert past_it == [f"-1 {errno.EPERM}", "-1"]


@pytest.mark.root
@needs_root
def test_giving_up_the_network_costs_no_capability() -> None:
    """One that was granted, to read cameras' files say, is still there."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    granted = "-all,+dac_read_search"
    allowed, _, capabilities, *_ = _give_up("root", "setpriv", f"--bounding-set={granted}", f"--inh-caps={granted}")
    assert allowed == "True"
    assert int(capabilities) & 4  # CAP_DAC_READ_SEARCH
