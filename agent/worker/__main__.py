"""The worker process, `python -m agent.worker FD SUPERVISOR`: load a model, then answer one job after the other.

It ends when the supervisor closes the socket, and is killed by the kernel when the supervisor dies. Its standard
output is nobody's: the protocol has a descriptor of its own, and everything printed goes to standard error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wire
from agent.contract.measures import format_reference
from agent.errors import Reason, Reject, Retry
from agent.wire import Job, Judging, Loaded, Opening, Reading, Refused, Setup, Writing
from agent.worker.memory import set_limit
from agent.worker.process import (
    die_with_the_supervisor,
    give_memory_back,
    give_up_the_network,
    set_oom_score,
    stay_behind,
    step_back,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.worker.judge import Fetched, Judge

REST_SECONDS = 30.0  # without a strip: the next one would wait while 10 MiB are taken from the system page by page
SPEAK_EVERY_SECONDS = 0.2  # while a file comes slowly


def main() -> None:
    """Run until the supervisor is gone."""
    die_with_the_supervisor(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with socket.socket(fileno=int(sys.argv[1])) as link, link.makefile("rb") as lines:
        setup = wire.decode(lines.readline(wire.MAX_LINE_BYTES) or sys.exit(0))
        assert isinstance(setup, Setup)  # noqa: S101 - the supervisor's first word
        with Path(setup.lock_file).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)  # a new supervisor waits until every old worker has let go
            come_forward = _take_role(setup)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the supervisor has gone: so do we
                _serve(setup, link, lines, come_forward)


def _serve(setup: Setup, link: socket.socket, lines: Iterable[bytes], come_forward: Callable[[], None]) -> None:
    # Imported here: under the memory limit, and after the death signal is armed.
    from agent.worker.judge import Judge  # noqa: PLC0415
    from agent.worker.model import load_model, read_model  # noqa: PLC0415
    from agent.worker.providers import prove_with  # noqa: PLC0415

    say = Voice(link).say
    say(Opening())
    start = time.perf_counter()
    try:
        content = read_model(Path(setup.model_file), setup.model_sha256)
        model = load_model(content, threads=setup.threads, unlabelled_input_scale=setup.unlabelled_input_scale)
        load_ms = (time.perf_counter() - start) * 1e3
        model, proof, refused = prove_with(
            setup.provider,
            model,
            content,
            threads=setup.threads,
            before_timing=come_forward,
            is_accepted=setup.role != "candidate",
        )
        del content
    except Reject as refusal:
        say(Refused(refusal.reason, refusal.detail, box_fault=False))
        return
    except Retry as later:
        say(Refused(later.reason, later.detail, box_fault=True))
        return
    except (OSError, ImportError) as error:  # no descriptors, a library that is being replaced: not the model's doing
        say(Refused(Reason.IO_ERROR, f"{type(error).__name__}: {error}", box_fault=True))
        return
    facts = model.facts
    golden = proof.golden_difference
    say(
        Loaded(
            labelled=facts.labelled,
            model_id=facts.model_id,
            version=facts.version,
            height=facts.height,
            width=facts.width,
            golden="none" if golden is None else "passed",
            golden_difference=golden or 0.0,
            threshold=facts.threshold,
            load_ms=load_ms,
            run_ms=proof.run_ms,
            cpu_ms=proof.cpu_ms,
            input_scale=facts.input_scale,
            provider=model.provider,
            provider_refused=refused,
            reference="" if facts.reference is None else format_reference(facts.reference),
        )
    )
    judge = Judge.of(model, setup)
    give_memory_back()
    for number, fetched in enumerate(_fetch_ahead(judge, lines, say)):
        if number == 0 and setup.role == "candidate":  # one that gets strips has been accepted
            set_oom_score("worker")
        say(Judging(fetched.job.strip_id))
        say(judge.answer(fetched, partial(say, Writing(fetched.job.strip_id))))


class Voice:
    """Speaks to the supervisor, for any thread."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._lock = threading.Lock()

    def say(self, message: wire.Message) -> None:
        """Send a message. Raises OSError when nobody listens."""
        with self._lock:
            self._link.sendall(wire.encode(message))


def _tell_that_it_comes(job: Job, say: Callable[[wire.Message], None]) -> Callable[[], None]:
    """Return what is to be called as parts of the strip's file come; it speaks only where that takes long."""
    spoke = time.monotonic()

    def progress() -> None:
        nonlocal spoke
        if time.monotonic() - spoke >= SPEAK_EVERY_SECONDS:
            spoke = time.monotonic()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the end of the lines comes next
                say(Reading(job.strip_id))

    return progress


def _fetch_ahead(judge: Judge, lines: Iterable[bytes], say: Callable[[wire.Message], None]) -> Iterator[Fetched]:
    """Read the next strip's file while the one before it is judged.

    Nothing but reading is done ahead: what kills a worker does so while its own strip is the oldest that is unanswered.
    """
    ahead: queue.Queue[Fetched | None] = queue.Queue(maxsize=1)

    def fetch() -> None:
        try:
            for line in lines:
                job = wire.decode(line)
                assert isinstance(job, Job)  # noqa: S101 - the supervisor says nothing else
                ahead.put(judge.fetch(job, _tell_that_it_comes(job, say)))
        finally:
            ahead.put(None)

    threading.Thread(target=fetch, name="fetch", daemon=True).start()
    rested = False
    while True:
        try:
            fetched = ahead.get(timeout=None if rested else REST_SECONDS)
        except queue.Empty:  # what many strips in a row left in the allocator is nobody's now
            give_memory_back()
            rested = True
            continue
        if fetched is None:
            return
        rested = False
        yield fetched


def _take_role(setup: Setup) -> Callable[[], None]:
    """Set what the role allows; returns what ends a candidate's standing back."""
    set_oom_score(setup.role)
    if setup.memory_mib is not None:
        set_limit(setup.memory_mib)
    if setup.role == "shadow":
        stay_behind()
    come_forward = step_back() if setup.role == "candidate" else lambda: None
    give_up_the_network()  # `strip-agent doctor` tells whether it can
    return come_forward


if __name__ == "__main__":
    main()
    os._exit(0)  # without waiting for a thread that hangs on a share
