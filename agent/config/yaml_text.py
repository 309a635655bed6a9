"""YAML text to plain values, with the line of every key.

Values follow YAML 1.2: `no`, `on`, `0123`, `1:30` and `1_000` are text, not what YAML 1.1 silently makes of them. Keys
that occur twice and tags are problems. Size, depth, aliases and the number of values are limited before anything grows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from agent.config.full_width import AROUND_A_VALUE, sentence

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARACTERS = 1 << 18
MAX_DEPTH = 20
MAX_ALIASES = 100
MAX_VALUES = 20_000  # aliases counted as often as they are used

KeyPath = tuple[str | int, ...]
"""Where a value stands, for example ("cameras", 0, "folder")."""

Place = int | str
"""A line of the file, starting at 1, or the name of an environment variable."""

_TAG = "tag:yaml.org,2002:"


_CONVERT: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": int,
    "float": float,
}


class YamlProblem(Exception):
    """The text cannot be read; `line` starts at 1 and is None where YAML gives none."""

    def __init__(self, message: str, line: int | None = None, path: KeyPath = ()) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.path = path


class _Yaml12Loader(yaml.SafeLoader):
    """Composes nodes whose plain scalars are told apart by the core schema of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - this is how PyYAML declares it; filled right below


for _tag, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?",
    "merge": r"<<",
}.items():
    _Yaml12Loader.add_implicit_resolver(_TAG + _tag, re.compile(f"^(?:{_pattern})$"), None)


def read_yaml(text: str) -> tuple[Any, dict[KeyPath, int], list[YamlProblem]]:
    """Read one document: (values, line of every key and list item, problems that did not stop the reading).

    Raises YamlProblem where the text is no YAML or exceeds a limit.
    """
    if len(text) > MAX_CHARACTERS:
        raise YamlProblem(f"it is longer than {MAX_CHARACTERS} characters")
    try:
        _check_limits(text)
        node = yaml.compose(text, Loader=_Yaml12Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlProblem(_sentence(error), mark.line + 1 if mark else None) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(f"the character U+{error.character:04X} is not allowed", line) from error
    conversion = _Conversion()
    value = conversion.value(node, ()) if node is not None else None
    return value, conversion.lines, conversion.problems


def _check_limits(text: str) -> None:
    """Walk over the events, which costs no depth and no memory, before a tree is built of them."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=_Yaml12Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        line = event.start_mark.line + 1 if event.start_mark else None
        if depth > MAX_DEPTH:
            raise YamlProblem(f"it is nested deeper than {MAX_DEPTH} levels", line)
        if aliases > MAX_ALIASES:
            raise YamlProblem(f"it has more than {MAX_ALIASES} aliases (*name)", line)


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if r"'\t'" in problem:
        return "a tab where YAML wants spaces"
    context = f"{error.context}: " if error.context else ""
    hint = " (is the indentation right, and is text with ': ' or '#' in quotes?)" if "mapping values" in problem else ""
    return f"this is not YAML: {context}{problem}{hint}"


class _Conversion:
    """Turns nodes into values and remembers lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[YamlProblem] = []
        self.count = 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """Convert one node and everything below it."""
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.count += 1
        # An alias inside its own anchor never ends; the depth catches it.
        if self.count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise YamlProblem(f"its aliases unfold to more than {MAX_VALUES} values or {MAX_DEPTH} levels", line)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._problem(f"the tag {node.tag} is not supported", node, path)
        return None

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if key_node.tag == _TAG + "merge":
                self._problem("`<<` is not supported; write the keys out", key_node, path)
            elif not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                self._problem("a key must be text", key_node, path)
            elif key in values:
                first = self.lines[(*path, key)]
                self._problem(f"this key was written before, in line {first}", key_node, (*path, key))
            else:
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                values[key] = self.value(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind = node.tag.removeprefix(_TAG)
        ends = node.value[:1] + node.value[-1:] if node.style is None else ""
        if AROUND_A_VALUE.intersection(ends):
            self._problem(sentence("".join(dict.fromkeys(filter(AROUND_A_VALUE.__contains__, ends)))), node, path)
        if kind not in _CONVERT:
            self._problem(f"the tag {node.tag} is not supported", node, path)
            return None
        try:
            return _CONVERT[kind](node.value)
        except (KeyError, ValueError):
            self._problem(f"'{node.value[:40]}' does not go with the tag !!{kind}", node, path)
            return None

    def _problem(self, message: str, node: yaml.Node, path: KeyPath) -> None:
        self.problems.append(YamlProblem(message, node.start_mark.line + 1, path))
