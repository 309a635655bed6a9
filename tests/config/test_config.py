"""The configuration: what is read, what is refused, and in which words."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.config import Camera, Config
from agent.config import check as config_check
from agent.config.check import check_environment
from agent.config.file import NOT_BUILT_YET, ConfigError, Problem, load_config, variable
from agent.config.secret_files import read_secret
from agent.config.words import allowed, known_part, leaf_paths
from agent.config.yaml_text import MAX_ALIASES, MAX_CHARACTERS, YamlProblem, read_yaml
from agent.errors import ExitCode
from tests.helpers.repository import ROOT

CAMERA = "cameras: [{name: top, folder: /srv/cameras/top}]\n"


def load(tmp_path: Path, text: str | bytes, **environ: str) -> Config:
    """Load a configuration of this text and this environment."""
    path = tmp_path / "agent.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, environ)


def problems_of(tmp_path: Path, text: str | bytes, **environ: str) -> list[Problem]:
    """Return the problems of a configuration that has some."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    assert caught.value.exit_code is ExitCode.CONFIG
    return caught.value.problems


def the_problem_of(tmp_path: Path, text: str | bytes, **environ: str) -> Problem:
    """Return the only problem of a configuration that has exactly one."""
    problems = problems_of(tmp_path, text, **environ)
    assert len(problems) == 1, problems
    return problems[0]


# Files that are fine


def test_cameras_alone_are_a_configuration(tmp_path: Path) -> None:
    """Everything but the cameras has a default."""
    config = load(tmp_path, CAMERA)
    assert config.mqtt.port == 1883
    assert str(config.heatmap_folder) == "/var/lib/strip-agent/heatmaps"
    assert config.base_topic == "strip-agent/insp1"


def test_a_section_with_every_key_commented_out_has_its_defaults(tmp_path: Path) -> None:
    """`mqtt:` with nothing below it is what a person leaves behind who comments keys out."""
    assert load(tmp_path, CAMERA + "mqtt:\n  # host: broker\nlog:\n").mqtt.host == "localhost"


def test_words_that_older_yaml_takes_for_booleans_stay_text(tmp_path: Path) -> None:
    """A camera can be named `on`, `no` or 01 without quotes."""
    names = [f"{{name: {name}, folder: /srv/{number}}}" for number, name in enumerate(("on", "no", "y", "0123"))]
    assert [camera.name for camera in load(tmp_path, f"cameras: [{', '.join(names)}]").cameras] == [
        "on",
        "no",
        "y",
        "0123",
    ]


