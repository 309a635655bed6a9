"""Write files so that the final name never holds half of one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write under a temporary name, flush, rename, flush the folder; ExportError when there is no room or no right."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if temporary.exists():
            temporary.unlink()
        raise ExportError(
            f"Cannot write {path} ({error.strerror}): choose a folder with room that you may write to."
        ) from error
