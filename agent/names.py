"""Which names are strips, and in what order they come. Nothing but logic."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.files import HIDDEN_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

AgeKey = tuple[int, bytes]
"""(mtime in ns, `natural_key` of the path): orders files from old to new, without ties."""

DEFAULT_IGNORE = (
    # hidden: ._x.tif, .DS_Store, .@__thumb/, .Trash-1000/, .stversions/, .~tmp~/, .rsync-partial/, .nfs0001, .snapshot/
    ".*",
    # NAS: thumbnails, recycle bins, snapshots
    "@eaDir/", "@tmp/", "@Recycle/", "@Recently-Snapshot/", "#recycle/", "#snapshot/", "~snapshot/",
    # Windows and macOS
    "$RECYCLE.BIN/", "RECYCLER/", "System Volume Information/", "FOUND.[0-9][0-9][0-9]/",
    "Thumbs.db", "desktop.ini", "~$*",
    "__MACOSX/", "Network Trash Folder/", "Temporary Items/",
    # Linux file systems
    "lost+found/",
    # files that a program is still transferring
    "~syncthing~*", "*.part", "*.partial", "*.filepart", "*.tmp",
)  # fmt: skip
"""What NAS, desktops and copying tools put beside strips; see `compile_ignored`."""

_NUMBER = re.compile(rb"[0-9]+")


@dataclass(frozen=True, slots=True)
class StripNames:
    """Which paths below a camera's folder are strips, and which files and folders are passed over."""

    strips: re.Pattern[str]
    ignored_files: re.Pattern[str]
    ignored_folders: re.Pattern[str]

    @classmethod
    def of(cls, patterns: Sequence[str], ignore: Sequence[str]) -> StripNames:
        """Compile a camera's settings; raises ValueError as the two functions do that do it."""
        return cls(compile_patterns(patterns), *compile_ignored(ignore))

    def passes_over(self, path: str, *, is_folder: bool) -> bool:
        """Say whether a file or folder is on the list; the folders above it have been asked for themselves."""
        return (self.ignored_folders if is_folder else self.ignored_files).fullmatch(path) is not None

    def is_strip(self, path: str) -> bool:
        """Say whether a file that is not passed over is a strip by its name."""
        return self.strips.fullmatch(path) is not None


def natural_key(path: str) -> bytes:
    r"""Return a key that orders paths as people count: `img_9` before `img_10`. Different paths have different keys.

    Bytes, so that Python and SQLite (a BLOB) compare them alike. Each number is preceded by how many digits it has,
    zeros in front of it aside; numbers stay where they were among other characters. The path itself, after a zero
    byte, decides between `img_7` and `img_07`.
    """
    name = os.fsencode(path)
    return _NUMBER.sub(_counted, name) + b"\0" + name


def _counted(number: re.Match[bytes]) -> bytes:
    digits = number[0].lstrip(b"0")
    return b"%04d%s" % (len(digits), digits)


def compile_patterns(patterns: Sequence[str]) -> re.Pattern[str]:
    """Turn globs into one regular expression for `fullmatch` on a path relative to the camera's folder.

    `*` and `?` stay inside one name, `[...]` and `[!...]` are sets, `**` as a whole part is any number of folders
    including none. Case does not matter. Raises ValueError for a pattern that could never match. A file that the agent
    has hidden to move or remove it never matches.
    """
    hidden = rf"(?!(?:.*/)?{re.escape(HIDDEN_PREFIX)}[^/]*\Z)"
    return re.compile(f"{hidden}(?:{'|'.join(_translate(pattern) for pattern in patterns)})", re.IGNORECASE | re.DOTALL)


def compile_ignored(ignore: Sequence[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Turn the names to pass over into regular expressions for the paths of files and for those of folders.

    An entry without a slash is a glob for one name, at any depth; one with a slash inside is a path as `patterns` has
    them. At the end, a slash leaves only folders. Case does not matter: a share may show names in either. Raises
    ValueError for an entry that could never match.
    """
    everything = [(entry, _translate_ignored(entry)) for entry in ignore]
    of_files = [regex for entry, regex in everything if not entry.endswith("/")]
    of_folders = [regex for _, regex in everything]
    return _any_of(of_files), _any_of(of_folders)


def _any_of(regexes: Sequence[str]) -> re.Pattern[str]:
    nothing = "(?!)"
    return re.compile("|".join(regexes) or nothing, re.IGNORECASE | re.DOTALL)


def _translate_ignored(entry: str) -> str:
    name = entry.removesuffix("/")
    if "/" in name:
        return _translate(name)
    if name in {"", ".", "..", "**"}:
        raise ValueError(f"ignore {entry!r}: write the name to pass over, or its path relative to the camera's folder")
    return f"(?:.*/)?{_translate_name(name, entry)}"


def _translate(pattern: str) -> str:
    parts = pattern.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"pattern {pattern!r}: write it relative to the camera's folder, for example **/*.tif")
    pieces = [""]
    for part in parts[:-1]:
        if part == "**":
            pieces.append("")
        else:
            pieces[-1] += _translate_name(part, pattern) + "/"
    if parts[-1] == "**":
        pieces.append("[^/]+")
    else:
        pieces[-1] += _translate_name(parts[-1], pattern)
    return _with_stars_between(pieces, "(?:[^/]+/)")


def _with_stars_between(pieces: Sequence[str], repeated: str) -> str:
    """Put any number of `repeated` between the pieces.

    The first place where a piece fits is as good as any later one, so no other is ever tried (`(?>...)`): with a few
    stars a hostile name of 255 characters would hold up the whole process for hours.
    """
    first, *others = pieces
    if not others:
        return first
    *between, last = others
    return first + "".join(f"(?>{repeated}*?{piece})" for piece in between) + f"{repeated}*{last}"


_TOKENS = re.compile(r"\*+|\?|\[(?P<negated>!?)(?P<members>.[^]]*)\]|.", re.DOTALL)


def _translate_name(part: str, pattern: str) -> str:
    pieces = [""]
    for token in _TOKENS.finditer(part):
        if token[0].startswith("*"):
            pieces.append("")
        elif token[0] == "?":
            pieces[-1] += "[^/]"
        elif token["members"]:
            members = _translate_members(token["members"], pattern)
            pieces[-1] += f"[^/{members}]" if token["negated"] else f"(?!/)[{members}]"
        else:
            pieces[-1] += re.escape(token[0])
    return _with_stars_between(pieces, "[^/]")


def _translate_members(members: str, pattern: str) -> str:
    regex = ""
    for first, last in re.findall(r"(.)(?:-(.))?", members, re.DOTALL):
        if last and last < first:
            raise ValueError(f"pattern {pattern!r}: the range {first}-{last} runs backwards")
        regex += re.escape(first) + (f"-{re.escape(last)}" if last else "")
    return regex
