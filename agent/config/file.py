"""Reads the configuration: file and environment in, one frozen `Config` or every problem at once out.

All keys are in `sections.py` and `judging.py`. What only the machine can tell (folders, files) is `check.py`.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.config import Config
from agent.config.full_width import look_alikes
from agent.config.words import NOT_IN_PLAIN, allowed, found, known_part, leaf_paths, shown_path, unknown_key
from agent.config.yaml_text import MAX_CHARACTERS, YamlProblem, read_yaml
from agent.errors import ExitCode, Fatal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.config.yaml_text import KeyPath, Place

PREFIX = "STRIP_AGENT__"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration. `where` is a key or the name of an environment variable."""

    line: int | None  # of the file, starting at 1; None: it is not about a line
    where: str
    message: str
    warning: bool = False  # the service can start all the same
    may_pass: bool = False  # it cannot now, but a later start may find it healed, without anybody changing a word

    def __str__(self) -> str:
        """Write it as one line for people."""
        return ": ".join(filter(None, [f"line {self.line}" if self.line else "", self.where, self.message]))


class ConfigError(Fatal):
    """The configuration is unusable; `problems` has every reason, in the order of the lines of `file`."""

    def __init__(self, problems: list[Problem], file: Path | None = None) -> None:
        passing = bool(problems) and all(problem.may_pass for problem in problems)
        super().__init__(ExitCode.FAILED if passing else ExitCode.CONFIG, "\n".join(map(str, problems)))
        self.problems = problems
        self.file = file


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read the file, lay the environment's values over it, check everything.

    Raises ConfigError with all problems.
    """
    values, places, problems, suspects = _read_file(path)
    problems += list(_lay_over(values, places, environ))
    said = {(problem.line, problem.where) for problem in problems}
    for key_path, message in _broken_keys(values):
        problem = _problem_at(key_path, message, places)
        if (problem.line, problem.where) not in said:
            problems.append(problem)
    if problems:
        problems = suspects + problems
        raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0), path)
    return Config.model_validate(values)


def _read_file(path: Path) -> tuple[dict[str, Any], dict[KeyPath, Place], list[Problem], list[Problem]]:
    """Return values, their lines, problems, and what only is a problem where there are others: look-alikes."""
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(4 * MAX_CHARACTERS + 1)
    except OSError as error:
        raise ConfigError([Problem(None, where, f"cannot be read: {error.strerror}")], path) from error
    suspects: list[Problem] = []
    try:
        text = raw.decode("utf-8-sig")
        suspects = [Problem(line, where, message) for line, message in look_alikes(text)]
        values, lines, unreadable = read_yaml(text)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(line, where, "is not UTF-8 text")], path) from error
    except YamlProblem as error:
        # What YAML makes of look-alikes helps nobody.
        raise ConfigError(suspects or [Problem(error.line, where, error.message)], path) from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        message = f"must be a group of keys such as `agent:` and `cameras:`, found {found(values, {})}"
        raise ConfigError(suspects or [Problem(1, where, message)], path)
    problems = [Problem(problem.line, shown_path(problem.path), problem.message) for problem in unreadable]
    return values, dict(lines), problems, suspects


def variable(path: KeyPath) -> str:
    """Name the environment variable of a key: ("mqtt", "host") is STRIP_AGENT__MQTT__HOST."""
    return PREFIX + "__".join(map(str, path)).upper()


def _lay_over(values: dict[str, Any], places: dict[KeyPath, Place], environ: Mapping[str, str]) -> Iterator[Problem]:
    """Put the environment's values into `values` and its variables into `places`; lists are replaced whole."""
    names = sorted(name for name in environ if name.startswith(PREFIX))
    known = {variable(path): path for path in leaf_paths()} if names else {}
    for name in names:
        if name not in known:
            yield Problem(None, name, _unknown_variable(name, known))
            continue
        path = known[name]
        try:
            value, _, unreadable = read_yaml(environ[name])
        except YamlProblem as error:
            yield Problem(None, name, error.message)
            continue
        yield from (Problem(None, name + _below(problem.path), problem.message) for problem in unreadable)
        section: Any = values
        for key in path[:-1]:
            if isinstance(section, dict) and section.get(key) is None:
                section[key] = {}
            section = section[key] if isinstance(section, dict) else None
        if not isinstance(section, dict):
            continue  # the file has something else in place of the section, which is a problem of its own
        for place in [place for place in places if place[: len(path)] == path]:
            del places[place]
        section[path[-1]] = value
        places[path] = name


