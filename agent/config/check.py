"""What the configuration means on this machine: folders, their overlap, rights, secret files.

Warnings are what costs only a part of the service, and may heal by itself (a camera's folder that is not there); errors
are what it cannot start with, now (`may_pass`) or ever. A share that does not answer is looked at from a thread of its
own and costs a few seconds.
"""

from __future__ import annotations

import datetime as dt
import os
import stat
import time
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.credentials import credential_problems
from agent.config.file import Problem
from agent.config.web_check import unencrypted, web_problems
from agent.contract.manifest import read_public_key
from agent.messages import retained_topics
from agent.patience import LOOK_SECONDS, answer_within, begin_to_ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.config import Config, MqttSection

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
TLS_PORT = 8883
AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn")
AWS_LEVELS, AWS_TOPIC_BYTES, AWS_CLIENT_ID_BYTES = 8, 256, 128
IN_THE_PLACE = "install it in the place of onnxruntime (install.md)"
PROVIDERS = {
    "openvino": ("openvino", "pip install 'strip-agent[openvino]'"),
    "cuda": ("onnxruntime-gpu", IN_THE_PLACE),
    "tensorrt": ("onnxruntime-gpu", IN_THE_PLACE),
}
"""The package that each provider comes in, and how to get it."""
AZURE_IOT_HUB = ".azure-devices.net"


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
    read_only: bool = False  # its file system, which is mounted so or has become so after an error
    answers: bool = False


def check_environment(config: Config, environ: Mapping[str, str] = os.environ) -> list[Problem]:
    """Return what is wrong with folders and files on this machine; `Problem.warning` tells warnings from errors.

    Looks and changes nothing. Whether the broker's name resolves is not asked: it may do so later.
    """
    folders = _look_at_all(config)
    now = dt.datetime.now(dt.UTC)
    return [
        *(
            Problem(None, folder.where, _silent(folder), warning=True)
            for folder in folders.values()
            if not folder.answers
        ),
        *_overlaps(list(folders.values()), config),
        *_own_folders(folders),
        *_camera_folders(folders, config),
        *_answered(config, "mqtt", "its files", lambda: [*credential_problems(config, environ, now)]),
        *_answered(config, "web", "its files", lambda: [*web_problems(config, environ)]),
        *filter(None, [unencrypted(config)]),
        *_answered(config, "models.trusted_keys", "a key", lambda: [*_trusted_keys(config)]),
        *_provider(config),
        *_mqtt_warnings(config),
        *_clouds(config),
    ]


def _answered(config: Config, where: str, what: str, look: Callable[[], list[Problem]]) -> list[Problem]:
    """Return what a look at files finds; where one of them is on a share that hangs, that it is."""
    try:
        return answer_within(LOOK_SECONDS, look, about=(where, config.agent.state_folder))
    except TimeoutError as error:
        return [Problem(None, where, f"{what}: {error.strerror}", warning=True)]


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
        look = partial(_look_into, seen, where, path)
        threads.append(begin_to_ask(("look", where, path), look))
    deadline = time.monotonic() + LOOK_SECONDS
    for thread in filter(None, threads):
        thread.join(max(0.0, deadline - time.monotonic()))
    return {where: seen.get(where) or _Folder(where, Path(os.path.normpath(path))) for where, path in paths.items()}


def _look_into(seen: dict[str, _Folder], where: str, path: Path) -> None:
    seen[where] = _look_at(where, path)


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
        read_only=bool(os.statvfs(nearest).f_flag & os.ST_RDONLY),
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
            read_public_key(path)
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}; models that it has signed wait until it can"
            yield Problem(None, f"models.trusted_keys[{number}]", message, warning=True)
        except ValueError as error:
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
    state, heatmaps = folders["agent.state_folder"], folders["heatmaps.folder"]
    if what := _why_not_ours(state):
        yield Problem(None, state.where, f"{state.real} {what}", may_pass=True)
    if what := _why_not_ours(heatmaps):
        message = f"{heatmaps.real} {what}; strips are scored without heatmaps"
        yield Problem(None, heatmaps.where, message, warning=True)
    inbox = folders["models.inbox"]
    if not inbox.readable:
        what = "cannot be read" if inbox.exists else "does not exist yet"
        yield Problem(None, inbox.where, f"{inbox.real} {what}; models pushed there are not seen", warning=True)


