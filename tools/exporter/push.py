"""Push a model to boxes: into a folder, or over SFTP. Temporary names, verified by digest, rename; the manifest last.

Before its model only a manifest that asks for a shadow: alone, the model would be taken for one that is to be active.

An inbox takes `*.onnx`; the temporary names end in `.part`, so whatever is cut off in the middle is never seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncssh
from tqdm import tqdm

from agent.contract.manifest import check_manifest_fits
from agent.errors import Reject
from agent.files import fsync_folder
from tools.exporter.errors import ExportError
from tools.exporter.files import new_file, part_name
from tools.exporter.keys import manifest_path, read_manifest, read_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import BufferedRandom

ABANDONED_SECONDS = 3600  # a part this much older than a complete push belongs to nobody
CHUNK_BYTES = 256 * 1024
CONNECT_SECONDS = 20
SILENCE_SECONDS = 15  # a connection without an answer for three times this is given up


@dataclass(frozen=True, slots=True)
class SshOptions:
    """How to connect; None is what OpenSSH's own client would take."""

    identity: Path | None = None
    known_hosts: Path | None = None


def push_model(model: Path, targets: Sequence[str], options: SshOptions) -> str:
    """Push `model`, and the manifest if there is one, to every target; returns the model's digest.

    Every target is tried; ExportError names those that failed.
    """
    content = read_model(model)
    digest = hashlib.sha256(content).hexdigest()
    signed = read_manifest(model)
    if signed:
        try:
            check_manifest_fits(signed.manifest, sha256=digest, size=len(content))
        except Reject as refused:
            raise ExportError(
                f"{model.name} was changed after it was signed ({refused.detail}): export it again."
            ) from refused
    files = [(model.name, content)]
    if signed:
        files.append((manifest_path(model).name, manifest_path(model).read_bytes()))
        if signed.manifest.shadow:
            files.reverse()
    failures, done = [], []
    for target in targets:
        try:
            _push_to(target, files, options)
            print(f"{target}: {model.name} is there, digest {digest[:12]}")
            done.append(target)
        except ExportError as error:
            failures.append(str(error))
        except KeyboardInterrupt as stop:
            there = ", ".join(done) or "no target"
            raise ExportError(
                f"Stopped: {model.name} is complete at {there}, the others lack it: push again."
            ) from stop
    if failures:
        raise ExportError(" ".join(failures))
    return digest


