"""The supervisor's end of a worker process: start it, give it strips, notice that it died or hangs, end it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

from agent import wire
from agent.errors import Blame, Reason, Reject, Retry
from agent.supervision.stderr import LINES_KEPT, drain
from agent.wire import Failed, Job, Judged, Judging, Loaded, Opening, Reading, Refused, Setup, Writing

log = logging.getLogger(__name__)

REAP_SECONDS = 5.0
LAST_WORDS_SECONDS = 5.0  # while memory is short, the kernel takes its time to end a process
ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime would upload usage data
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}
TOLD_TO_END = (-signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT, -signal.SIGQUIT)  # no fault of a program sends these
STOOD_STILL_SECONDS = 1.0  # a look at a worker that comes later than this shows that this process was kept from it


class WorkerHandle:
    """One worker process. Start it from the main thread: it dies with the thread that started it.

    The strips that it is at are known here and nowhere else. Used by one thread at a time, except `kill`, `stand_still`
    and `go_on`, which anyone may call. Raises OSError where the box cannot start one.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.facts: Loaded | None = None  # once it has loaded its model
        self._buffer = b""
        self._jobs: deque[Job] = deque()
        self._opens = False  # it has got as far as opening the model
        self._reads = False  # it has not got the whole file of the oldest job
        self._busy_since = self._looked_at = time.monotonic()  # when it began what it is at now; the last look at it
        self._stderr: deque[str] = deque(maxlen=LINES_KEPT)
        self._killed_by_us = False
        self._left_behind = False  # it was killed and does not end
        self._starved_seconds = 0.0  # when its time was over
        self._memory_kills = count_memory_kills()
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                self._selector = selectors.DefaultSelector()
                undo.callback(self._selector.close)
                self._selector.register(ours, selectors.EVENT_READ)
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "agent.worker", str(theirs.fileno()), str(os.getpid())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=os.environ | ENVIRONMENT,
                )
            undo.callback(self._reap)
            undo.callback(self._process.kill)
            self._drain = threading.Thread(target=self._drain_stderr, name=f"worker-{self.pid}-stderr", daemon=True)
            try:
                self._drain.start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, str(error)) from error
            undo.pop_all()
        self._socket = ours
        self._send(wire.encode(setup))

    @property
    def pid(self) -> int:
        """Process id, for the log."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def starved_seconds(self) -> float:
        """How long it had waited for a processor in all its life when its time was over; 0.0 before."""
        return self._starved_seconds

    @property
    def opens(self) -> bool:
        """Whether it has got as far as opening its model: from then on it dies with the supervisor, for certain."""
        return self._opens

    @property
    def hangs(self) -> bool:
        """Whether it was killed and is still there: it hangs in the kernel, on a dead share or disk."""
        return self._left_behind and self.alive

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What it has been given and not answered; the first is what it is at."""
        return tuple(self._jobs)

    def poll_loaded(self, timeout_seconds: float, deadline_seconds: float) -> Loaded | None:
        """Wait for the model to be loaded and proved; None when it is still at it.

        Raises Reject where the model is to blame (also for a crash or for taking longer than `deadline_seconds`), and
        Retry where the box is, as it is for all that happens before the worker says that it opens the model.
        """
        try:
            message = self._receive(timeout_seconds, deadline_seconds)
        except Retry as lost:
            if self._killed_by_others:
                detail = f"{lost.detail}; the kernel does that when memory runs out"
                raise Retry(Reason.KILLED, detail, Blame.BOX) from lost
            if not self._opens or self._process.returncode in TOLD_TO_END:
                when = "while it held the model" if self._opens else "before it opened the model"
                raise Retry(Reason.WORKER_ENDED, f"{lost.detail} ({when})", Blame.BOX) from lost
            if lost.reason is Reason.WORKER_CRASHED:
                raise Reject(Reason.MODEL_CRASHED, lost.detail, model_fault=True) from lost
            if self._starved_seconds > deadline_seconds / 2:
                detail = f"{lost.detail}; it waited {self._starved_seconds:.0f} s for a processor"
                raise Retry(Reason.MODEL_TRIAL_TIMEOUT, detail, Blame.BOX) from lost
            raise Reject(Reason.MODEL_TRIAL_TIMEOUT, lost.detail, model_fault=True) from lost
        if isinstance(message, Refused):
            if message.box_fault:
                raise Retry(Reason(message.reason), message.detail, Blame.BOX)
            raise Reject(Reason(message.reason), message.detail, model_fault=True)
        if isinstance(message, Opening):
            self._opens = True
            self._busy_since = time.monotonic()
        elif isinstance(message, Loaded):
            self.facts = message
        return self.facts

    def send(self, job: Job) -> None:
        """Give it one more strip; what a dead worker does with it shows at the next `poll`."""
        if not self._jobs:
            self._begin()
        self._jobs.append(job)
        self._send(wire.encode(job))

    def poll(self, timeout_seconds: float, deadline_seconds: float) -> Judged | Failed | None:
        """Wait for the answer to the oldest job; None when it is still at it.

        Raises Retry when it died or took longer than `deadline_seconds`; it is gone then. The worker is to blame, but
        the box where for so long nothing came of the strip's file, or somebody told the worker to end. The reason is
        `killed` where the kernel did it for lack of memory, which is no fault of the strip.
        """
        give_up = time.monotonic() + timeout_seconds
        while True:
            message = self._receive(max(0.0, give_up - time.monotonic()), deadline_seconds)
            if message is None:
                return None
            if not isinstance(message, Reading | Judging | Writing):
                break
            self._note_progress(message)
        if not isinstance(message, Judged | Failed) or message.strip_id != self._jobs[0].strip_id:
            self.kill()
            raise Retry(Reason.WORKER_CRASHED, f"worker {self.pid} answered out of turn: {message}", Blame.WORKER)
        self._jobs.popleft()
        self._begin()
        return message

    def _begin(self) -> None:
        """Note that its time for the oldest job, the file first, begins."""
        self._reads = True
        self._busy_since = self._looked_at = time.monotonic()

    def _note_progress(self, message: Reading | Judging | Writing) -> None:
        """Its time begins anew with each part of the file, and once it has all of it; read ahead, that says nothing.

        The time that it may take for writing heatmaps does not count.
        """
        if message.strip_id == self._jobs[0].strip_id:
            self._busy_since = time.monotonic() + (self.setup.heatmap_seconds if isinstance(message, Writing) else 0.0)
            self._reads = self._reads and isinstance(message, Reading)

    def close(self, grace_seconds: float = 5.0) -> None:
        """End it: it leaves when its socket closes; after `grace_seconds` it is killed."""
        self._socket.close()
        self._selector.close()
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self._reap()

    def stand_still(self) -> None:
        """Have the kernel stop it where it is, until `go_on`; its memory stays. For any thread."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it go on where it was stopped. For any thread."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._killed_by_us = True
        self._process.kill()

    def _reap(self) -> int:
        """Wait until a killed worker is gone; one that hangs in the kernel, on a dead share, is left behind."""
        try:
            return self._process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            log.critical("worker %d does not end: it hangs in the kernel", self.pid)
            self._left_behind = True
            return -signal.SIGKILL

    def _drain_stderr(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - stderr=PIPE above
        with self._process.stderr as stderr:
            drain(stderr, self.pid, self._stderr)

    @property
    def _killed_by_others(self) -> bool:
        return self._process.returncode == -signal.SIGKILL and not self._killed_by_us

    @property
    def _killed_for_memory(self) -> bool:
        return self._killed_by_others and count_memory_kills() > self._memory_kills

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except OSError as error:
            log.debug("worker %d no longer listens: %s", self.pid, error)

    def _look(self, up_to_seconds: float) -> bool:
        """Wait for a word of the worker.

        The time in which this process was stopped or starved is not the worker's, which may have stood still as well.
        """
        before = self._looked_at
        found = bool(self._selector.select(up_to_seconds))
        self._looked_at = time.monotonic()
        if self._looked_at - before > up_to_seconds + STOOD_STILL_SECONDS:
            self._busy_since += self._looked_at - before
        return found

    def _receive(self, timeout_seconds: float, deadline_seconds: float) -> wire.Message | None:
        give_up = time.monotonic() + timeout_seconds
        while b"\n" not in self._buffer:
            deadline = self._busy_since + deadline_seconds
            if not self._look(max(0.0, min(give_up, deadline) - time.monotonic())):
                late = time.monotonic() >= self._busy_since + deadline_seconds
                if late and not self._selector.select(0):  # a signal may have ended the look with an answer lying there
                    raise self._end_at_the_deadline(deadline_seconds)
                if not late and time.monotonic() >= give_up:
                    return None
                continue
            chunk = self._read()
            if not chunk:
                raise self._why_it_ended()
            if len(self._buffer) > wire.MAX_LINE_BYTES:
                self.kill()
                raise Retry(Reason.WORKER_CRASHED, f"worker {self.pid} never ends its line", Blame.WORKER)
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return wire.decode(line)
        except ValueError as error:
            self.kill()
            raise Retry(Reason.WORKER_CRASHED, f"worker {self.pid}: {error}", Blame.WORKER) from error

    def _end_at_the_deadline(self, deadline_seconds: float) -> Retry:
        self._starved_seconds = starved_seconds(self.pid)
        self.kill()
        self._reap()
        if self._jobs and self._reads:
            return Retry(Reason.UNREADABLE, f"nothing came of its file for {deadline_seconds:g} s", Blame.BOX)
        what = f"worker {self.pid} did not answer within {deadline_seconds:g} s and was killed"
        return Retry(Reason.WORKER_TIMEOUT, what, Blame.WORKER)

    def _why_it_ended(self) -> Retry:
        words = self._last_words()
        if self._killed_for_memory:
            return Retry(Reason.KILLED, f"{words}: the kernel did it, because memory ran out", Blame.WORKER)
        if self._jobs and self._process.returncode in TOLD_TO_END:
            return Retry(Reason.WORKER_ENDED, words, Blame.BOX)
        return Retry(Reason.WORKER_CRASHED, words, Blame.WORKER)

    def _read(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def _last_words(self) -> str:
        try:
            code = self._process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            self.kill()
            code = self._reap()
        self._drain.join(LAST_WORDS_SECONDS)
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = "; ".join(list(self._stderr)[-3:])
        return f"worker {self.pid} {how}{': ' + words if words else ''}"


def starved_seconds(pid: int) -> float:
    """Return how long the thread of a process that waited longest was ready to run and given no processor."""
    waited = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread has ended; a kernel without the figure
            waited = max(waited, int(path.read_text(encoding="ascii").split()[1]))
    return waited / 1e9


def count_memory_kills() -> int:
    """Return how many processes the kernel has killed since the boot because memory ran out, of the box or a cgroup."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0
