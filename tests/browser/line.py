"""A whole line for a browser: broker, service with the bundled model, strips of two cameras, and the page's process."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from agent.demo.camera import encode
from agent.demo.pushes import MODEL
from agent.demo.strips import make_strip
from tests.helpers.box import Box
from tests.helpers.broker import PERSISTENT, Broker, Subscriber, free_port, wait_for
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from playwright.sync_api import Browser, BrowserContext

DEFECTS = (0, 1, 0, 3, 0, 0, 2, 0, 1, 0)
BROKEN = ("truncated", "constant")
SEED = 20261129
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
PAGES = ("line", "strips", "strip", "trend", "models", "health")


class Line:
    """Runs until the block ends; `drop` puts one more strip before a camera."""

    def __init__(
        self,
        folder: Path,
        browser: Browser,
        *,
        language: str = "auto",
        reviews: bool = True,
        commands: Sequence[str] = (),
    ) -> None:
        self.browser = browser
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._stack = ExitStack()
        self.broker = self._stack.enter_context(Broker(folder, PERSISTENT))
        self.subscriber = self._stack.enter_context(Subscriber(self.broker.port, "strip-agent/#"))
        web = {"enabled": True, "listen": f"127.0.0.1:{self.port}", "language": language, "reviews": reviews}
        self.box = Box(
            folder, self.broker.port, cameras=("top", "bottom"), web=web, heatmaps={"png": "all", "tiff": "all"},
            mqtt={"commands": list(commands)},
        )  # fmt: skip
        self._stack.enter_context(self.box)
        self.log_file = folder / "web.log"
        self.page_process: subprocess.Popen[bytes] | None = None
        self.dropped = 0

    def __enter__(self) -> Self:
        (self.box.inbox / "model.onnx").write_bytes(MODEL.read_bytes())
        self.box.start()
        self.start_page()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.stop_page()

    def start_page(self) -> None:
        """Start the page's process and wait until it answers."""
        with self.log_file.open("ab") as log:
            self.page_process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "web", "--config", str(self.box.config_file)],
                stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        context = self.browser.new_context()
        wait_for(lambda: self._answers(context), f"the page answers (see {self.log_file})")
        context.close()

    def _answers(self, context: BrowserContext) -> bool:
        assert self.page_process is not None
        assert self.page_process.poll() is None, self.log_file.read_text()
        try:
            return context.request.get(f"{self.address}/health", timeout=180_000).status == 200
        except Exception as error:
            if "ECONNREFUSED" not in str(error):
                raise
            return False

    def stop_page(self) -> None:
        """End the page's process as systemd does."""
        if self.page_process is not None and self.page_process.poll() is None:
            self.page_process.send_signal(signal.SIGTERM)
            assert self.page_process.wait(120) in {0, -signal.SIGTERM}, self.log_file.read_text()

    def drop(self, defects: int, camera: str = "top", broken: str = "", name: str = "", gain: float = 1.0) -> str:
        """Drop a strip with `gain` times the light and return its file's name."""
        strip, _ = make_strip(np.random.default_rng([SEED, self.dropped]), defects=defects)
        strip = np.rint(strip * np.float32(gain))
        self.dropped += 1
        path = self.box.camera(camera) / (name or f"{camera}_{self.dropped:04d}.tif")
        part = path.with_name(".part")
        part.write_bytes(encode(strip, broken))
        part.rename(path)
        return path.name

    def fill(self) -> None:
        """Drop strips of every kind before both cameras, and wait until all are acknowledged."""
        for number, defects in enumerate(DEFECTS):
            self.drop(defects, ("top", "bottom")[number % 2])
        for broken in BROKEN:
            self.drop(0, "bottom", broken)
        self.drop(2, "top")
        self.box.wait_until_published(self.dropped)
        wait_for(lambda: len(self.subscriber.payloads("/event/strip/")) >= self.dropped, "the subscriber has them")
