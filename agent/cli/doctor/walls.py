"""What the walls of the installed systemd unit forbid: a shell on the box sees more than the service does.

The unit is asked for with `systemctl show`, drop-ins included, and each configured path is compared with its settings,
by the rules of systemd.exec(5). That needs no rights, and says beforehand which line of a drop-in is missing.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import socket
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.file import PREFIX, Problem
from agent.patience import LOOK_SECONDS, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.config import Config

UNIT = "strip-agent.service"
DEFAULT_CONFIG = "/etc/strip-agent/agent.yaml"
ASK_SECONDS = 5.0
_PROPERTIES = (
    "LoadState", "ExecStart", "User", "ProtectSystem", "ProtectHome", "PrivateTmp", "ReadWritePaths", "ReadOnlyPaths",
    "InaccessiblePaths", "TemporaryFileSystem", "BindPaths", "BindReadOnlyPaths", "StateDirectory", "CacheDirectory",
    "LogsDirectory", "RuntimeDirectory", "LoadCredential", "IPAddressDeny", "IPAddressAllow",
    "Environment", "EnvironmentFiles", "MemoryDenyWriteExecute", "PrivateDevices",
)  # fmt: skip
_OWN_FOLDERS = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log",
                "RuntimeDirectory": "/run"}  # fmt: skip
_OF_PROVIDERS = {
    "openvino": ("MemoryDenyWriteExecute", "OpenVINO makes machine code while it runs"),
    "cuda": ("PrivateDevices", "CUDA needs the files of its device"),
    "tensorrt": ("PrivateDevices", "TensorRT needs the files of its device"),
}
"""What of the unit stands in the way of a provider, and why."""
_HOMES = ("/home", "/root", "/run/user")
_SYSTEM = {"yes": ("/usr", "/boot", "/efi"), "full": ("/usr", "/boot", "/efi", "/etc"), "strict": ("/",)}


class Access(IntEnum):
    """What a path allows; of two settings for the very same path the smaller one holds."""

    HIDDEN = 0  # whatever is set for paths below
    COVERED = 1  # by something empty; only what is bound to a path below is there
    READ_ONLY = 2
    WRITABLE = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """One setting of the unit about one path and what is below it."""

    path: Path
    access: Access
    setting: str
    is_bound: bool = False


def ask_unit() -> dict[str, str]:
    """Return the settings of the installed unit; empty where there is no systemd or no such unit."""
    command = ["systemctl", "show", UNIT, *(f"--property={name}" for name in _PROPERTIES)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    settings: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition("=")
        settings[name] = f"{settings[name]} {value}" if name in settings else value  # lists have a line for each
    return settings if settings.get("LoadState") == "loaded" else {}


def is_about(settings: Mapping[str, str], config_path: Path) -> bool:
    """Tell whether the unit runs with this configuration file; its walls say nothing about any other."""
    arguments = re.search(r"argv\[\]=(.*?) ;", settings.get("ExecStart", ""))
    given = re.search(r"--config[= ](\S+)", arguments[1]) if arguments else None
    return bool(settings) and os.path.realpath(config_path) == os.path.realpath(given[1] if given else DEFAULT_CONFIG)


def with_credentials(config: Config, settings: Mapping[str, str]) -> Config:
    """Put the file in place of the name of a credential that the unit loads and this process has not."""
    name = config.mqtt.password_file
    found = dict(re.findall(r"(\S+?):(/\S+)", settings.get("LoadCredential", "")))
    if name is None or str(name) not in found or "CREDENTIALS_DIRECTORY" in os.environ:
        return config
    mqtt = config.mqtt.model_copy(update={"password_file": Path(found[str(name)])})
    return config.model_copy(update={"mqtt": mqtt})


def with_environment(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Lay what the unit sets of `STRIP_AGENT__*` over the environment of this process: the service has that.

    A file of `EnvironmentFile=` that this user may not read is passed over.
    """
    found = _assignments(settings.get("Environment", ""))
    for path in re.findall(r"(/\S+) \(ignore_errors=", settings.get("EnvironmentFiles", "")):
        try:
            found |= _assignments(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    return {**environ, **{name: value for name, value in found.items() if name.startswith(PREFIX)}}


def _assignments(text: str) -> dict[str, str]:
    """Read `NAME=value "OTHER=a value"`, or the lines of a file, as systemd shows and reads them."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # a quote without its end, which systemd passes over too
        return {}
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def rules_of(settings: Mapping[str, str]) -> list[Rule]:
    """Turn the unit's settings into rules about paths."""
    system = settings.get("ProtectSystem", "no")
    rules = [Rule(Path("/"), Access.WRITABLE, "")]
    rules += [Rule(Path(path), Access.READ_ONLY, f"ProtectSystem={system}") for path in _SYSTEM.get(system, ())]
    homes = {"yes": Access.HIDDEN, "tmpfs": Access.COVERED, "read-only": Access.READ_ONLY}
    home = settings.get("ProtectHome", "no")
    rules += [Rule(Path(path), homes[home], f"ProtectHome={home}") for path in _HOMES if home in homes]
    if settings.get("PrivateTmp") == "yes":
        rules += [Rule(Path(path), Access.COVERED, "PrivateTmp=yes") for path in ("/tmp", "/var/tmp")]  # noqa: S108
    plain = {
        "ReadWritePaths": Access.WRITABLE,
        "ReadOnlyPaths": Access.READ_ONLY,
        "InaccessiblePaths": Access.HIDDEN,
        "TemporaryFileSystem": Access.COVERED,
    }
    for name, access in plain.items():
        words = _words(settings, name)
        paths = [word.partition(":")[0] if name == "TemporaryFileSystem" else word.lstrip("-+") for word in words]
        # The marks in front are for "may be missing" and "below the root folder".
        rules += [
            Rule(Path(os.path.realpath(path)), access, f"{name}={word}")
            for word, path in zip(words, paths, strict=True)
        ]
    for name, access in {"BindPaths": Access.WRITABLE, "BindReadOnlyPaths": Access.READ_ONLY}.items():
        for word in _words(settings, name):
            source, _, rest = word.lstrip("-").partition(":")
            target = rest.partition(":")[0] or source
            rules.append(Rule(Path(target), access, f"{name}={word}", is_bound=True))
    for name, parent in _OWN_FOLDERS.items():
        rules += [Rule(Path(parent, word), Access.WRITABLE, f"{name}={word}") for word in _words(settings, name)]
    return rules


def look(rules: Iterable[Rule], path: Path) -> Rule:
    """Return the rule that decides about a path: what hides a folder, else the longest one that is about it."""
    about = [rule for rule in rules if path.is_relative_to(rule.path)]
    for rule in about:
        bound = any(other.is_bound and other.path.is_relative_to(rule.path) for other in about)
        if rule.access is Access.HIDDEN or (rule.access is Access.COVERED and not bound):
            return rule
    return max(about, key=lambda rule: (len(rule.path.parts), -rule.access))


def openings(config: Config, config_path: Path, settings: Mapping[str, str]) -> list[str]:
    """Return the lines of a drop-in that open what the configuration needs."""
    found = _in_the_way(config, config_path, settings)
    lines = {line for _, real, rule, writes in found for line in _remedy(real, rule, writes=writes)}
    setting, _ = _in_the_way_of_the_provider(config, settings)
    return sorted(lines | ({f"{setting}=no"} if setting else set()))


def forbidden(config: Config, config_path: Path, settings: Mapping[str, str]) -> list[Problem]:
    """Return what the configuration needs and the unit's walls forbid."""
    problems = []
    for where, real, rule, writes in _in_the_way(config, config_path, settings):
        warning = where != "agent.state_folder"  # without it the service cannot start
        problems.append(Problem(None, where, _sentence(real, rule, writes=writes), warning=warning))
    return [*problems, *_provider(config, settings), *_network(config, settings)]


def _in_the_way(
    config: Config, config_path: Path, settings: Mapping[str, str]
) -> Iterator[tuple[str, Path, Rule, bool]]:
    """Yield (key, real path, the rule that forbids it, whether it is written to)."""
    rules = rules_of(settings)
    for where, path, writes in _needed(config, config_path):
        real = Path(
            within(LOOK_SECONDS, partial(os.path.realpath, path), about=("real", path)) or os.path.normpath(path)
        )
        rule = look(rules, real)
        if rule.access is not Access.WRITABLE and not (rule.access is Access.READ_ONLY and not writes):
            yield where, real, rule, writes


def _sentence(path: Path, rule: Rule, *, writes: bool) -> str:
    what = "read-only" if rule.access is Access.READ_ONLY else "not there"
    return (
        f"{path} is {what} for the service, behind {rule.setting} of {UNIT}; a drop-in opens it "
        f"(`systemctl edit strip-agent`): [Service] {' and '.join(_remedy(path, rule, writes=writes))}"
    )


def _remedy(path: Path, rule: Rule, *, writes: bool) -> list[str]:
    if rule.access is Access.READ_ONLY:
        return [f"ReadWritePaths=-{path}"]
    if rule.access is Access.COVERED:
        return [f"BindPaths={path}" if writes else f"BindReadOnlyPaths={path}"]
    if rule.setting.startswith("ProtectHome"):
        return ["ProtectHome=read-only", *([f"ReadWritePaths=-{path}"] if writes else [])]
    return ["InaccessiblePaths= (which empties the list)"]


def _needed(config: Config, config_path: Path) -> Iterator[tuple[str, Path, bool]]:
    """Yield (key, path, whether it is written to)."""
    yield "agent.state_folder", config.agent.state_folder, True
    yield "heatmaps.folder", config.heatmap_folder, True
    yield "models.inbox", config.models.inbox, False
    for number, camera in enumerate(config.cameras):
        yield f"cameras[{number}].folder", camera.folder, camera.when_done != "keep"
        if camera.done_folder is not None:
            yield f"cameras[{number}].done_folder", camera.done_folder, True
        for name in ("ignore_pixels", "ignore_mask"):
            if (path := getattr(camera, name)) is not None:
                yield f"cameras[{number}].{name}", path, False
    tls = config.mqtt.tls
    files = {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}
    yield from ((f"mqtt.tls.{name}", path, False) for name, path in files.items() if path is not None)
    if config.mqtt.password_file is not None and config.mqtt.password_file.is_absolute():
        yield "mqtt.password_file", config.mqtt.password_file, False
    for number, path in enumerate(config.models.trusted_keys):
        yield f"models.trusted_keys[{number}]", path, False
    yield str(config_path), config_path, False


def _in_the_way_of_the_provider(config: Config, settings: Mapping[str, str]) -> tuple[str, str]:
    """Return the setting that keeps the configured provider from working, and why; "" twice where none does."""
    setting, why = _OF_PROVIDERS.get(config.inference.provider, ("", ""))
    return (setting, why) if settings.get(setting) == "yes" else ("", "")


def _provider(config: Config, settings: Mapping[str, str]) -> Iterator[Problem]:
    setting, why = _in_the_way_of_the_provider(config, settings)
    if setting:
        message = (
            f"{why}, which {setting}=yes of {UNIT} forbids: the cpu would compute; a drop-in opens it "
            f"(`systemctl edit strip-agent`): [Service] {setting}=no"
        )
        yield Problem(None, "inference.provider", message, warning=True)


def _network(config: Config, settings: Mapping[str, str]) -> list[Problem]:
    denied, allowed = (_networks(settings, name) for name in ("IPAddressDeny", "IPAddressAllow"))
    if not denied:
        return []
    try:
        found = socket.getaddrinfo(config.mqtt.host, config.mqtt.port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    addresses = {ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found}
    lost = [one for one in addresses if any(one in net for net in denied) and not any(one in net for net in allowed)]
    if len(lost) < len(addresses):
        return []
    message = (
        f"{UNIT} lets nothing reach {config.mqtt.host} ({', '.join(map(str, sorted(lost, key=str)))}), behind its "
        f"IPAddressDeny=; a drop-in opens it: [Service] IPAddressAllow={lost[0]}"
    )
    return [Problem(None, "mqtt.host", message, warning=True)]


def _networks(settings: Mapping[str, str], name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(word, strict=False) for word in settings.get(name, "").split() if "/" in word]


def _words(settings: Mapping[str, str], name: str) -> list[str]:
    return settings.get(name, "").split()
