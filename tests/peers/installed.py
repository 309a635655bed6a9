"""The peers that `make test-peers` installs: where they are, and how a test starts one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = ROOT / "tests" / "peers"
INSTALLED = ROOT / "build" / "peers"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE_SECONDS = 240.0


def needs_peer(name: str) -> pytest.MarkDecorator:
    """Skip where a peer is not installed, and say which way it comes."""
    missing = not (INSTALLED / f"{name}.sha256").is_file()
    how = "by `make test-peers`" if shutil.which("npm") else "by `make test-peers`, where npm is"
    return pytest.mark.skipif(missing, reason=f"the peer {name} is not installed; it comes {how}")


def node(script: str, *arguments: str) -> list[str]:
    """Return the command that runs one of the scripts in npm/."""
    return ["node", str(HERE / "npm" / script), *arguments]


def environment() -> dict[str, str]:
    """Let the scripts find their packages."""
    return os.environ | {"NODE_PATH": str(INSTALLED / "npm" / "node_modules"), "NO_UPDATE_NOTIFIER": "1"}


def facts_of(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script to its end and read the JSON that it printed."""
    done = subprocess.run(
        node(script, *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


@contextlib.contextmanager
def running(command: list[str], log_file: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, then SIGTERM; `more` goes into its environment."""
    with log_file.open("ab") as log:
        child = subprocess.Popen(command, env=environment() | more, stdout=log, stderr=log)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(30)


class Recorder:
    """npm's mqtt as a subscriber with a persistent session; `messages` is what it has got so far."""

    def __init__(self, folder: Path, port: int, protocol_version: int, *topics: str) -> None:
        """`protocol_version` is 5, or 4 for MQTT 3.1.1."""
        name = f"npm-{protocol_version}"
        self.file = folder / f"{name}.jsonl"
        self._settings = {
            "url": f"mqtt://127.0.0.1:{port}",
            "clientId": name,
            "protocolVersion": protocol_version,
            "topics": list(topics),
            "out": str(self.file),
        }
        self._log_file = folder / f"{name}.log"

    def run(self) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run it; a second time it finds its session and goes on in the same file."""
        return running(node("record.js", json.dumps(self._settings)), self._log_file)

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        complete = self.file.read_text().rpartition("\n")[0]
        return [line for line in map(json.loads, filter(None, complete.split("\n"))) if line["kind"] == kind]

    @property
    def subscriptions(self) -> list[dict[str, Any]]:
        """Each time that the broker granted what it had asked for."""
        return self._lines("subscribed")

    def messages(self, topic_part: str = "") -> list[dict[str, Any]]:
        """Give those on topics with this part, in the order of arrival, repeats included."""
        return [message for message in self._lines("message") if topic_part in message["topic"]]
