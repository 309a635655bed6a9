"""Cameras that write strips in every way there is, a box that scores them, and the two judges."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.faults.judging import Verdict, Written, judge, strip_of
from tests.helpers.box import Box, unique_results
from tests.helpers.broker import Broker, Subscriber, wait_for
from tests.helpers.models import difference_model
from tests.helpers.strips import write_strip

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from typing import Any

HEIGHT, WIDTH = 128, 128


class CameraLine:
    """A broker, a subscriber, a box, its model (in the inbox unless `model_later`), and what the cameras wrote."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        *,
        model_later: bool = False,
        size: tuple[int, int] = (HEIGHT, WIDTH),
        camera: Mapping[str, Any] | None = None,
        **box: Any,
    ) -> None:
        broker = stack.enter_context(Broker(folder))
        self.subscriber = stack.enter_context(Subscriber(broker.port))
        sections: dict[str, Any] = {"heatmaps": {"min_free_gib": 0, "png": "none", "tiff": "none"}}
        self.box = stack.enter_context(Box(folder, broker.port, **(sections | box)))
        for settings in self.box.config["cameras"]:
            settings.update(camera or {})
        self.box.write_config()
        self.model = folder / "model.onnx"
        difference_model(self.model, height=size[0], width=size[1])
        self.good, self.bad = folder / "good", folder / "bad"
        for path, defect in ((self.good, False), (self.bad, True)):
            write_strip(path, defect=defect, height=size[0], width=size[1], dtype="uint8", channels=3)
        self.written: Written = set()
        self._bad: Written = set()
        if not model_later:
            self.push()

    def push(self) -> None:
        """Give the box its model."""
        shutil.copyfile(self.model, self.box.inbox / "model.onnx")

    def next_strip(self, name: str, camera: str = "top") -> Path:
        """Note that a camera is to write this strip, every third one with a defect; return what is to be in it."""
        bad = len(self.written) % 3 == 0
        self.written.add((camera, name))
        self._bad |= {(camera, name)} if bad else set()
        return self.bad if bad else self.good

    def write(self, number: int, camera: str = "top") -> list[str]:
        """Let a camera write strips under other names and rename them; return the names."""
        names = [f"{len(self.written) + count:06d}.tif" for count in range(number)]
        for name in names:
            target = self.box.camera(camera) / name
            shutil.copyfile(self.next_strip(name, camera), target.with_suffix(".part"))
            target.with_suffix(".part").rename(target)
        return names

    def wait_until_begun(self, number: int) -> None:
        """Wait until so many strips are in the ledger, judged or not."""
        wait_for(lambda: self.box.ask("status")["strips"]["seen"] >= number, f"{number} strips are begun")

    def wait_for_results(self, names: Collection[str], camera: str = "top", seconds: float = 180) -> None:
        """Wait until these strips have their messages."""
        wanted = {(camera, name) for name in names}
        wait_for(lambda: wanted <= self.published(), f"{camera}: {len(wanted)} strips are published", seconds)

    def published(self) -> Written:
        """Return what has a message."""
        return {strip_of(result) for result in unique_results(self.subscriber).values()}

    def wait_for_state(self, state: str, camera: str = "top") -> str:
        """Wait until the status names this state of a camera's folder; return its detail."""

        def watching() -> dict[str, str]:
            found: dict[str, str] = self.box.ask("status")["watching"][camera]
            return found

        wait_for(lambda: watching()["state"] == state, f"{camera} is {state} (see {self.box.log_file})")
        return watching()["detail"]

    def judge(self, *, invalid: Collection[tuple[str, str]] = (), seconds: float = 180) -> Verdict:
        """Let both judges speak; besides, no bad strip is ok and no good one anomalous, and `invalid` are the rest."""
        verdict = judge(self.box, self.subscriber, self.written, seconds=seconds)
        for result in verdict.results:
            strip = strip_of(result)
            expected = "invalid" if strip in invalid else "anomalous" if strip in self._bad else "ok"
            assert result["verdict"] == expected, result
        return verdict


@contextmanager
def camera_line(folder: Path, **options: Any) -> Iterator[CameraLine]:
    """Close everything in the right order."""
    with ExitStack() as stack:
        yield CameraLine(stack, folder, **options)
