"""`strip-agent setup`: what it writes and makes out of answers, and what it leaves alone."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agent.cli.__main__ import cli
from agent.cli.setup import place as place_module
from agent.cli.setup import run
from agent.cli.setup.answers import Answers, CameraAnswer, default_name
from agent.cli.setup.fill_in import is_shipped
from agent.cli.setup.place import place
from agent.cli.setup.run import configure
from agent.cli.setup.walls import drop_in
from agent.config import Config
from agent.config.file import ConfigError, load_config
from agent.errors import Fatal
from tests.cli.test_walls import AS_SHIPPED, FILE
from tests.helpers.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = (ROOT / "config/agent.yaml").read_text()


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the configuration as install.sh leaves it; this user's group stands for the service's."""
    group = grp.getgrgid(os.getgid()).gr_name
    monkeypatch.setattr(run, "SERVICE", group)
    monkeypatch.setattr(place_module, "SERVICE", pwd.getpwuid(os.getuid()).pw_name)
    path = tmp_path / "agent.yaml"
    shutil.copy(ROOT / "config/agent.yaml", path)
    return path


def said(config_file: Path, answers: Answers) -> list[str]:
    """Configure without asking; what it tells."""
    told: list[str] = []
    configure(config_file, answers, told.append, guided=False)
    return told


def test_the_shipped_configuration_can_be_filled_in() -> None:
    """Each line that is replaced stands in config/agent.yaml exactly once."""
    assert is_shipped(SHIPPED)


@pytest.mark.parametrize("name", ["insp-7", "null", "007", "yes"])
@pytest.mark.parametrize(
    ("broker", "address"),
    [
        ("b.example", ("b.example", 1883)),
        ("10.0.0.7:8883", ("10.0.0.7", 8883)),
        ("[::1]:1884", ("::1", 1884)),
        ("::1", ("::1", 1883)),
    ],
)
def test_answers_arrive_in_the_configuration(
    config_file: Path, name: str, broker: str, address: tuple[str, int]
) -> None:
    """As they were given, also where YAML would take them for something else; the explanations stay."""
    cameras = (CameraAnswer.of("on=/srv/cameras/top"), CameraAnswer.of("left=/data/left 2:cam"))
    said(config_file, Answers(name, cameras, broker, "user", "secret: #1"))
    config = load_config(config_file, {})
    assert config.agent.name == name
    assert [(one.name, str(one.folder)) for one in config.cameras] == [
        ("on", "/srv/cameras/top"),
        ("left", "/data/left 2"),
    ]
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.username) == (*address, "user")
    assert config.mqtt.password_file == config_file.with_name("mqtt-password")
    assert config_file.with_name("mqtt-password").read_text() == "secret: #1\n"
    assert "secret" not in config_file.read_text()
    assert {path.stat().st_mode & 0o777 for path in config_file.parent.iterdir()} == {0o640}
    assert config_file.read_text().count("# ") >= SHIPPED.count("# ")


def test_without_answers_most_boxes_are_right(config_file: Path) -> None:
    """--yes alone: the machine's name, one camera, a broker on the box."""
    said(config_file, Answers())
    config = load_config(config_file, {})
    assert (config.agent.name, config.mqtt.host) == (default_name(), "localhost")
    assert [str(camera.folder) for camera in config.cameras] == ["/srv/cameras/top"]


@pytest.mark.parametrize(
    "answers",
    [
        Answers(name="has space"),
        Answers(broker="host:port"),
        Answers(cameras=(CameraAnswer.of("a=/srv/x"), CameraAnswer.of("a=/srv/y"))),
    ],
)
def test_an_answer_that_cannot_be_is_refused_before_anything_is_written(config_file: Path, answers: Answers) -> None:
    """By the rules of the configuration itself."""
    with pytest.raises(ConfigError):
        said(config_file, answers)
    assert config_file.read_text() == SHIPPED


