"""The configuration: the machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.config import Config
from agent.config import check as config_check
from agent.config.check import check_environment
from agent.config.words import allowed, known_part, leaf_paths
from tests.config.reading import CAMERA, the_problem_of
from tests.helpers.certificates import make_authority, make_pair

WITH_TLS: dict[str, Any] = {"port": 8883, "tls": {"enabled": True}}


def on_this_machine(tmp_path: Path, **changes: Any) -> Config:
    """Build a configuration whose folders exist below `tmp_path`, with `changes` to its sections."""
    for name in ("state", "top", "inbox"):
        (tmp_path / name).mkdir(exist_ok=True)
    sections: dict[str, Any] = {
        "agent": {"state_folder": str(tmp_path / "state")},
        "cameras": [{"name": "top", "folder": str(tmp_path / "top")}],
        "models": {"inbox": str(tmp_path / "inbox")},
    }
    for section, values in changes.items():
        sections[section] = {**sections.get(section, {}), **values} if isinstance(values, dict) else values
    return Config.model_validate(sections)


def check(config: Config, **environ: str) -> list[tuple[str, bool]]:
    """Check the environment and return (place, whether it is a warning)."""
    return [(problem.where, problem.warning) for problem in check_environment(config, environ)]


def test_the_default_layout_has_no_problem(tmp_path: Path) -> None:
    """Heatmaps inside the state folder are the default, and allowed."""
    assert check(on_this_machine(tmp_path)) == []
    assert check(on_this_machine(tmp_path, heatmaps={"folder": str(tmp_path / "state/heatmaps/line1")})) == []


def test_a_state_folder_that_can_be_created_is_fine_and_is_not_created(tmp_path: Path) -> None:
    """Checking changes nothing on the machine."""
    config = on_this_machine(tmp_path, agent={"state_folder": str(tmp_path / "new/state")})
    assert check(config) == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"heatmaps": {"folder": "{}/state"}},
        {"heatmaps": {"folder": "{}"}},
        {"heatmaps": {"folder": "{}/state/store"}},
        {"heatmaps": {"folder": "{}/top"}},
        {"heatmaps": {"folder": "{}/top/heatmaps"}},
        {"models": {"inbox": "{}/top/models"}},
        {"models": {"inbox": "{}/state/inbox"}},
        {"models": {"inbox": "{}/link-to-top"}},
        {"models": {"inbox": "{}/state/../top"}},
        {"agent": {"state_folder": "{}/top"}},
        {"cameras": [{"name": "a", "folder": "{}/top"}, {"name": "b", "folder": "{}/top/b"}]},
        {"cameras": [{"name": "a", "folder": "{}/top"}, {"name": "b", "folder": "{}/link-to-top"}]},
        {"cameras": [{"name": "a", "folder": "{}/top", "when_done": "move", "done_folder": "{}/top/done"}]},
        {"cameras": [{"name": "a", "folder": "{}/state/heatmaps/a"}]},
    ],
)
def test_folders_that_overlap_are_an_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    """What one part writes must never be what another part reads or removes; links do not hide it."""
    (tmp_path / "link-to-top").symlink_to(tmp_path / "top")
    filled = yaml.safe_load(yaml.safe_dump(changes).replace("{}", str(tmp_path)))
    problems = check_environment(on_this_machine(tmp_path, **filled), {})
    errors = [problem for problem in problems if not problem.warning]
    assert errors
    assert all("folder" in problem.message for problem in errors)


def test_two_cameras_that_move_to_one_folder_are_an_error(tmp_path: Path) -> None:
    """Files of the same name would meet there."""
    cameras = [
        {"name": name, "folder": str(tmp_path / name), "when_done": "move", "done_folder": str(tmp_path / "done")}
        for name in ("top", "side")
    ]
    assert ("cameras[1].done_folder", False) in check(on_this_machine(tmp_path, cameras=cameras))


def test_a_camera_folder_that_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    """Shares are mounted later; the service waits for them."""
    cameras = [{"name": "top", "folder": str(tmp_path / "later")}]
    assert check(on_this_machine(tmp_path, cameras=cameras)) == [("cameras[0].folder", True)]


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    """Nothing would ever arrive there."""
    (tmp_path / "file").write_text("")
    cameras = [{"name": "top", "folder": str(tmp_path / "file")}]
    config = on_this_machine(tmp_path, cameras=cameras, agent={"state_folder": str(tmp_path / "file")})
    assert {("cameras[0].folder", False), ("agent.state_folder", False)} <= set(check(config))


def test_a_done_folder_on_another_file_system_is_a_warning(tmp_path: Path) -> None:
    """Moving becomes copying there, which works and costs time."""
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    camera = {"name": "top", "folder": str(tmp_path / "top"), "when_done": "move", "done_folder": "/dev/shm/done"}
    assert check(on_this_machine(tmp_path, cameras=[camera])) == [("cameras[0].done_folder", True)]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_folders_without_rights_are_told_to_the_user_who_lacks_them(tmp_path: Path) -> None:
    """The service's user must write its state; what the others lack costs what lies in them, and may come later."""
    for name in ("state", "top", "inbox"):
        (tmp_path / name).mkdir()
    (tmp_path / "top").chmod(0o700)
    (tmp_path / "inbox").chmod(0o755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "agent.yaml").write_text(
        f"agent: {{state_folder: {tmp_path}/state}}\nmodels: {{inbox: {tmp_path}/inbox}}\n"
        f"cameras: [{{name: top, folder: {tmp_path}/top}}]\n"
    )
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from agent.config.check import check_environment\nfrom agent.config.file import load_config\n"
        "config = load_config(Path(sys.argv[1]), {})\nos.setgid(65534)\nos.setuid(65534)\n"
        "print([(problem.where, problem.warning) for problem in check_environment(config, {})])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "agent.yaml")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.strip() == str(
        [("agent.state_folder", False), ("heatmaps.folder", True), ("cameras[0].folder", True)]
    )


