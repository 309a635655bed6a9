"""What the worker asks of the kernel: a candidate leaves the cores to the line, and an accepted model has its share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

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
