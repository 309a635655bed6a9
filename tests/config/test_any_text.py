"""The configuration: no file at all makes reading it fall over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.config.file import ConfigError, Problem
from agent.config.words import leaf_paths
from agent.config.yaml_text import YamlProblem, read_yaml
from tests.config.reading import load

if TYPE_CHECKING:
    from pathlib import Path

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("/srv/x"))
KEYS = st.one_of(st.text(max_size=5), st.sampled_from(sorted({key for path in leaf_paths() for key in path})))
CAMERA_KEYS = st.sampled_from(["name", "folder", "patterns", "threshold", "when_done", "done_folder", "backlog", "x"])
CAMERAS = st.lists(st.one_of(SCALARS, st.dictionaries(CAMERA_KEYS, st.one_of(SCALARS, st.lists(SCALARS)))), max_size=3)
VALUES = st.recursive(SCALARS, lambda below: st.one_of(st.lists(below), st.dictionaries(KEYS, below)), max_leaves=10)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@given(st.text(max_size=60))
def test_any_text_is_values_or_one_problem(text: str) -> None:
    """YAML's own errors never get out."""
    try:
        message = read_yaml(text)[0] or "values"
    except YamlProblem as problem:
        message = problem.message
    assert message
