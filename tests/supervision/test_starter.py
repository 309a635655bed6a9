"""The main thread's wait for orders: whatever signal comes, it goes on."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.helpers.repository import ROOT

PROGRAM = """
    import signal, time
    from agent.supervision.starter import Starter

    signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.3))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    Starter().serve(0.2)
    print("goes on")
"""


def test_a_signal_at_the_wrong_moment_does_not_hold_the_main_thread() -> None:
    """A handler that is at work when the wait is over does not turn it into one without end."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "goes on\n", done.stderr
