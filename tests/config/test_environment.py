"""The configuration: what the environment overrides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.config.file import variable
from agent.config.words import leaf_paths
from tests.config.reading import CAMERA, load, problems_of

if TYPE_CHECKING:
    from pathlib import Path


def test_the_environment_overrides_the_file_and_lists_are_replaced_whole(tmp_path: Path) -> None:
    """Values are YAML; a list in a variable has nothing of the file's list left."""
    config = load(
        tmp_path,
        CAMERA + "mqtt: {host: a, port: 1}\nscoring: {threshold: 0.5}\n",
        STRIP_AGENT__MQTT__HOST="broker",
        STRIP_AGENT__MQTT__TLS__ENABLED="true",
        STRIP_AGENT__SCORING__THRESHOLD="",
        STRIP_AGENT__CAMERAS="[{name: left, folder: /l}, {name: right, folder: /r}]",
        STRIP_AGENT_CONFIG="not ours",
        PATH="/bin",
    )
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.tls.enabled) == ("broker", 1, True)
    assert config.scoring.threshold is None
    assert [camera.name for camera in config.cameras] == ["left", "right"]


@pytest.mark.parametrize(
    ("name", "value", "where", "sentence"),
    [
        ("MQTT__PORT", "x", "MQTT__PORT", "found the text 'x'; allowed is a whole number from 1 to 65535"),
        ("MQTT__PORT", "[1", "MQTT__PORT", "this is not YAML"),
        ("MQTT__HOST", "{a: 1, a: 2}", "MQTT__HOST.a", "this key was written before"),
        ("MQTT__HOTS", "x", "MQTT__HOTS", "did you mean STRIP_AGENT__MQTT__HOST"),
        ("mqtt__host", "x", "mqtt__host", "there is no such variable"),
        ("QQQ", "x", "QQQ", "there is no such variable"),
        ("MQTT__PASSWORD", "hunter2", "MQTT__PASSWORD", "name that in password_file"),
        ("MQTT__TLS", "{enabled: true}", "MQTT__TLS", "set STRIP_AGENT__MQTT__TLS__ENABLED"),
        ("CAMERAS__0__NAME", "x", "CAMERAS__0__NAME", "STRIP_AGENT__CAMERAS is set as a whole"),
        ("CAMERAS", "[{name: a, folder: x}]", "CAMERAS[0].folder", "it must be an absolute path"),
    ],
)
def test_a_problem_in_the_environment_names_the_variable(
    tmp_path: Path, name: str, value: str, where: str, sentence: str
) -> None:
    """Unknown variables are errors; the variable stands where the line would."""
    problems = problems_of(tmp_path, CAMERA, **{f"STRIP_AGENT__{name}": value})
    assert problems[0].line is None
    assert problems[0].where == f"STRIP_AGENT__{where}"
    assert sentence in problems[0].message
    assert "hunter2" not in str(problems)


def test_every_key_can_be_set_by_environment(tmp_path: Path) -> None:
    """Each key's default, written as YAML into its variable, is read back as that default."""
    plain = load(tmp_path, CAMERA)
    values = plain.model_dump(mode="json")
    environ = {}
    for path in leaf_paths():
        value: Any = values
        for key in path:
            value = value[key]
        environ[variable(path)] = yaml.safe_dump(value)
    assert load(tmp_path, "", **environ) == plain
