"""Reading a folder and everything below it, a slice at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.records import FileIdentity, show_name
from agent.watching.links import MAX_LINKS, open_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import _ScandirIterator

    from agent.names import StripNames

Found = tuple[str, FileIdentity]


class Scan:
    """One pass over `start` (relative to `root`, "" is all of it); holds nothing but the folders still to be read.

    Everything that matches and is no folder is found: links, FIFOs and sockets too. Links are never followed; those
    that do not match are kept in `links`, as they may lead to folders. What is to be passed over is counted in
    `ignored`; a folder counts once, and nothing in it is looked at.
    A folder or file that cannot be read is counted in `errors` and the rest is read all the same.
    `watch` is called for each folder before it is read, so that no file falls between; it returns False when the
    folder could not be watched.
    """

    def __init__(self, root: str, start: str, names: StripNames, watch: Callable[[str], bool]) -> None:
        self.start = start
        self.files_seen = 0
        self.failed = False  # not even `start` could be read
        self.errors = 0
        self.first_error = ""
        self.unwatched = 0  # folders
        self.ignored = 0
        self.links: list[str] = []  # at most MAX_LINKS
        self._root = root
        self._names = names
        self._watch = watch
        self._folders = [start]  # still to be read
        self._entries: _ScandirIterator[str] | None = None  # of the folder that is being read
        self._descriptor = -1  # of that folder, while there are entries
        self._folder = start

    @property
    def done(self) -> bool:
        """Whether everything was read."""
        return self._entries is None and not self._folders

    def read(self, entries: int) -> list[Found]:
        """Read at most this number of directory entries and return the files among them that match."""
        found: list[Found] = []
        for _ in range(entries):
            entry = self._next_entry()
            if entry is None:
                if self.done:
                    break
                continue
            path = f"{self._folder}/{entry.name}" if self._folder else entry.name
            try:
                is_folder = entry.is_dir(follow_symlinks=False)
                if self._names.passes_over(path, is_folder=is_folder or entry.is_symlink()):
                    self.ignored += 1
                elif is_folder:
                    self._folders.append(path)
                elif self._names.is_strip(path):
                    found.append((path, FileIdentity.of(entry.stat(follow_symlinks=False))))
                elif entry.is_symlink() and len(self.links) < MAX_LINKS:
                    self.links.append(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._note(path, error)
        self.files_seen += len(found)
        return found

    def _next_entry(self) -> os.DirEntry[str] | None:
        """Step to the next entry; None at a folder's end and for a folder that cannot be read."""
        try:
            if self._entries is None:
                self._folder = self._folders.pop()
                self.unwatched += not self._watch(self._folder)
                self._descriptor = open_folder(self._root, self._folder, os.O_RDONLY)
                self._entries = os.scandir(self._descriptor)
            return next(self._entries)
        except StopIteration:
            self.close()
        except OSError as error:
            self.close()
            if self._folder == self.start:
                self.failed = True
            if not isinstance(error, FileNotFoundError | NotADirectoryError):  # going away meanwhile is no fault
                self._note(self._folder, error)
        return None

    def _note(self, path: str, error: OSError) -> None:
        self.errors += 1
        self.first_error = self.first_error or f"{show_name(path) or 'the folder'}: {error.strerror or error}"

    def close(self) -> None:
        """Let go of the folder that is being read."""
        if self._entries is not None:
            self._entries.close()
            self._entries = None
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1
