"""Push a model to boxes: into a folder, or over SFTP. Temporary name, verified by digest, rename; the manifest last.

An inbox takes `*.onnx`; the temporary names end in `.part`, so whatever is cut off in the middle is never seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncssh
from tqdm import tqdm

from agent.contract.manifest import check_manifest_fits
from agent.errors import Reject
from tools.exporter.errors import ExportError
from tools.exporter.keys import manifest_path, read_manifest, read_model

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    failures = []
    for target in targets:
        try:
            _push_to(target, files, options)
            print(f"{target}: {model.name} is there, digest {digest[:12]}")
        except ExportError as error:
            failures.append(str(error))
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
        for name, content in files:
            _push_to_folder(Path(target), name, content)


def _push_to_folder(folder: Path, name: str, content: bytes) -> None:
    temporary = folder / f".{name}.part"
    try:
        with temporary.open("wb") as file, _bar(name, len(content)) as bar:
            for start in range(0, len(content), CHUNK_BYTES):
                bar.update(file.write(content[start : start + CHUNK_BYTES]))
            file.flush()
            os.fsync(file.fileno())
        _check_arrived(hashlib.sha256(temporary.read_bytes()).hexdigest(), content, name, str(folder))
        temporary.replace(folder / name)
    except OSError as error:
        if temporary.exists():
            temporary.unlink()
        raise ExportError(
            f"Cannot push to {folder} ({error.strerror}): check that it exists, is yours and has room."
        ) from error


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
            for name, content in files:
                await _upload(sftp, PurePosixPath(url.path), name, content, target)
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


async def _upload(sftp: asyncssh.SFTPClient, folder: PurePosixPath, name: str, content: bytes, target: str) -> None:
    temporary, final = str(folder / f".{name}.part"), str(folder / name)
    async with sftp.open(temporary, "wb") as file:  # truncates what a broken push left behind
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
    await sftp.posix_rename(temporary, final)


def _check_arrived(digest: str, content: bytes, name: str, target: str) -> None:
    if digest != hashlib.sha256(content).hexdigest():
        raise ExportError(f"{name} arrived damaged at {target} (another digest): push again, check the box's disk.")


def _bar(name: str, size: int) -> tqdm[None]:
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, leave=False, disable=None)
