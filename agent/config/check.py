"""What the configuration means on this machine: folders, their overlap, rights, secret files.

Warnings are what may heal by itself or hurts nobody yet (a camera's folder that is not there); errors are what the
service must not start with. A share that does not answer is looked at from a thread of its own and costs a few seconds.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.file import ConfigError, Problem
from agent.config.secret_files import read_secret, secret_path
from agent.contract.manifest import load_public_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config import Config

LOOK_SECONDS = 5.0
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
TLS_PORT = 8883


@dataclass(frozen=True, slots=True)
class _Folder:
    """A configured folder, and what a look at it found; without a look nothing is held against it."""

    where: str
    real: Path
    ids: tuple[tuple[int, int], ...] = ()  # (device, inode) of it and the folders above that exist, nearest first
    exists: bool = True  # or it cannot be told, for lack of rights above it
    is_folder: bool = True
    readable: bool = True
    writable: bool = True  # or can be created
    answers: bool = False


def check_environment(config: Config, environ: Mapping[str, str] = os.environ) -> list[Problem]:
    """Return what is wrong with folders and files on this machine; `Problem.warning` tells warnings from errors.

    Looks and changes nothing. Whether the broker's name resolves is not asked: it may do so later.
    """
    folders = _look_at_all(config)
    return [
        *(
            Problem(None, folder.where, _silent(folder), warning=True)
            for folder in folders.values()
            if not folder.answers
        ),
        *_overlaps(list(folders.values()), config),
        *_own_folders(folders),
        *_camera_folders(folders, config),
        *_secret_files(config, environ),
        *_trusted_keys(config),
        *_mqtt_warnings(config),
    ]


def _look_at_all(config: Config) -> dict[str, _Folder]:
    paths = {"agent.state_folder": config.agent.state_folder, "heatmaps.folder": config.heatmap_folder}
    paths["models.inbox"] = config.models.inbox
    for number, camera in enumerate(config.cameras):
        paths[f"cameras[{number}].folder"] = camera.folder
        if camera.done_folder is not None:
            paths[f"cameras[{number}].done_folder"] = camera.done_folder
    seen: dict[str, _Folder] = {}
    threads = []
    for where, path in paths.items():
        # A daemon: one that hangs in the kernel must not keep the process from ending.
        thread = threading.Thread(target=lambda w=where, p=path: seen.update({w: _look_at(w, p)}), daemon=True)
        thread.start()
        threads.append(thread)
    deadline = time.monotonic() + LOOK_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {where: seen.get(where) or _Folder(where, Path(os.path.normpath(path))) for where, path in paths.items()}


def _look_at(where: str, path: Path) -> _Folder:
    real = Path(os.path.realpath(path))
    found = [_stat(folder) for folder in (real, *real.parents)]
    nearest = next((folder for folder, status in zip((real, *real.parents), found, strict=True) if status), real)
    return _Folder(
        where,
        real,
        ids=tuple((status.st_dev, status.st_ino) for status in found if status),
        exists=os.path.lexists(real) or not os.access(nearest, os.X_OK),
        is_folder=found[0] is None or stat.S_ISDIR(found[0].st_mode),
        readable=os.access(real, os.R_OK | os.X_OK),
        writable=nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK),
        answers=True,
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _trusted_keys(config: Config) -> Iterator[Problem]:
    for number, path in enumerate(config.models.trusted_keys):
        try:
            load_public_key(path.read_bytes())
        except (OSError, ValueError) as error:
            yield Problem(None, f"models.trusted_keys[{number}]", f"{path}: {error}")


def _silent(folder: _Folder) -> str:
    return f"{folder.real} does not answer (a share that hangs?); nothing about it could be checked"


def _is_inside(inner: _Folder, outer: _Folder) -> bool:
    """Inside or the same; the inodes see through bind mounts and file systems that ignore case."""
    same = len(outer.ids) == len(outer.real.parents) + 1 and outer.ids[0] in inner.ids
    return same or inner.real.is_relative_to(outer.real)


def _overlaps(folders: list[_Folder], config: Config) -> Iterator[Problem]:
    own_heatmaps = Path(os.path.realpath(config.agent.state_folder)) / "heatmaps"
    for one, other in combinations(folders, 2):
        if one.where == "agent.state_folder" and other.where == "heatmaps.folder":
            # The rest of the state folder belongs to the ledger, the models and the lock.
            if other.real.is_relative_to(own_heatmaps):
                continue
            if _is_inside(other, one):
                message = f"{other.real} is in the state folder; there it may only be {own_heatmaps}"
                yield Problem(None, other.where, message)
                continue
        if _is_inside(other, one) or _is_inside(one, other):
            relation = "is the same folder as" if one.real == other.real else "overlaps with"
            message = f"{other.real} {relation} {one.real} of {one.where}; each needs a folder of its own"
            yield Problem(None, other.where, message)


def _own_folders(folders: Mapping[str, _Folder]) -> Iterator[Problem]:
    for where in ("agent.state_folder", "heatmaps.folder"):
        folder = folders[where]
        if folder.exists and not folder.is_folder:
            yield Problem(None, where, f"{folder.real} is not a folder")
        elif not folder.writable:
            message = "cannot be written to" if folder.exists else "does not exist and cannot be created"
            yield Problem(None, where, f"{folder.real} {message} by user {os.geteuid()}")
    inbox = folders["models.inbox"]
    if not inbox.readable:
        what = "cannot be read" if inbox.exists else "does not exist yet"
        yield Problem(None, inbox.where, f"{inbox.real} {what}; models pushed there are not seen", warning=True)


def _camera_folders(folders: Mapping[str, _Folder], config: Config) -> Iterator[Problem]:
    for number, camera in enumerate(config.cameras):
        folder = folders[f"cameras[{number}].folder"]
        done = folders.get(f"cameras[{number}].done_folder")
        if not folder.exists:
            yield Problem(None, folder.where, f"{folder.real} does not exist yet; it is waited for", warning=True)
        elif not folder.is_folder:
            yield Problem(None, folder.where, f"{folder.real} is not a folder")
        elif not folder.readable:
            yield Problem(None, folder.where, f"{folder.real} cannot be read by user {os.geteuid()}", warning=True)
        elif camera.when_done != "keep" and not folder.writable:
            message = f"{folder.real} cannot be written to, so `when_done: {camera.when_done}` cannot work"
            yield Problem(None, folder.where, message, warning=True)
        if done is None:
            continue
        if not done.writable:
            yield Problem(None, done.where, f"{done.real} cannot be written to or created", warning=True)
        if folder.exists and folder.ids and done.ids and folder.ids[0][0] != done.ids[0][0]:
            message = f"{done.real} is on another file system than {folder.real}; moving copies every file"
            yield Problem(None, done.where, message, warning=True)


def _secret_files(config: Config, environ: Mapping[str, str]) -> Iterator[Problem]:
    mqtt = config.mqtt
    files = {"mqtt.tls.ca_file": mqtt.tls.ca_file, "mqtt.tls.cert_file": mqtt.tls.cert_file}
    for where, path in {**files, "mqtt.tls.key_file": mqtt.tls.key_file}.items():
        if path is not None and not path.is_file():
            yield Problem(None, where, f"{path} is not there, or is no file")
        elif path is not None and not os.access(path, os.R_OK):
            yield Problem(None, where, f"{path} cannot be read by user {os.geteuid()}")
    if mqtt.password_file is not None:
        try:
            read_secret(mqtt.password_file, environ)
        except ConfigError as error:
            yield from (Problem(None, "mqtt.password_file", f"{one.where} {one.message}") for one in error.problems)
    secrets = {"mqtt.password_file": mqtt.password_file, "mqtt.tls.key_file": mqtt.tls.key_file}
    for where, path in secrets.items():
        secret = secret_path(path, environ) if path is not None else None
        if secret is not None and secret.is_file() and secret.stat().st_mode & stat.S_IROTH:
            yield Problem(None, where, f"{secret} can be read by every user; `chmod o= {secret}`", warning=True)


def _mqtt_warnings(config: Config) -> Iterator[Problem]:
    mqtt = config.mqtt
    if mqtt.password_file is not None and not mqtt.tls.enabled and mqtt.host not in LOCAL_HOSTS:
        message = "the password travels unencrypted to another machine; see mqtt.tls"
        yield Problem(None, "mqtt.password_file", message, warning=True)
    if mqtt.tls.enabled and mqtt.port == type(mqtt)().port:
        yield Problem(None, "mqtt.port", f"{mqtt.port} is the port without TLS, as a rule", warning=True)
    if not mqtt.tls.enabled and mqtt.port == TLS_PORT:
        yield Problem(None, "mqtt.port", f"{TLS_PORT} is the port with TLS, as a rule; see mqtt.tls", warning=True)
