"""A line at work: two cameras at a steady rate, and a box with a launcher of its own."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from tests.helpers.box import Box, drop_file, unique_results
from tests.helpers.broker import Subscriber, wait_for
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

DOCS = ROOT / "docs"
SHORT = {
    "agent.models.intake.MANIFEST_GRACE_SECONDS": 1.0,
    "agent.models.keeper.BOX_PAUSE_SECONDS": 0.5,
    "agent.models.journey.BOX_PAUSE_SECONDS": 0.5,
    "agent.models.keeper.SHORTEST_HOLD_SECONDS": 1.0,
    "agent.models.rules.FIRST_PAUSE_SECONDS": 0.3,
    "agent.alarms.OFF_DELAY_SECONDS": 0.5,
}


class Plant(Box):
    """A box whose patience is short and that can be killed at a point."""

    def __init__(self, folder: Path, port: int, **sections: Any) -> None:
        super().__init__(folder, port, **sections)
        self.settings = folder / "settings.json"
        self.arm_file = folder / "armed.json"
        self.settings.write_text(json.dumps({"constants": SHORT, "arm_file": str(self.arm_file)}))
        self.program = [sys.executable, "-m", "tests.models.launch", str(self.settings)]

    def arm(self, point: str) -> None:
        """Have the supervisor killed as soon as it comes to this point."""
        temporary = self.arm_file.with_suffix(".new")
        temporary.write_text(json.dumps({"point": point, "kill": "supervisor"}))
        temporary.rename(self.arm_file)

    def slot(self, name: str = "default") -> dict[str, Any]:
        """Ask what the status says of a slot's models."""
        slot: dict[str, Any] = self.ask("status")["models"][name]
        return slot

    def active(self, name: str = "default") -> str:
        """Ask for the digest of the active model."""
        return str(self.slot(name)["active_sha256"])

    @property
    def slot_file(self) -> Path:
        """What the store remembers of the default slot."""
        return self.state / "store" / "slots" / "default.json"

    def active_on_disk(self) -> str:
        """Read the digest of the active model while the service is down."""
        return str(json.loads(self.slot_file.read_bytes())["active"]) if self.slot_file.exists() else ""

    def wait_until_active(self, sha256: str, seconds: float = 180) -> None:
        """Wait until a model is active and its worker has the strips."""

        def is_at_work() -> bool:
            status = self.ask("status")
            return bool(
                status["models"]["default"]["active_sha256"] == sha256
                and status["workers"]["default"]["model_sha256"] == sha256
            )

        wait_for(is_at_work, f"{sha256[:12]} is active (see {self.log_file})", seconds)

    def model(self, key: str) -> dict[str, Any] | None:
        """Ask for what the ledger has of a model, by its digest or its file's name."""
        rows = self.ask("models_list")["models"]
        return next((row for row in rows if key in (row["sha256"], row["file"])), None)


class Line:
    """Drops strips on all cameras in turn, at a steady rate, while it is open."""

    def __init__(
        self, box: Box, strips: list[Path], interval_seconds: float, *, first: int = 0, most: int | None = None
    ) -> None:
        """`first` is the number of the first strip; there are no more than `most` of them."""
        self.names: list[str] = []
        self.pause = threading.Event()
        """Set, it drops nothing."""
        self._first, self._most = first, most
        self._box = box
        self._strips = strips
        self._interval_seconds = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        cameras = [camera["name"] for camera in self._box.config["cameras"]]
        while not self._over.wait(self._interval_seconds):
            if self.pause.is_set() or len(self.names) == self._most:
                continue
            number = len(self.names)
            name = f"{self._first + number:05}.tif"
            drop_file(self._strips[number % len(self._strips)], self._box.camera(cameras[number % len(cameras)]) / name)
            self.names.append(name)


def model_state(subscriber: Subscriber, slot: str = "default") -> dict[str, Any]:
    """Give the newest `state/model` that arrived."""
    payloads = subscriber.payloads(f"/state/model/{slot}")
    state: dict[str, Any] = json.loads(payloads[-1]) if payloads else {}
    return state


def wait_for_state(subscriber: Subscriber, what: str, seconds: float = 180, **expected: object) -> dict[str, Any]:
    """Wait until the newest `state/model` says all of this, and give it: events, states and answers come apart."""
    wait_for(lambda: expected.items() <= model_state(subscriber).items(), f"the state says that {what}", seconds)
    return model_state(subscriber)


def model_events(subscriber: Subscriber, what: str = "", slot: str = "default") -> list[dict[str, Any]]:
    """Give the events that arrived."""
    events = [json.loads(payload) for payload in subscriber.payloads(f"/event/model/{slot}")]
    return [event for event in events if what in ("", event["event"])]


def check_results(box: Box, subscriber: Subscriber, names: list[str]) -> list[dict[str, Any]]:
    """Every strip was scored exactly once, by a model that the ledger shows as active at that time."""
    box.wait_until_published(len(names))
    wait_for(lambda: len(unique_results(subscriber)) >= len(names), "every result arrives")
    found = sorted(unique_results(subscriber).values(), key=lambda result: int(result["seq"]))
    assert sorted(result["file"] for result in found) == sorted(names)
    assert [result["seq"] for result in found] == list(range(1, len(names) + 1))
    check_traceable(box, found)
    audit = box.ask("audit")
    assert audit["balanced"], audit["problems"]
    return found


def check_traceable(box: Box, found: list[dict[str, Any]]) -> None:
    """Each result names a model that was active when it was committed."""
    spans = box.ask("models_list")["activations"]
    for result in found:
        assert any(
            span["sha256"] == result["model_sha256"]
            and span["after_seq"] < result["seq"]
            and (span["until_seq"] is None or result["seq"] <= span["until_seq"])
            for span in spans
        ), (result, spans)
