"""A new folder or a new ZIP file that is there as a whole or not at all, and never takes the place of anything."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.files import fsync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

ZIP = ".zip"


class Archive(Protocol):
    """Takes files, by names below it that its user has made safe."""

    def add(self, name: str, data: bytes) -> None:
        """Add a file; the folders on the way are made. Raises OSError."""


@contextlib.contextmanager
def new_archive(path: Path) -> Iterator[Archive]:
    """Have a ZIP file where the name ends so, else a folder; it gets its name when all went well.

    Raises FileExistsError where something has that name, at the beginning or at the end, OSError for the rest. After
    any error nothing is left.
    """
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix.lower() == ZIP:
            with temporary.open("xb") as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
                    yield _InZip(zipped)
                file.flush()
                os.fsync(file.fileno())
        else:
            temporary.mkdir()
            yield _InFolder(temporary)
            for folder, _, _ in os.walk(temporary):
                fsync_folder(Path(folder))
        refuse_existing(path)
        temporary.rename(path)
        fsync_folder(path.absolute().parent)
    except BaseException:
        _remove(temporary)
        raise


def refuse_existing(path: Path) -> None:
    """Raise FileExistsError where something has that name, be it a link to nowhere."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "is there already, and nothing is overwritten", str(path))


class _InZip:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file

    def add(self, name: str, data: bytes) -> None:
        self._file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


class _InFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