def test_commands_that_anybody_on_the_way_could_give_are_a_warning(tmp_path: Path) -> None:
    """On this machine, and over TLS, nobody is on the way."""
    warning = ("mqtt.commands", True)
    there, here = {"host": "10.1.2.3"}, {"host": "localhost"}
    assert warning in check(on_this_machine(tmp_path, mqtt={**there, "commands": ["pause"]}))
    assert warning not in check(on_this_machine(tmp_path, mqtt=there))
    assert check(on_this_machine(tmp_path, mqtt={**here, "commands": ["pause"]})) == []


def test_missing_and_open_secret_files_are_told_apart(tmp_path: Path) -> None:
    """Both are warnings: without them results wait in the outbox, and what everybody can read still works."""
    make_pair(tmp_path, "cert", make_authority(tmp_path, "ca"))
    for name, file in {"ca": "ca.crt", "cert": "cert.crt", "key": "cert.key"}.items():
        (tmp_path / file).rename(tmp_path / name)
    (tmp_path / "password").write_text("x")
    for name in ("ca", "cert", "key", "password"):
        (tmp_path / name).chmod(0o644)
    tls = {"enabled": True, **{f"{name}_file": str(tmp_path / name) for name in ("ca", "cert", "key")}}
    mqtt = {"username": "u", "password_file": str(tmp_path / "password"), "port": 8883, "tls": tls}
    config = on_this_machine(tmp_path, mqtt=mqtt)
    assert check(config) == [("mqtt.password_file", True), ("mqtt.tls.key_file", True)]
    (tmp_path / "key").chmod(0o640)
    (tmp_path / "password").chmod(0o600)
    assert check(config) == []
    for name in ("ca", "cert", "key", "password"):
        (tmp_path / name).unlink()
    places = ["mqtt.tls.ca_file", "mqtt.tls.cert_file", "mqtt.tls.key_file", "mqtt.password_file"]
    assert check(config) == [(place, True) for place in places]


def test_a_credential_of_systemd_counts_as_the_password_file(tmp_path: Path) -> None:
    """The check looks where the service will look."""
    (tmp_path / "mqtt").write_text("secret")
    (tmp_path / "mqtt").chmod(0o400)
    config = on_this_machine(tmp_path, mqtt={"username": "u", "password_file": "mqtt"})
    assert check(config, CREDENTIALS_DIRECTORY=str(tmp_path)) == []
    assert check(config) == [("mqtt.password_file", True)]


def test_an_unusual_use_of_the_network_is_a_warning_and_names_are_not_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain text to another machine, a password above all, the other port; the broker may be unknown until later."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("a name was resolved"))
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o600)
    mqtt = {"host": "no.such.host.invalid", "username": "u", "password_file": str(tmp_path / "password")}
    assert check(on_this_machine(tmp_path, mqtt=mqtt)) == [("mqtt.password_file", True)]
    assert check(on_this_machine(tmp_path, mqtt={"host": "no.such.host.invalid"})) == [("mqtt.tls.enabled", True)]
    assert check(on_this_machine(tmp_path, mqtt={"port": 8883})) == [("mqtt.port", True)]
    assert check(on_this_machine(tmp_path, mqtt={"tls": {"enabled": True}})) == [("mqtt.port", True)]


