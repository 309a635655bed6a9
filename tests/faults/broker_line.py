"""A box with two cameras for the faults of the broker and of the link, and what both judges say of it at any moment."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.faults.judging import Verdict, Written, judge, strip_of
from tests.helpers.box import Box, unique_results
from tests.helpers.broker import wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helpers.broker import Subscriber

HEIGHT, WIDTH = 128, 128
WAITS = "waits for the broker's acknowledgement"
BASE = "strip-agent/box1"


class Line:
    """A box behind a port, its cameras, and what they have written; every third strip has a defect."""

    def __init__(self, folder: Path, port: int, *, cameras: tuple[str, ...] = ("top", "side"), **sections: Any) -> None:
        self.since = datetime.now(UTC)
        self.box = Box(folder / "box", port, cameras=cameras, **sections)
        self.written: Written = set()
        self.bad: Written = set()
        difference_model(self.box.inbox / "model.onnx", height=HEIGHT, width=WIDTH)
        self._templates = {defect: folder / f"defect-{defect}.tif" for defect in (False, True)}
        for defect, path in self._templates.items():
            write_strip(path, defect=defect, height=HEIGHT, width=WIDTH, dtype="uint8", channels=3)

    def write(self, number: int, *cameras: str) -> Written:
        """Let each of these cameras (none: each of all) write so many strips; return whose they are."""
        new: Written = set()
        for _ in range(number):
            defect = len(self.written) // len(self.box.config["cameras"]) % 3 == 0
            for camera in cameras or [camera["name"] for camera in self.box.config["cameras"]]:
                strip = (camera, f"{len(self.written):06d}.tif")
                part = self.box.camera(camera) / f"{strip[1]}.part"
                shutil.copyfile(self._templates[defect], part)
                self.bad |= {strip} if defect else set()
                part.rename(part.with_suffix(""))
                self.written.add(strip)
                new.add(strip)
        return new

    @contextmanager
    def writing(self, strips_per_second: float) -> Iterator[None]:
        """Let the cameras write all the time, in turns; `written` may be read only when this has ended."""
        names = [camera["name"] for camera in self.box.config["cameras"]]
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(len(names) / strips_per_second):
                self.write(1)

        thread = threading.Thread(target=run, name="cameras")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def wait_until_judged(self, seconds: float = 180) -> None:
        """Wait until all that was written has a result, published or not."""

        def judged() -> bool:
            sums = self.box.ask("status")["strips"]
            return bool(sums["seen"] == len(self.written) and sums["waiting"] == 0)

        wait_for(judged, f"{len(self.written)} strips are judged (see {self.box.log_file})", seconds)

    def wait_for_health(self, seconds: float = 180, **expected: Any) -> dict[str, Any]:
        """Wait until the service says so of itself, whoever asks; `alarm` is one of its alarms. Return its health."""
        alarm = expected.pop("alarm", None)
        health: dict[str, Any] = {}

        def said() -> bool:
            health.update(self.box.ask("status")["health"])
            has_alarm = alarm is None or alarm in health["alarms"].split(",")
            return has_alarm and all(health[key] == value for key, value in expected.items())

        wait_for(said, f"health says {expected} {alarm or ''} (see {self.box.log_file}): {health}", seconds)
        return health

    def audit(self, *arguments: str, exit_code: int = 0) -> dict[str, Any]:
        """Run the audit of the command line, `--since` the beginning of the test, and see its exit code."""
        return self.box.audit(*(arguments or ("--since", self.since.isoformat())), exit_code=exit_code)

    def wait_until_arrived(self, subscriber: Subscriber, seconds: float = 180) -> None:
        """Wait until all that was written is acknowledged, and see that both judges count the same."""
        self.box.wait_until_published(len(self.written), seconds)
        wait_for(lambda: len(unique_results(subscriber)) >= len(self.written), "all results arrive", seconds)
        assert not self.agree(subscriber), "something is not published"

    def judge(self, subscriber: Subscriber, seconds: float = 180) -> Verdict:
        """Let both judges speak in the end: besides, no bad strip is ok and no good one anomalous."""
        verdict = judge(self.box, subscriber, self.written, seconds=seconds)
        assert not self.agree(subscriber, self.audit()), "something is not published"
        for result in verdict.results:
            assert result["verdict"] == ("anomalous" if strip_of(result) in self.bad else "ok"), result
        return verdict

    def agree(self, subscriber: Subscriber, facts: dict[str, Any] | None = None) -> dict[tuple[str, str], str]:
        """See that the audit (None: of now) and the subscriber count the same, camera by camera, while nothing moves.

        Return what the audit names as not published, and why.
        """
        facts = facts or self.box.ask("audit", since_ms=int(self.since.timestamp() * 1000))
        assert facts["balanced"], facts["problems"]
        newest: dict[tuple[str, str], dict[str, Any]] = {}
        for result in sorted(unique_results(subscriber).values(), key=lambda result: int(result["revision"])):
            newest[strip_of(result)] = result
        for camera, balance in facts["cameras"].items():
            counted = Counter(result["verdict"] for (name, _), result in newest.items() if name == camera)
            audited = {verdict: balance[verdict] for verdict in ("ok", "anomalous", "invalid")}
            assert audited == {verdict: counted[verdict] for verdict in audited}, (camera, balance, counted)
            assert balance["seen"] == sum(name == camera for name, _ in self.written), (camera, balance)
        unpublished = {strip_of(item): str(item["why"]) for item in facts["unpublished"]}
        assert set(unpublished) == self.written - set(newest), set(unpublished) ^ (self.written - set(newest))
        assert facts["unpublished_not_named"] == 0
        return unpublished


def first_seen(subscriber: Subscriber) -> list[int]:
    """Give the `seq` of each result in the order in which it first arrived."""
    return list(dict.fromkeys(json.loads(payload)["seq"] for payload in subscriber.payloads("/event/strip/")))