def read_inventory(path: Path) -> list[str]:
    """Read targets, one a line; empty lines and what follows `#` do not count."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"Cannot read the inventory {path} ({error}): give a text file, one target a line."
        ) from error
    targets = [line.partition("#")[0].strip() for line in lines]
    return [target for target in targets if target]


def _push_to(target: str, files: Sequence[tuple[str, bytes]], options: SshOptions) -> None:
    if "://" in target:
        asyncio.run(_push_over_sftp(target, files, options))
    else:
        _push_to_folder(Path(target), files)


def _push_to_folder(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    parts = [(folder / part_name(name), folder / name) for name, _ in files]
    try:
        with ExitStack() as opened:
            for (temporary, _), (name, content) in zip(parts, files, strict=True):
                _write(opened.enter_context(new_file(temporary)), name, content, str(folder))
            for temporary, final in parts:
                temporary.replace(final)
        fsync_folder(folder)
        for _, final in parts:
            left = [path for path in folder.iterdir() if _is_part(path.name, final.name)]
            for path in left:
                if path.lstat().st_mtime < final.stat().st_mtime - ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise ExportError(
            f"Cannot push to {folder} ({error.strerror}): check that it exists, is yours and has room."
        ) from error


def _write(file: BufferedRandom, name: str, content: bytes, target: str) -> None:
    with _bar(name, len(content)) as bar:
        for start in range(0, len(content), CHUNK_BYTES):
            bar.update(file.write(content[start : start + CHUNK_BYTES]))
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    _check_arrived(hashlib.file_digest(file, "sha256").hexdigest(), content, name, target)


async def _push_over_sftp(target: str, files: Sequence[tuple[str, bytes]], options: SshOptions) -> None:
    url = urlsplit(target)
    if url.scheme != "ssh" or not url.hostname or not url.path.strip("/") or url.password:
        raise ExportError(f"{target} is no target: give a folder or ssh://user@host/path (with keys, not passwords).")
    # A connection that breaks leaves futures behind whose errors say again what is raised below.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    try:
        async with (
            asyncssh.connect(
                url.hostname,
                url.port or (),
                username=url.username or (),
                client_keys=[str(options.identity)] if options.identity else (),
                known_hosts=str(options.known_hosts) if options.known_hosts else (),
                connect_timeout=CONNECT_SECONDS,
                login_timeout=CONNECT_SECONDS,
                keepalive_interval=SILENCE_SECONDS,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            parts = [await _upload(sftp, PurePosixPath(url.path), name, content, target) for name, content in files]
            for temporary, final in parts:
                await sftp.posix_rename(temporary, final)
            for (name, _), (_, final) in zip(files, parts, strict=True):
                await _tidy(sftp, PurePosixPath(url.path), name, final)
    except asyncssh.HostKeyNotVerifiable as error:
        raise ExportError(
            f"The host key of {url.hostname} is not known ({error.reason}): compare its fingerprint, then add it to "
            "known_hosts by connecting once with ssh, or give --known-hosts FILE."
        ) from error
    except asyncssh.PermissionDenied as error:
        raise ExportError(
            f"{url.hostname} does not let {url.username or 'you'} in ({error.reason}): give --identity FILE with the "
            "right key."
        ) from error
    except asyncssh.SFTPError as error:
        if isinstance(error, asyncssh.SFTPNoConnection | asyncssh.SFTPConnectionLost):
            raise _broken(url.hostname, error) from error
        raise ExportError(
            f"{target} refuses the file ({error.reason}): check that the folder exists, is yours and has room."
        ) from error
    except (OSError, asyncssh.Error, ValueError) as error:  # time-outs are OSErrors
        raise _broken(url.hostname, error) from error


def _broken(host: str, error: Exception) -> ExportError:
    reason = str(error) or type(error).__name__
    return ExportError(f"The connection to {host} failed ({reason}): push again, it starts over.")


async def _upload(
    sftp: asyncssh.SFTPClient, folder: PurePosixPath, name: str, content: bytes, target: str
) -> tuple[str, str]:
    """Upload a file under a temporary name and see that it arrived; return that name and the one it is to have."""
    temporary, final = str(folder / part_name(name)), str(folder / name)
    async with sftp.open(temporary, "xb") as file:  # a new file: no link that lies there is written through
        with _bar(name, len(content)) as bar:
            for start in range(0, len(content), CHUNK_BYTES):
                chunk = content[start : start + CHUNK_BYTES]
                await file.write(chunk)
                bar.update(len(chunk))
        try:
            await file.fsync()
        except asyncssh.SFTPOpUnsupported:
            bar.write(f"{target} cannot flush to its disk on request")
    arrived = hashlib.sha256()
    async with sftp.open(temporary, "rb") as file:
        while chunk := await file.read(CHUNK_BYTES):
            arrived.update(chunk)  # type: ignore[arg-type]  # bytes, because the file is opened as binary
    _check_arrived(arrived.hexdigest(), content, name, target)
    return temporary, final


async def _tidy(sftp: asyncssh.SFTPClient, folder: PurePosixPath, name: str, final: str) -> None:
    """Remove what pushes of this file left behind when they broke off."""
    now = (await sftp.lstat(final)).mtime or 0  # by the clock over there
    async for entry in sftp.scandir(str(folder)):
        if _is_part(str(entry.filename), name) and (entry.attrs.mtime or now) < now - ABANDONED_SECONDS:
            await sftp.remove(str(folder / str(entry.filename)))


def _is_part(found: str, name: str) -> bool:
    """Tell what a push of this file left behind when it broke off."""
    return re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.part", found) is not None


def _check_arrived(digest: str, content: bytes, name: str, target: str) -> None:
    if digest != hashlib.sha256(content).hexdigest():
        raise ExportError(f"{name} arrived damaged at {target} (another digest): push again, check the box's disk.")


def _bar(name: str, size: int) -> tqdm[None]:
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False, disable=None)
