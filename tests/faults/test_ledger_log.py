"""The write-ahead log: damage that was seen stays seen, and what failed commits leave behind is no damage."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import Fatal
from agent.ledger import NewResult, database, open_ledger
from agent.records import FileIdentity, SettledFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.ledger import Ledger

COMPILER = shutil.which("cc") or shutil.which("gcc")
STRIPS = 20


def files(*numbers: int) -> list[SettledFile]:
    """Make settled files."""
    return [SettledFile("top", f"{number:05d}.tif", FileIdentity(10, number, 1)) for number in numbers]


def judge_all(ledger: Ledger) -> None:
    """Judge everything that waits; nothing is acknowledged."""
    while (strip := ledger.strips.next_waiting("top", 0, ())) is not None:
        result = NewResult("ok", "", 0.1, "m", 0, "d", "event/strip/top", dispose=False)
        ledger.strips.commit(strip, result, lambda seq, _: json.dumps({"msg_id": seq}).encode(), 10**6)


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, str]:
    """Leave a ledger as a kill does, with a damaged log; return its path and its stream."""
    path, crashed = tmp_path / "ledger.db", tmp_path / "crashed" / "ledger.db"
    crashed.parent.mkdir()
    ledger = open_ledger(path)
    ledger.strips.begin(files(*range(STRIPS)))
    judge_all(ledger)
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    stream = ledger.database.stream
    ledger.database.close()
    log = crashed.with_name("ledger.db-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 70] = b"garbage" * 10
    log.write_bytes(data)
    return crashed, stream


def check_new_stream(path: Path, stream: str, log: bytes) -> None:
    """Open it: a new stream, the damaged ledger set aside together with its log, no id used twice."""
    ledger = open_ledger(path)
    try:
        assert ledger.database.stream != stream
        assert ledger.report.audit().balanced
        ledger.strips.begin(files(*range(STRIPS)))
        judge_all(ledger)
        assert ledger.report.balances()[0].seen == STRIPS
        aside = [copy for copy in path.parent.glob("ledger.db.corrupt.*") if not copy.name.endswith("-wal")]
        assert len(aside) == 1
        assert Path(f"{aside[0]}-wal").read_bytes() == log
        assert {p.name for p in path.parent.iterdir()} - {"ledger.db", "ledger.db-wal", "ledger.db-shm"} == {
            aside[0].name,
            f"{aside[0].name}-wal",
        }
        kept = ledger.database.stream
    finally:
        ledger.database.close()
    ledger = open_ledger(path)
    assert ledger.database.stream == kept, "the new ledger is not taken for the damaged one"
    assert ledger.database.set_aside is None
    ledger.database.close()


def test_what_is_set_aside_has_its_log_with_it(damaged: tuple[Path, str]) -> None:
    """Closing the damaged ledger would let SQLite remove the log: whoever looks into it later would find nothing."""
    path, stream = damaged
    check_new_stream(path, stream, path.with_name("ledger.db-wal").read_bytes())


@pytest.mark.parametrize("links", [True, False])
def test_damage_stays_known_on_a_full_disk(
    damaged: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    """No room for the new ledger, three starts long: each ends and says why; with room again a new stream begins."""
    path, stream = damaged
    log = path.with_name("ledger.db-wal").read_bytes()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def no_links(*_: object) -> None:
        raise PermissionError("this file system has no second names")

    with monkeypatch.context() as patched:
        patched.setattr(database, "salvage", full)
        if not links:
            patched.setattr(os, "link", no_links)
        for _ in range(3):
            with pytest.raises(Fatal, match="cannot be replaced yet"):
                open_ledger(path)
            gc.collect()  # as the end of the process: SQLite closes the damaged ledger
    check_new_stream(path, stream, log)


class PowerCutError(BaseException):
    """The process ends here."""


def test_damage_stays_known_after_a_kill_at_any_step(damaged: tuple[Path, str], tmp_path: Path) -> None:
    """Between any two changes of the folder: the next start begins the new stream, once."""
    path, stream = damaged
    log = path.with_name("ledger.db-wal").read_bytes()
    for place in range(100):
        folder = tmp_path / f"cut {place}"
        shutil.copytree(path.parent, folder)
        with pytest.MonkeyPatch.context() as patched:
            countdown = [place]
            for owner, name in ((os, "link"), (Path, "rename"), (Path, "replace"), (Path, "unlink"), (os, "fsync")):
                patched.setattr(owner, name, cut_off(getattr(owner, name), countdown))
            try:
                open_ledger(folder / path.name).database.close()
            except PowerCutError:
                ended = False
            else:
                ended = True
        gc.collect()
        if ended:
            assert place > 8
            return
        if place % 3 == 1:  # and a second one
            with pytest.MonkeyPatch.context() as patched, suppress(PowerCutError):
                patched.setattr(Path, "replace", cut_off(Path.replace, [0]))
                open_ledger(folder / path.name).database.close()
            gc.collect()
        check_new_stream(folder / path.name, stream, log)
    pytest.fail("it never came to its end")


def cut_off(real: Callable[..., Any], countdown: list[int]) -> Callable[..., Any]:
    """Let the process end when it has made so many of these calls; it makes none afterwards."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if countdown[0] <= 0:
            raise PowerCutError
        countdown[0] -= 1
        return real(*args, **kwargs)

    return wrapped


FAILING = """
import os, sys
from pathlib import Path
from agent.errors import Retry
from agent.ledger import open_ledger
from tests.faults.test_ledger_log import files

path, fails = Path(sys.argv[1]), Path(os.environ["FLUSH_FAILS"])
ledger = open_ledger(path)
ledger.strips.begin(files(*range(5)))
fails.touch()
for numbers in (range(100, 400), range(100, 250), range(100, 180)):
    try:
        ledger.strips.begin(files(*numbers))
    except Retry:
        continue
    sys.exit("a commit that was not flushed was taken for one")
fails.unlink()
ledger.strips.begin(files(1000))
print(ledger.database.stream)
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler to let flushes fail (apt-get install gcc libc6-dev)")
def test_what_failed_flushes_leave_behind_is_no_damage(tmp_path: Path) -> None:
    """Commits that could not be flushed, each shorter than the one before, a good one, a kill: nothing is set aside."""
    library, source = tmp_path / "flush.so", Path(__file__).with_name("flush.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    env = os.environ | {"LD_PRELOAD": str(library), "FLUSH_FAILS": str(tmp_path / "fails")}
    path = tmp_path / "ledger.db"
    ran = subprocess.run(
        [sys.executable, "-c", FAILING, str(path)], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == -9, ran.stderr
    ledger = open_ledger(path)
    assert ledger.database.set_aside is None
    assert ledger.database.stream == ran.stdout.strip()
    assert ledger.strips.known(files(0, 4, 1000)) == {"00000.tif", "00004.tif", "01000.tif"}
    assert ledger.report.audit().balanced
    ledger.database.close()