def _why_not_ours(folder: _Folder) -> str:
    """Say why nothing can be written to a folder of our own, "" where it can."""
    if folder.exists and not folder.is_folder:
        return "is not a folder"
    if folder.writable:
        return ""
    if folder.read_only:
        return "is on a file system that is read-only now"
    what = "cannot be written to" if folder.exists else "does not exist and cannot be created"
    return f"{what} by user {os.geteuid()}"


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


def _provider(config: Config) -> Iterator[Problem]:
    """Say that a provider is not installed. Whether it works, only a worker can tell: nothing is imported here."""
    provider = config.inference.provider
    package, how = PROVIDERS.get(provider, ("", ""))
    if package and not _is_installed(package):
        message = (
            f"{provider} needs the package {package}, which is not installed: the cpu computes, with an alarm; {how}"
        )
        yield Problem(None, "inference.provider", message, warning=True)


def _is_installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _mqtt_warnings(config: Config) -> Iterator[Problem]:
    mqtt = config.mqtt
    if not mqtt.tls.enabled and mqtt.host not in LOCAL_HOSTS:
        yield from _plain_text(mqtt)
    if mqtt.tls.enabled and mqtt.port == type(mqtt)().port:
        yield Problem(None, "mqtt.port", f"{mqtt.port} is the port without TLS, as a rule", warning=True)
    if not mqtt.tls.enabled and mqtt.port == TLS_PORT:
        yield Problem(None, "mqtt.port", f"{TLS_PORT} is the port with TLS, as a rule; see mqtt.tls", warning=True)


def _plain_text(mqtt: MqttSection) -> Iterator[Problem]:
    """Say what it means that nothing between this box and the broker, another machine, is encrypted."""
    if mqtt.password_file is not None:
        message = "the password travels unencrypted to another machine; see mqtt.tls"
        yield Problem(None, "mqtt.password_file", message, warning=True)
    if mqtt.commands:
        message = "without TLS anybody on the way to the broker can give them, and read the answers; see mqtt.tls"
        yield Problem(None, "mqtt.commands", message, warning=True)
    if mqtt.password_file is None and not mqtt.commands:
        message = "results travel unencrypted to another machine, which may be any; see mqtt.tls"
        yield Problem(None, "mqtt.tls.enabled", message, warning=True)


def _clouds(config: Config) -> Iterator[Problem]:
    """Say what brokers would not take that are rented and not run; their limits are errors only where one is used."""
    host = config.mqtt.host.lower()
    topics = sorted(retained_topics((camera.name for camera in config.cameras), config.slots))
    longest = max((f"{config.base_topic}/{topic}" for topic in topics), key=lambda topic: len(topic.encode()))
    deepest = max((f"{config.base_topic}/{topic}" for topic in topics), key=lambda topic: topic.count("/"))
    elsewhere = not host.endswith(AWS_HOSTS)
    if len(longest.encode()) > AWS_TOPIC_BYTES:
        message = f"AWS IoT Core takes topics of at most {AWS_TOPIC_BYTES} bytes; {longest} has {len(longest.encode())}"
        yield Problem(None, "mqtt.base_topic", message, warning=elsewhere)
    if deepest.count("/") >= AWS_LEVELS:
        message = f"AWS IoT Core takes topics of at most {AWS_LEVELS} levels; {deepest} has {deepest.count('/') + 1}"
        yield Problem(None, "mqtt.base_topic", message, warning=elsewhere)
    client_id = config.mqtt.client_id or config.agent.name
    if len(client_id) > AWS_CLIENT_ID_BYTES:
        message = f"AWS IoT Core takes at most {AWS_CLIENT_ID_BYTES} characters; this has {len(client_id)}"
        yield Problem(None, "mqtt.client_id", message, warning=elsewhere)
    if host.endswith(AZURE_IOT_HUB):
        message = "Azure IoT Hub takes no topics but its own: nothing would arrive; docs/messages.md names what does"
        yield Problem(None, "mqtt.host", message)
