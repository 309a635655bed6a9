"""What the unit's walls forbid is found before the service stands behind them, with the line that opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.doctor import walls
from agent.cli.doctor.walls import Access, forbidden, is_about, look, rules_of, with_credentials, with_environment
from agent.config import Config

AS_SHIPPED = {
    "LoadState": "loaded",
    "ExecStart": "{ path=/opt/x ; argv[]=/opt/strip-agent/current/bin/strip-agent run ; ignore_errors=no ; pid=0 }",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "StateDirectory": "strip-agent",
}
FILE = Path("/etc/strip-agent/agent.yaml")


def config_of(**sections: Any) -> Config:
    """Make a configuration; the camera's folder is /srv/cameras/top unless it is said otherwise."""
    camera = {"name": "top", "folder": "/srv/cameras/top", **sections.pop("camera", {})}
    return Config.model_validate({"cameras": [camera], **sections})


def found(config: Config, **settings: str) -> list[tuple[str, str, bool]]:
    """Return (key, sentence, whether it is a warning)."""
    return [(p.where, p.message, p.warning) for p in forbidden(config, FILE, {**AS_SHIPPED, **settings})]


def test_the_defaults_fit_behind_the_walls_as_shipped() -> None:
    """Cameras are read, the state folder is the unit's."""
    assert found(config_of()) == []


@pytest.mark.parametrize(
    ("sections", "where", "says", "opens"),
    [
        ({"camera": {"when_done": "delete"}}, "cameras[0].folder", "read-only", "ReadWritePaths=-/srv/cameras/top"),
        (
            {"camera": {"folder": "/home/cam", "when_done": "delete"}},
            "cameras[0].folder",
            "not there for the service, behind ProtectHome=yes",
            "ProtectHome=read-only and ReadWritePaths=-/home/cam",
        ),
        ({"camera": {"folder": "/home/cam"}}, "cameras[0].folder", "ProtectHome=yes", "ProtectHome=read-only"),
        ({"models": {"inbox": "/tmp/inbox"}}, "models.inbox", "behind PrivateTmp=yes", "BindReadOnlyPaths=/tmp/inbox"),
        ({"heatmaps": {"folder": "/srv/heatmaps"}}, "heatmaps.folder", "read-only", "ReadWritePaths=-/srv/heatmaps"),
        ({"agent": {"state_folder": "/data/state"}}, "agent.state_folder", "read-only", "ReadWritePaths=-/data/state"),
    ],
)
def test_what_the_walls_forbid_is_named_with_the_line_that_opens_it(
    sections: dict[str, Any], where: str, says: str, opens: str
) -> None:
    """The folder, the setting, the drop-in; without its state folder the service cannot start: that is no warning."""
    problem = found(config_of(**sections))[0]
    assert problem[0] == where
    assert says in problem[1]
    assert problem[1].endswith(f"[Service] {opens}")
    assert problem[2] == (where != "agent.state_folder")


def test_what_a_drop_in_opens_is_open() -> None:
    """The very lines that the sentences name."""
    camera = {"folder": "/home/cam", "when_done": "move", "done_folder": "/srv/done"}
    config = config_of(camera=camera, models={"inbox": "/tmp/inbox"})
    assert len(found(config)) == 3
    opened = {"ProtectHome": "read-only", "ReadWritePaths": "-/home/cam -/srv/done", "BindReadOnlyPaths": "/tmp/inbox"}
    assert found(config, **opened) == []


@pytest.mark.parametrize(
    ("settings", "path", "access"),
    [
        ({}, "/srv/x", Access.WRITABLE),
        ({"ProtectSystem": "yes"}, "/usr/x", Access.READ_ONLY),
        ({"ProtectSystem": "yes"}, "/etc/x", Access.WRITABLE),
        ({"ProtectSystem": "full"}, "/etc/x", Access.READ_ONLY),
        ({"ProtectSystem": "strict", "ReadWritePaths": "/srv"}, "/srv/x", Access.WRITABLE),
        ({"ProtectSystem": "strict", "ReadWritePaths": "/srv"}, "/srvx", Access.READ_ONLY),
        ({"ReadWritePaths": "/srv", "ReadOnlyPaths": "-/srv/a"}, "/srv/a/b", Access.READ_ONLY),
        ({"ReadOnlyPaths": "/srv", "ReadWritePaths": "+/srv/a"}, "/srv/a/b", Access.WRITABLE),
        ({"ReadOnlyPaths": "/srv/a", "ReadWritePaths": "/srv/a"}, "/srv/a/b", Access.READ_ONLY),
        ({"InaccessiblePaths": "/srv", "ReadWritePaths": "/srv/a"}, "/srv/a/b", Access.HIDDEN),
        ({"TemporaryFileSystem": "/srv:ro", "ReadWritePaths": "/srv/a"}, "/srv/a/b", Access.COVERED),
        ({"TemporaryFileSystem": "/srv:ro", "BindPaths": "/data:/srv/a"}, "/srv/a/b", Access.WRITABLE),
        ({"ProtectHome": "tmpfs", "BindReadOnlyPaths": "/home/cam"}, "/home/cam/x", Access.READ_ONLY),
    ],
)
def test_of_several_settings_the_one_that_systemd_follows_decides(
    settings: dict[str, str], path: str, access: Access
) -> None:
    """The longest path; what is inaccessible stays so; of two for one path the stricter one."""
    assert look(rules_of(settings), Path(path)).access is access


