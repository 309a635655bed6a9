"""The configuration: problems and their lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.config.file import ConfigError, Problem, load_config
from agent.config.yaml_text import MAX_ALIASES, MAX_CHARACTERS
from tests.config.reading import CAMERA, load, problems_of, the_problem_of

if TYPE_CHECKING:
    from pathlib import Path


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
        ("mqtt: {base_topic: 'a/{plant}'}", "it knows {agent}, {site}, {area} and {line}, and no other braces"),
        ("mqtt: {base_topic: 'a/{agent'}", "and no other braces"),
        ("mqtt: {base_topic: 'a/{agent.name}'}", "and no other braces"),
        ("mqtt: {base_topic: 'a/{{agent}}'}", "and no other braces"),
        ("mqtt: {base_topic: 'a/{site}/{agent}'}", "it names {site}, which needs agent.site"),
        ("mqtt: {base_topic: spBv1.0/plant}", "what begins with spBv belongs to Sparkplug"),
        ("mqtt: {base_topic: SPBV1.0}", "what begins with spBv belongs to Sparkplug"),
        ("agent: {site: a/b}", "found the text 'a/b'; allowed is a name"),
        ("mqtt: {tls: {enabled: yes}}", "found the text 'yes'; allowed is `true` or `false`"),
        ("mqtt: {password_file: secrets/mqtt}", "it must be an absolute path"),
        ("mqtt: {password_file: mqtt}", "a password needs username as well"),
        ("mqtt: {tls: {ca_file: /ca.pem}}", "it has no effect without TLS"),
        ("mqtt: {tls: {enabled: true, key_file: /key.pem}}", "a client key needs cert_file as well"),
        ("outbox: {max_messages: 1_000}", "found the text '1_000'; allowed is a whole number from 10"),
        ("outbox: {max_messages: 99999999999999999999}", "allowed is a whole number from 10 to 1000000000"),
        ("ledger: {keep_days: 1e15}", "allowed is a number above 0 to 36500"),
        ("heatmaps: {keep_days: 1e15}", "allowed is a number above 0 to 36500 or `null`"),
        ("inference: {deadline_seconds: 1e30}", "allowed is a number above 0 to 86400"),
        ("models: {trial: {memory_mib: 99999999999999999999}}", "allowed is a whole number from 64 to 10000000"),
        ('heatmaps: {folder: "/\\ud800"}', "it holds characters that no path can have"),
        ("scoring: {threshold: .nan}", "found the text '.nan'; allowed is a number or `null`"),
        ("scoring: {threshold: 1e999}", "allowed is a number or `null`"),
        ("scoring: {threshold: 5}", "found 5; with `scoring.method: max` it is from 0 to 1"),
        ("scoring: {method: area, threshold: 0}", "it is a number of pixels above 0"),
        ("scoring: {method: detections, threshold: 5}", "with `scoring.method: detections` it is from 0 to 1"),
        ("scoring: {detections: {window_px: 4}}", "found 4; it must be odd"),
        ("scoring: {detections: {top_percent: 0}}", "allowed is a number above 0 to 100"),
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


def test_required_signatures_need_a_key(tmp_path: Path) -> None:
    """Without a trusted key every model would be refused; that is told before the service starts."""
    problem = the_problem_of(tmp_path, CAMERA + "models: {require_signature: true}")
    assert problem.where == "models.trusted_keys"
    assert load(tmp_path, CAMERA + "models: {require_signature: true, trusted_keys: [/key.pub]}")


def test_holding_for_subscribers_needs_a_protocol_that_tells_of_them(tmp_path: Path) -> None:
    """A key that cannot do what it says is refused."""
    text = "mqtt: {protocol: 3.1.1}\noutbox: {hold_until_subscribed: true}\n"
    problem = the_problem_of(tmp_path, CAMERA + text)
    assert (problem.line, problem.where) == (3, "outbox.hold_until_subscribed")
    assert "MQTT 3.1.1 does not tell whether anybody subscribes" in problem.message
