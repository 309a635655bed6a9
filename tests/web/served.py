"""A box for the page's tests: a real ledger and a real control socket, without cameras, models or a broker."""

from __future__ import annotations

import hashlib
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

from agent.config import Config
from agent.contract.threshold import Threshold
from agent.control.commands import handle
from agent.control.context import Context
from agent.control.endpoint import ControlServer
from agent.ledger import NewResult, open_ledger
from agent.ledger.strips import LIVE
from agent.messages import encode
from agent.records import FileIdentity, HeatmapFiles, Judgement, SettledFile
from agent.strips.message import strip_message, verdict_of
from agent.web.server import make_app

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

MODEL_SHA256 = "ab" * 32
THRESHOLD = 0.5


def csrf(page: str) -> str:
    """Find the token in a page's form."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]


class ServedBox:
    """A ledger that is asked over its control socket; `judge` puts results into it."""

    def __init__(self, folder: Path, *, live: Callable[[], dict[str, Any]] | None = None, **sections: Any) -> None:
        """`live` tells what only a running service knows."""
        values: dict[str, Any] = {
            "agent": {"name": "box1", "state_folder": str(folder / "state")},
            "cameras": [{"name": name, "folder": str(folder / name)} for name in ("top", "side")],
            "web": {"enabled": True, "language": "en"},
        }
        for name, section in sections.items():
            values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
        self.config = Config.model_validate(values)
        self.state = folder / "state"
        for one in [self.state, *(camera.folder for camera in self.config.cameras)]:
            one.mkdir(parents=True, exist_ok=True)
        self.ledger = open_ledger(self.state / "ledger.db")
        self.context = Context(self.config, self.ledger, {}, live)
        self.asked_by = "root"
        self._stop = threading.Event()
        self.server: ControlServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen on the control socket."""
        self._stop.clear()
        self.server = ControlServer(
            self.state / "control.sock", lambda request, _: partial(handle, self.context)(request, self.asked_by)
        )
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        """Go silent, as a service does that has ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _serve(self) -> None:
        assert self.server is not None
        while not self._stop.is_set():
            self.server.step(0.05)
        self.server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.ledger.database.close()

    def browser(self, password: str = "", **headers: str) -> TestClient:
        """Give a browser on the page of this box; use it in a `with`."""
        base = {"accept": "text/html", **headers}
        return TestClient(
            make_app(self.config, password), base_url="http://localhost", headers=base, follow_redirects=False
        )

    def judge(
        self,
        name: str,
        score: float | None = 0.1,
        *,
        camera: str = "top",
        threshold: float = THRESHOLD,
        reason: str = "damaged_tiff",
        content: bytes | None = None,
        heatmaps: HeatmapFiles | None = None,
    ) -> str:
        """Have a strip judged: its file with `content`, or none; a score of None is invalid. Return the strip's id."""
        folder = next(one.folder for one in self.config.cameras if one.name == camera)
        identity = FileIdentity(10, 1_700_000_000_000_000_000, 1)
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            identity = FileIdentity.of(path.stat())
        self.ledger.strips.begin([SettledFile(camera, name, identity)])
        strip = self.ledger.strips.next_waiting(camera, LIVE, ())
        assert strip is not None
        judgement = None
        if score is not None:
            judgement = Judgement(
                score=score,
                threshold=threshold,
                anomalous=score >= threshold,
                anomaly_area_px=4,
                defect_count=1,
                peak_row=2,
                peak_col=3,
                rescaled=False,
                inference_ms=1.5,
                digest="d",
                heatmaps=heatmaps or HeatmapFiles(),
            )
        verdict = verdict_of(judgement)
        said = "" if judgement else reason
        value = -1.0 if score is None else score
        result = NewResult(
            verdict, said, value, MODEL_SHA256, 0, hashlib.sha256(content or b"").hexdigest(), f"event/strip/{camera}",
            dispose=False, detail="what was found" if said else "",
        )  # fmt: skip
        config_camera = next(one for one in self.config.cameras if one.name == camera)

        def payload(seq: int, ts_ms: int) -> bytes:
            message = strip_message(
                self.config, config_camera, strip, Threshold(threshold, "default"), judgement, said, None,
                stream=self.ledger.database.stream, seq=seq, ts_ms=ts_ms,
                model_sha256=MODEL_SHA256 if judgement else "",
            )  # fmt: skip
            return encode(message)

        assert self.ledger.strips.commit(strip, result, payload, 10**6) is not None
        return strip.strip_id
