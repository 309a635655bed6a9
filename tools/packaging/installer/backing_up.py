"""The copy that is kept of ledger and slots, made by a process of the user that they belong to; see `change.back_up`.

This file's text is that process's whole program: the folder that the installer lies in may be closed to that user. So
it needs nothing but Python.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

KEPT = 2


def copy(state: Path, target: Path) -> None:
    """Copy the ledger and what is remembered of the slots, while nobody uses them; models are linked, not copied."""
    folder = target.parent
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)
    (new / "store").mkdir(parents=True)
    for path in sorted(state.glob("ledger.db*")):
        if path.name in {"ledger.db", "ledger.db-wal"}:
            shutil.copy2(path, new)
    if (state / "store/slots").is_dir():
        shutil.copytree(state / "store/slots", new / "store/slots")
    for model in (state / "store").glob("*.onnx"):
        os.link(model, new / "store" / model.name)
    os.sync()
    new.rename(target)
    for old in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)[:-KEPT]:
        shutil.rmtree(old)


if __name__ == "__main__":
    copy(Path(sys.argv[1]), Path(sys.argv[2]))