@pytest.mark.parametrize("provider", ["openvino", "cuda", "tensorrt"])
def test_a_provider_that_is_not_installed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """The cpu computes then; how to get it is said."""
    monkeypatch.setattr(config_check, "_is_installed", lambda _: False)
    (problem,) = check_environment(on_this_machine(tmp_path, inference={"provider": provider}), {})
    assert (problem.where, problem.warning) == ("inference.provider", True)
    assert "the cpu computes, with an alarm; " in problem.message
    monkeypatch.setattr(config_check, "_is_installed", lambda _: True)
    assert check_environment(on_this_machine(tmp_path, inference={"provider": provider}), {}) == []


def test_a_share_that_hangs_costs_seconds_and_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One dead share must not keep the service from starting for the other cameras."""
    released = threading.Event()
    look_at = config_check._look_at

    def hang(where: str, path: Path) -> Any:
        if where == "cameras[0].folder":
            released.wait(30)
        return look_at(where, path)

    monkeypatch.setattr(config_check, "_look_at", hang)
    monkeypatch.setattr(config_check, "LOOK_SECONDS", 0.2)
    try:
        assert check(on_this_machine(tmp_path)) == [("cameras[0].folder", True)]
    finally:
        released.set()


def test_every_key_says_in_words_what_it_allows() -> None:
    """No key's sentence falls back to the library's words or to nothing."""
    for path in leaf_paths():
        sentence = allowed(known_part(path)[1])
        assert sentence
        assert "None" not in sentence
        assert known_part(path)[1].get("description"), path


@pytest.mark.parametrize(
    "text",
    [
        "scoring: {method: aera, threshold: 500}",
        "scoring: {method: area, threshold: high}",
        "mqtt: {username: 5, password_file: mqtt}",
        "mqtt: {tls: {enabled: yes, ca_file: /ca}}",
    ],
)
def test_a_wrong_value_causes_no_further_complaints(tmp_path: Path, text: str) -> None:
    """A rule between two keys says nothing while one of them is wrong in itself."""
    the_problem_of(tmp_path, CAMERA + text)


@pytest.mark.parametrize(
    ("mqtt", "name", "where", "sentence"),
    [
        (
            {"base_topic": "a/b/c/d/e/f"},
            "insp1",
            "mqtt.base_topic",
            "at most 8 levels; a/b/c/d/e/f/state/last_strip/top",
        ),
        ({"base_topic": "a" * 182 + "/{agent}"}, "b" * 64, "mqtt.base_topic", "at most 256 bytes"),
        ({"base_topic": "ä" * 120}, "insp1", "mqtt.base_topic", "at most 256 bytes"),
        ({"client_id": "x" * 129}, "insp1", "mqtt.client_id", "at most 128 characters; this has 129"),
    ],
)
def test_what_aws_iot_core_would_not_take_is_said(
    tmp_path: Path, mqtt: dict[str, Any], name: str, where: str, sentence: str
) -> None:
    """A warning, since other brokers do not mind; the service does not start where the broker is Amazon's."""
    for host, warning in (("broker", True), ("x-ats.iot.eu-west-1.amazonaws.com", False)):
        changes = {"agent": {"name": name}, "mqtt": {"host": host, **WITH_TLS, **mqtt}}
        [problem] = check_environment(on_this_machine(tmp_path, **changes), {})
        assert (problem.where, problem.warning) == (where, warning)
        assert sentence in problem.message
        assert "AWS IoT Core" in problem.message


def test_what_aws_iot_core_just_takes_is_no_problem(tmp_path: Path) -> None:
    """Five levels of base topic, 256 bytes, a client id of 128."""
    base = f"a/b/c/d/{'e' * (256 - len('a/b/c/d//state/last_strip/top'))}"
    for mqtt in ({"base_topic": base[:200]}, {"base_topic": "a/b/c/d/e"}, {"client_id": "x" * 128}):
        config = on_this_machine(tmp_path, mqtt={"host": "x-ats.iot.eu-west-1.amazonaws.com", **WITH_TLS, **mqtt})
        assert check(config) == []


def test_azure_iot_hub_is_refused(tmp_path: Path) -> None:
    """It takes none of the agent's topics: better to hear it now than to find an empty historian."""
    [problem] = check_environment(on_this_machine(tmp_path, mqtt={"host": "plant.azure-devices.net", **WITH_TLS}), {})
    assert (problem.where, problem.warning) == ("mqtt.host", False)
