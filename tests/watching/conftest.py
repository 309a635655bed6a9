"""What the tests of watching share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.broker import wait_for
from tests.watching.line import DEADLINE_SECONDS, Line, descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the camera's folder, empty."""
    path = tmp_path / "camera"
    path.mkdir()
    return path


@pytest.fixture
def start() -> Iterator[Callable[..., Line]]:
    """Make lines that are closed in the end, and check that no thread and no descriptor stays."""
    gc.collect()  # what earlier tests left is not to be closed meanwhile
    before = set(threading.enumerate())
    had = descriptors()
    lines: list[Line] = []

    def make(root: Path, **settings: Any) -> Line:
        lines.append(Line(root, **settings))
        return lines[-1]

    yield make
    for line in lines:
        line.watcher.close()
        assert line.state == "closed"
    wait_for(lambda: set(threading.enumerate()) <= before, "no thread stays", DEADLINE_SECONDS)
    gc.collect()
    wait_for(lambda: descriptors() <= had, "no descriptor stays", DEADLINE_SECONDS)


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """Be an ordinary user, to whom permissions mean something, with a folder of their own."""
    path = Path(tempfile.mkdtemp())
    if os.geteuid() != 0:
        yield path
    else:
        os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            yield path
        finally:
            os.seteuid(0)
    shutil.rmtree(path)