def test_only_the_units_own_configuration_is_held_against_its_walls(tmp_path: Path) -> None:
    """A file that somebody tries in a terminal has no walls."""
    assert is_about(AS_SHIPPED, FILE)
    assert not is_about(AS_SHIPPED, tmp_path / "agent.yaml")
    other = AS_SHIPPED | {"ExecStart": "{ path=/x ; argv[]=/x run --config /srv/a.yaml ; ignore_errors=no }"}
    assert is_about(other, Path("/srv/a.yaml"))
    assert not is_about({}, FILE)


def test_a_password_that_systemd_loads_is_looked_for_where_systemd_finds_it() -> None:
    """`password_file: mqtt` is no missing file when the unit has LoadCredential=mqtt:..."""
    config = config_of(mqtt={"username": "u", "password_file": "mqtt"})
    loaded = AS_SHIPPED | {"LoadCredential": "other:/x mqtt:/etc/strip-agent/mqtt-password"}
    assert with_credentials(config, loaded).mqtt.password_file == Path("/etc/strip-agent/mqtt-password")
    assert with_credentials(config, AS_SHIPPED) is config


def test_a_network_that_the_unit_forbids_is_said() -> None:
    """IPAddressDeny=any without the broker's address: the box would wait for a broker for ever."""
    config = config_of(mqtt={"host": "192.0.2.10"})
    anybody = {"IPAddressDeny": "::/0 0.0.0.0/0"}
    ((where, sentence, warning),) = found(config, **anybody)
    assert (where, warning) == ("mqtt.host", True)
    assert sentence.endswith("[Service] IPAddressAllow=192.0.2.10")
    assert found(config, **anybody, IPAddressAllow="192.0.2.0/24") == []
    assert found(config, IPAddressDeny="10.0.0.0/8") == []


@pytest.mark.parametrize(
    ("provider", "setting"),
    [("openvino", "MemoryDenyWriteExecute"), ("cuda", "PrivateDevices"), ("tensorrt", "PrivateDevices")],
)
def test_what_keeps_a_provider_from_working_is_said_and_opened(provider: str, setting: str) -> None:
    """OpenVINO makes machine code while it runs, the others need a device: both is forbidden as shipped."""
    config, shut = config_of(inference={"provider": provider}), {setting: "yes"}
    ((where, sentence, warning),) = found(config, **shut)
    assert (where, warning) == ("inference.provider", True)
    assert sentence.endswith(f"[Service] {setting}=no")
    assert walls.openings(config, FILE, AS_SHIPPED | shut) == [f"{setting}=no"]
    assert found(config, **{setting: "no"}) == []
    assert found(config_of(), MemoryDenyWriteExecute="yes", PrivateDevices="yes") == []


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container, a Mac, a systemctl that does not answer."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert walls.ask_unit() == {}
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho LoadState=not-found\n")
    (tmp_path / "systemctl").chmod(0o755)
    assert walls.ask_unit() == {}
    (tmp_path / "systemctl").write_text("#!/bin/sh\nwhile :; do :; done\n")
    monkeypatch.setattr(walls, "ASK_SECONDS", 0.2)
    assert walls.ask_unit() == {}


def test_what_a_drop_in_sets_of_the_configuration_is_known(tmp_path: Path) -> None:
    """Else check-config and an upgrade would judge another configuration than the service's; no more is taken."""
    file = tmp_path / "more"
    file.write_text("# a comment\nSTRIP_AGENT__LOG__LEVEL=debug\nSECRET=x\n")
    settings = {
        "Environment": 'PATH=/bin STRIP_AGENT__MQTT__HOST=broker "STRIP_AGENT__CAMERAS=[{name: \\"a b\\"}]"',
        "EnvironmentFiles": f"{file} (ignore_errors=no) {tmp_path}/none (ignore_errors=yes)",
    }
    assert with_environment({"STRIP_AGENT__MQTT__HOST": "mine", "HOME": "/root"}, settings) == {
        "HOME": "/root",
        "STRIP_AGENT__MQTT__HOST": "broker",
        "STRIP_AGENT__CAMERAS": '[{name: "a b"}]',
        "STRIP_AGENT__LOG__LEVEL": "debug",
    }
    assert with_environment({"A": "b"}, {}) == {"A": "b"}