def test_an_edited_configuration_is_left_alone(config_file: Path) -> None:
    """Run again it changes nothing; to answer anew is refused, as the file is the place for that now."""
    said(config_file, Answers(name="mine"))
    before = config_file.read_bytes()
    assert "stays as it is" in said(config_file, Answers())[0]
    with pytest.raises(Fatal, match="has been edited"):
        said(config_file, Answers(name="other"))
    assert config_file.read_bytes() == before


@pytest.mark.usefixtures("config_file")
def test_folders_are_made_with_the_rights_that_their_users_need(tmp_path: Path) -> None:
    """The camera's user writes, the service's group reads, or removes too; what exists stays as it is."""
    (tmp_path / "there").mkdir(mode=0o700)
    cameras = [
        {"name": "reads", "folder": str(tmp_path / "a/reads")},
        {
            "name": "moves",
            "folder": str(tmp_path / "moves"),
            "when_done": "move",
            "done_folder": str(tmp_path / "done"),
        },
        {"name": "there", "folder": str(tmp_path / "there")},
    ]
    (tmp_path / "inbox").mkdir()
    models = {"inbox": str(tmp_path / "inbox")}
    config = Config.model_validate(
        {"cameras": cameras, "models": models, "heatmaps": {"folder": str(tmp_path / "maps")}}
    )
    user = pwd.getpwuid(os.getuid()).pw_name
    answers = Answers(cameras=(CameraAnswer("reads", tmp_path / "a/reads", user),))
    told = list(place(config, answers))
    modes = {
        name: oct((tmp_path / name).stat().st_mode & 0o7777) for name in ("a/reads", "moves", "done", "there", "maps")
    }
    assert modes == {"a/reads": "0o2750", "moves": "0o2770", "done": "0o750", "there": "0o700", "maps": "0o750"}
    assert any("only root writes to it" in line and "moves" in line for line in told)
    assert list(place(config, answers)) == []


def test_the_walls_are_opened_where_the_configuration_needs_it_and_no_further() -> None:
    """A line for each place that is written to or hidden; none at all where files are only read."""
    cameras: list[dict[str, Any]] = [{"name": "top", "folder": "/srv/cameras/top"}]
    assert drop_in(Config.model_validate({"cameras": cameras}), FILE, AS_SHIPPED) == ""
    cameras.append({"name": "left", "folder": "/home/cam/left", "when_done": "delete"})
    text = drop_in(Config.model_validate({"cameras": cameras, "heatmaps": {"folder": "/srv/maps"}}), FILE, AS_SHIPPED)
    lines = text.partition("[Service]\n")[2].splitlines()
    assert lines == ["ProtectHome=read-only", "ReadWritePaths=-/home/cam/left", "ReadWritePaths=-/srv/maps"]


def test_guided_setup_asks_for_what_was_not_given(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, cameras, broker, login, pushers, with defaults that Enter takes."""
    told: list[Answers] = []

    def only_configure(path: Path, given: Answers, tell: Any, *, guided: bool, starts: bool) -> int:
        assert starts
        told.append(configure(path, given, tell, guided=guided))
        return 0

    monkeypatch.setattr("agent.cli.setup.set_up", only_configure)
    typed = "insp7\ntop\n\ncam\ny\nleft\n/data/left\n\nn\nbroker:8883\nme\nsecret\nana bo\n"
    done = CliRunner().invoke(cli, ["setup", "--config", str(config_file)], input=typed)
    assert done.exit_code == 0, done.output
    (answers,) = told
    assert answers == Answers(
        "insp7",
        (CameraAnswer.of("top=/srv/cameras/top:cam"), CameraAnswer.of("left=/data/left")),
        "broker:8883", "me", "secret", ("ana", "bo"),
    )  # fmt: skip
    assert "secret" not in done.output
    assert load_config(config_file, {}).mqtt.port == 8883


def test_a_camera_that_is_none_is_a_usage_error() -> None:
    """Before anything is asked or done."""
    for camera in ("top", "top=relative", "=/srv/x"):
        done = CliRunner().invoke(cli, ["setup", "--yes", "--camera", camera])
        assert done.exit_code == 2
        assert "a camera is NAME=/FOLDER" in done.output