def test_an_alias_repeats_a_value(tmp_path: Path) -> None:
    """Anchors and aliases are allowed; they save typing."""
    text = "cameras:\n- {name: a, folder: /a, patterns: &p ['*.tif']}\n- {name: b, folder: /b, patterns: *p}\n"
    assert load(tmp_path, text).cameras[1].patterns == ["*.tif"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    assert load(tmp_path, b"\xef\xbb\xbf" + CAMERA.encode()).cameras[0].name == "top"


# Problems and their lines


def test_every_problem_comes_at_once_with_its_line(tmp_path: Path) -> None:
    """Whoever repairs the file needs one run, not one run per problem; the rules between keys are among them."""
    text = """\
agent: {name: 'a b', state_folder: var/lib}
cameras:
  - name: top
    folder: /srv/a
    pattern: ["*.tif"]
    threshold: high
  - name: TOP
    folder: /srv/b
    done_folder: /srv/c
  - watch: poll
mqtt:
  port: 70000
  hots: broker
  tls: {cert_file: /x}
models: 5
"""
    problems = problems_of(tmp_path, text)
    assert [(problem.line, problem.where) for problem in problems] == [
        (1, "agent.name"),
        (1, "agent.state_folder"),
        (5, "cameras[0].pattern"),
        (6, "cameras[0].threshold"),
        (7, "cameras[1].name"),
        (9, "cameras[1].done_folder"),
        (10, "cameras[2].name"),
        (10, "cameras[2].folder"),
        (12, "mqtt.port"),
        (13, "mqtt.hots"),
        (14, "mqtt.tls.cert_file"),
        (15, "models"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mqtt: {port: '1883'}", "found the text '1883' (write it without quotes and leading zeros); "),
        ("mqtt: {port: 01883}", "found the text '01883' (write it without quotes and leading zeros); "),
        ("mqtt: {port: 18:83}", "found the text '18:83'; allowed is a whole number from 1 to 65535"),
        ("mqtt: {port: 0x75b}", "found the text '0x75b'; "),
        ("mqtt: {port: 1883.0}", "found the number 1883.0; allowed is a whole number from 1 to 65535"),
        ("mqtt: {port: true}", "found true; allowed is a whole number from 1 to 65535"),
        ("mqtt: {port: }", "found nothing; allowed is a whole number from 1 to 65535"),
        ("mqtt: {port: [1]}", "found a list; "),
        ("mqtt: {port: {a: 1}}", "found a group of keys; "),
        ("mqtt: {username: 12}", "found the number 12 (write it in quotes); allowed is text or `null`"),
        ("mqtt: {host: 'mqtt://broker:1883'}", "it must be a host name or an address alone"),
        ("mqtt: {protocol: 4}", "found the number 4; allowed is `auto`, `5` or `3.1.1`"),
        ("mqtt: {base_topic: a/+/b}", "found the text 'a/+/b'; allowed is topic levels"),
        ("mqtt: {base_topic: $SYS/x}", "found the text '$SYS/x'; allowed is topic levels"),
        ("mqtt: {tls: {enabled: yes}}", "found the text 'yes'; allowed is `true` or `false`"),
        ("mqtt: {password_file: secrets/mqtt}", "it must be an absolute path"),
        ("mqtt: {password_file: mqtt}", "a password needs username as well"),
        ("mqtt: {tls: {ca_file: /ca.pem}}", "it has no effect without TLS"),
        ("mqtt: {tls: {enabled: true, key_file: /key.pem}}", "a client key needs cert_file as well"),
        ("outbox: {max_messages: 1_000}", "found the text '1_000'; allowed is a whole number from 10"),
        ("scoring: {threshold: .nan}", "found the text '.nan'; allowed is a number or `null`"),
        ("scoring: {threshold: 1e999}", "allowed is a number or `null`"),
        ("scoring: {threshold: 5}", "found 5; with `scoring.method: max` it is from 0 to 1"),
        ("scoring: {method: area, threshold: 0}", "it is a number of pixels above 0"),
        ("scoring: {method: area}", "`scoring.method: area` needs it here or as scoring.threshold"),
        ("heatmaps: {url_template: 'http://x/{file}'}", "it must contain {path} or {path_windows}"),
        ("heatmaps: {folder: ''}", "found an empty text; allowed is an absolute path or `null`"),
        ("heatmaps: {folder: ~/maps}", "it must be an absolute path"),
        ("checks: {full_scale: 0}", "allowed is a number above 0 or `null`"),
        ("inference: {threads: many}", "allowed is `auto` or a whole number from 1 to 256"),
        ("log: {level: INFO}", "allowed is `debug`, `info`, `warning` or `error`"),
        ("agent: {name: 7}", "found the number 7 (write it in quotes); allowed is a name of 1 to 64 letters"),
        ('agent: {name: "a\\n"}', "found the text 'a\\n'; allowed is a name"),
        ("agent: hello", "found the text 'hello'; allowed is a group of keys"),
        (f"agent: {{name: {'x' * 5000}}}", "x...'; allowed is a name"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(tmp_path: Path, text: str, sentence: str) -> None:
    """Each wrong value is one sentence: what was found, what is allowed; none of the library's own words."""
    problem = the_problem_of(tmp_path, CAMERA + text + "\n")
    assert sentence in problem.message
    assert "nput should" not in problem.message
    assert problem.line == (1 if "needs it here" in sentence else 2)
    assert len(str(problem)) < 400


@pytest.mark.parametrize(
    ("camera", "sentence"),
    [
        ("when_done: move", "`move` needs done_folder as well"),
        ("done_folder: /done", "it has no effect with `when_done: keep`"),
        ("part_id_pattern: '('", "it is no regular expression"),
        ("part_id_pattern: '(a)(b)'", "it must have exactly one group in parentheses, and it has 2"),
        ("patterns: []", "found an empty list; allowed is a list (at least 1 of them, each one text)"),
        ("patterns: '*.tif'", "found the text '*.tif'; allowed is a list"),
        ("patterns: [../*.tif]", "it must be relative to the camera's folder"),
        ("patterns: ['[z-a].tif']", "the range z-a runs backwards"),
        ("patterns: [a//b.tif]", "write it relative to the camera's folder"),
        ("ignore: [/calib]", "it must be a name, or a path relative to the camera's folder"),
        ("ignore: ['**']", "write the name to pass over"),
        ("ignore: .*", "found the text '.*'; allowed is a list"),
        ("patterns: [3]", "found the number 3 (write it in quotes); allowed is text"),
        ("backlog: -1", "found the number -1; allowed is `all` or `none` or a whole number from 0"),
        ("rescan_seconds: 0", "allowed is a number from 0.1 to 86400"),
        ("slot: ../x", "allowed is a name"),
    ],
)
def test_a_wrong_camera_is_told_with_what_is_allowed(tmp_path: Path, camera: str, sentence: str) -> None:
    """Items of lists have lines and places too."""
    problem = the_problem_of(tmp_path, f"cameras:\n- name: top\n  folder: /top\n  {camera}\n")
    assert sentence in problem.message
    assert problem.line == 4
    assert problem.where.startswith("cameras[0].")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mqtt: {hots: x}", "did you mean host?"),
        ("mqtt: {keepalive-seconds: 5}", "did you mean keepalive_seconds?"),
        ("camera: []", "did you mean cameras?"),
        ("host: x", "did you mean mqtt.host?"),
        ("outbox: {zzz: 1}", "outbox knows max_messages"),
        ("zzz: 1", "the file knows agent, cameras, models"),
        ("mqtt: {password: hunter2}", "name that in password_file"),
        ("mqtt: {passwd: hunter2}", "name that in password_file"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(tmp_path: Path, text: str, sentence: str) -> None:
    """A misspelt key is never ignored, and its value, which may be a secret, is never shown."""
    problem = the_problem_of(tmp_path, CAMERA + text)
    assert problem.message.endswith(sentence) or sentence in problem.message
    assert problem.line == 2
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize(
    ("text", "line", "sentence"),
    [
        ("mqtt: {host: [a}", 2, "this is not YAML"),
        ("mqtt:\n\thost: a", 3, "a tab where YAML wants spaces"),
        ("mqtt:\n  host: a: b", 3, "mapping values are not allowed here"),
        ("mqtt: {}\n---\nmqtt: {}", 3, "another document"),
        ("mqtt: *nowhere", 2, "undefined alias"),
        ("mqtt: {host: a\x07b}", 2, "the character U+0007 is not allowed"),
        ("mqtt: " + "[" * 50_000, 2, "nested deeper"),
        ("x: " + "{a: " * 50_000, 2, "nested deeper"),
        ("mqtt: &a [*a]", 2, "unfold to more than"),
        ("a: &a [x]\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]", 3, "aliases"),
        ("\n" * MAX_CHARACTERS, None, "longer than"),
    ],
)
def test_what_is_no_yaml_is_one_problem_with_its_line(
    tmp_path: Path, text: str, line: int | None, sentence: str
) -> None:
    """A file that cannot be read as YAML says where, and hostile ones cost no memory and no recursion."""
    problem = the_problem_of(tmp_path, CAMERA + text)
    assert (problem.line, sentence in problem.message) == (line, True), problem


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    """Aliases of aliases unfold to nothing large."""
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    assert "unfold to more than" in the_problem_of(tmp_path, text).message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mqtt: {port: 1, port: 2}", "this key was written before, in line 2"),
        ("mqtt: {<<: {port: 1}}", "`<<` is not supported"),
        ("mqtt: {host: !!python/object/apply:os.system [id]}", "is not supported"),
        ("mqtt: {host: !secret x}", "the tag !secret is not supported"),
        ("mqtt: {port: !!int x}", "'x' does not go with the tag !!int"),
        ("mqtt: {1: x}", "a key must be text"),
        ("mqtt: {[a]: x}", "a key must be text"),
    ],
)
def test_yaml_that_could_be_misunderstood_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """Keys that occur twice, merges, tags and keys that are no text are problems, not surprises."""
    problems = problems_of(tmp_path, CAMERA + text)
    assert any(sentence in problem.message and problem.line == 2 for problem in problems), problems


@pytest.mark.parametrize("text", ["[a]", "hello", "5"])
def test_a_file_that_is_no_group_of_keys_is_refused(tmp_path: Path, text: str) -> None:
    """A list or a word in place of the sections is one problem in line 1."""
    assert the_problem_of(tmp_path, text).line == 1


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8: each says which file and why."""
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "missing.yaml", {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, {})
    assert the_problem_of(tmp_path, CAMERA.encode() + b"# \xff\n") == Problem(
        2, str(tmp_path / "agent.yaml"), "is not UTF-8 text"
    )


@pytest.mark.parametrize("key", NOT_BUILT_YET)
def test_a_key_of_a_later_feature_is_refused(tmp_path: Path, key: str) -> None:
    """A key whose feature is not built is refused, in the file and in the environment, never ignored."""
    section, _, name = key.rpartition(".")
    text = f"{section}: {{{name}: {{a: 1}}}}" if section else f"{name}: {{a: 1}}"
    assert the_problem_of(tmp_path, CAMERA + text) == Problem(2, key, "not built in this version; remove it")
    found = the_problem_of(tmp_path, CAMERA, **{variable(tuple(key.split("."))): "1"})
    assert found.message == "not built in this version; remove it"


def test_required_signatures_need_a_key(tmp_path: Path) -> None:
    """Without a trusted key every model would be refused; that is told before the service starts."""
    problem = the_problem_of(tmp_path, CAMERA + "models: {require_signature: true}")
    assert problem.where == "models.trusted_keys"
    assert load(tmp_path, CAMERA + "models: {require_signature: true, trusted_keys: [/key.pub]}")


# Environment


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


# No file at all makes it fall over

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("/srv/x"))
KEYS = st.one_of(st.text(max_size=5), st.sampled_from(sorted({key for path in leaf_paths() for key in path})))
CAMERA_KEYS = st.sampled_from(["name", "folder", "patterns", "threshold", "when_done", "done_folder", "backlog", "x"])
CAMERAS = st.lists(st.one_of(SCALARS, st.dictionaries(CAMERA_KEYS, st.one_of(SCALARS, st.lists(SCALARS)))), max_size=3)
VALUES = st.recursive(SCALARS, lambda below: st.one_of(st.lists(below), st.dictionaries(KEYS, below)), max_leaves=10)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.one_of(CAMERAS, VALUES))
@example({}, [None])
@example({"cameras": None}, None)
@example({"mqtt": 5, "log": None}, [{}, 5])
def test_any_tree_of_values_is_a_configuration_or_a_list_of_problems(
    tmp_path: Path, values: dict[str, Any], cameras: Any
) -> None:
    """Whatever a file holds, the answer is a configuration or sentences, never another exception."""
    text = yaml.safe_dump({**values, "cameras": cameras}, allow_unicode=False)
    problems: list[Problem] | None = None
    try:
        load(tmp_path, text, STRIP_AGENT__MQTT__HOST="x")
    except ConfigError as error:
        problems = error.problems
    assert problems is None or all(problem.message and "\n" not in str(problem) for problem in problems), problems
    assert problems != []


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_values_or_one_problem(text: str) -> None:
    """YAML's own errors never get out."""
    try:
        message = read_yaml(text)[0] or "values"
    except YamlProblem as problem:
        message = problem.message
    assert message


# Secrets


def test_a_secret_loses_one_newline_and_nothing_else(tmp_path: Path) -> None:
    """Editors end files with a newline; spaces can belong to a password."""
    path = tmp_path / "password"
    for written in ("geheim ß \n", "geheim ß \r\n", "geheim ß "):
        path.write_bytes(written.encode())
        assert read_secret(path, {}) == "geheim ß "
    path.write_text("two\n\n")
    assert read_secret(path, {}) == "two\n"


def test_a_bare_name_is_a_systemd_credential_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`password_file: mqtt` means the credential of that name, and a path never does."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "mqtt").write_text("from systemd\n")
    (tmp_path / "mqtt").write_text("from the folder\n")
    monkeypatch.chdir(tmp_path)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert read_secret(Path("mqtt"), environ) == "from systemd"
    assert read_secret(Path("mqtt"), {}) == "from the folder"
    assert read_secret(tmp_path / "mqtt", environ) == "from the folder"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"hunter2" * 10_000, "longer than"), (b"hunter2\xff", "not UTF-8")],
)
def test_a_broken_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes, sentence: str) -> None:
    """The refusal names the file; neither it nor its causes carry what is inside."""
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_secret(path, {})
    assert str(path) in str(caught.value)
    assert "hunter2" not in repr((caught.value, caught.value.__cause__))