def _unknown_variable(name: str, known: Mapping[str, KeyPath]) -> str:
    dotted = name.removeprefix(PREFIX).lower().replace("__", ".")
    if dotted.rpartition(".")[2].startswith(("password", "secret", "token")):
        return NOT_IN_PLAIN
    whole = next((other for other in known if name.startswith(f"{other}__")), None)
    if whole is not None:
        return f"there is no such variable; {whole} is set as a whole, in YAML"
    below = [other for other in known if other.startswith(f"{name}__")]
    if below:
        return f"a section cannot be set as a whole; set {', '.join(below)}"
    close = difflib.get_close_matches(name, known, n=3)
    return "there is no such variable; " + (f"did you mean {' or '.join(close)}?" if close else "no name is close")


def _broken_keys(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield what the models say, in sentences.

    Rules between several keys are only checked where each key is right. So that nothing is left for the next run,
    everything is checked again without the broken values, until nothing new comes up; a rule is not believed then where
    it is about one of them: it stands there, in the same section, or in the sentence.
    """
    told: set[KeyPath] = set()
    lost: set[KeyPath] = set()
    rest = values
    while new := [one for one in _complaints(rest) if one[0] not in told]:
        sections = {path[:-1] for path in lost} - {()}
        for path, message, kind in new:
            if kind not in sections and path not in lost and not any(shown_path(one) in message for one in lost):
                yield path, message
        told |= {path for path, _, _ in new}
        lost |= {path for path, _, kind in new if kind not in {"extra_forbidden", "missing"}}
        rest = _without(rest, [path for path, _, _ in new])


def _complaints(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str, KeyPath | str]]:
    """Yield (path, sentence, kind of error or the section whose rule is broken), each path once."""
    try:
        Config.model_validate(values)
    except ValidationError as error:
        seen: set[KeyPath] = set()
        for one in error.errors(include_url=False):
            for path, message in _sentences(one, values):
                if path not in seen:
                    seen.add(path)
                    yield path, message, one["loc"] if one["type"] == "broken_rules" else one["type"]


def _sentences(error: Any, values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    location: KeyPath = error["loc"]
    path, schema = known_part(location)
    match error["type"]:
        case "extra_forbidden":
            yield location, unknown_key(location)
        case "missing":
            yield path, f"is missing; needed is {allowed(schema)}"
        case "broken_rules":
            for key, sentence in error["ctx"]["broken"]:
                steps = tuple(int(step) if step.isdecimal() else step for step in key.split("."))
                yield (*location, *steps), sentence
        case "value_error":
            yield path, f"found {found(_value_at(values, path), schema)}; {error['ctx']['error']}"
        case _:
            yield path, f"found {found(_value_at(values, path), schema)}; allowed is {allowed(schema)}"


def _without(values: dict[str, Any], paths: list[KeyPath]) -> dict[str, Any]:
    """Copy `values` without the values at `paths`; cameras are filled up so that they pass."""
    rest = copy.deepcopy(values)
    for path in paths:
        section = _value_at(rest, path[:-1])
        if isinstance(section, dict):
            section.pop(path[-1], None)
        elif path[:-1] != ("cameras",):  # an item of another list: without the list
            rest = _without(rest, [path[:-1]])
    cameras = [camera if isinstance(camera, dict) else {} for camera in rest.get("cameras", [None])]
    names = [{"name": f"unnamed-{number}", "folder": "/"} for number in range(len(cameras))]
    return {**rest, "cameras": [{**name, **camera} for name, camera in zip(names, cameras, strict=True)]}


def _value_at(values: Any, path: KeyPath) -> Any:
    for step in path:
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _problem_at(path: KeyPath, message: str, places: Mapping[KeyPath, Place]) -> Problem:
    depth = next((depth for depth in range(len(path), -1, -1) if path[:depth] in places), 0)
    place = places.get(path[:depth])
    if isinstance(place, str):
        return Problem(None, place + _below(path[depth:]), message)
    return Problem(place, shown_path(path), message)


def _below(path: KeyPath) -> str:
    shown = shown_path(path)
    return f".{shown}" if shown and not shown.startswith("[") else shown