def test_a_secret_that_is_no_file_does_not_block(tmp_path: Path) -> None:
    """A FIFO would wait for a writer for ever."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is not a regular file"):
        read_secret(tmp_path / "fifo", {})
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(tmp_path / "missing", {})


# The machine


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
    """The service's user must write its state and heatmaps; what a camera's folder lacks may come later."""
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
        [("agent.state_folder", False), ("heatmaps.folder", False), ("cameras[0].folder", True)]
    )


def test_missing_and_open_secret_files_are_told_apart(tmp_path: Path) -> None:
    """A missing key stops the service; one that everybody can read is a warning."""
    for name in ("ca", "cert", "key", "password"):
        (tmp_path / name).write_text("x")
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
    assert check(config) == [(place, False) for place in places]


def test_a_credential_of_systemd_counts_as_the_password_file(tmp_path: Path) -> None:
    """The check looks where the service will look."""
    (tmp_path / "mqtt").write_text("secret")
    (tmp_path / "mqtt").chmod(0o400)
    config = on_this_machine(tmp_path, mqtt={"username": "u", "password_file": "mqtt"})
    assert check(config, CREDENTIALS_DIRECTORY=str(tmp_path)) == []
    assert check(config) == [("mqtt.password_file", False)]


def test_an_unusual_use_of_the_network_is_a_warning_and_names_are_not_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in plain text to another machine, the other port; the broker may be unknown until later."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("a name was resolved"))
    (tmp_path / "password").write_text("x")
    (tmp_path / "password").chmod(0o600)
    mqtt = {"host": "no.such.host.invalid", "username": "u", "password_file": str(tmp_path / "password")}
    assert check(on_this_machine(tmp_path, mqtt=mqtt)) == [("mqtt.password_file", True)]
    assert check(on_this_machine(tmp_path, mqtt={"port": 8883})) == [("mqtt.port", True)]
    assert check(on_this_machine(tmp_path, mqtt={"tls": {"enabled": True}})) == [("mqtt.port", True)]


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


# The example that people start from

EXAMPLE = ROOT / "config" / "agent.yaml"


def test_the_example_is_a_configuration_with_nothing_but_defaults() -> None:
    """Whoever installs it as it is gets the defaults and one camera."""
    assert load_config(EXAMPLE, {}) == Config.model_validate(
        {"cameras": [{"name": "top", "folder": "/srv/cameras/top"}]}
    )


def test_the_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """With all keys uncommented it says the same, and no key of the models is left out."""
    text = re.sub(r"^( *)#(?=[a-z])", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert load(tmp_path, text) == load_config(EXAMPLE, {})
    written = yaml.safe_load(text)
    for path in [*leaf_paths(), *(("cameras", 0, key) for key in Camera.model_fields)]:
        value = written
        for key in path:
            assert key in value or isinstance(key, int), path
            value = value[key]


def test_the_pages_that_are_made_from_the_source_are_up_to_date() -> None:
    """docs/configuration.md says what the models say."""
    script = ROOT / "tools" / "make_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
