"""Building blocks of the configuration's models: types that several keys share, and the base of all sections."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from agent.names import compile_ignored, compile_patterns

if TYPE_CHECKING:
    from collections.abc import Iterator


LAST_PORT = 65535


def _to_path(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("it must not contain a zero byte")
    if isinstance(value, str):
        try:
            os.fsencode(value)
        except UnicodeEncodeError as error:
            raise ValueError("it holds characters that no path can have") from error
    return Path(value) if isinstance(value, str) and value else value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("it must be an absolute path, one that starts with /")
    return path


def _absolute_or_bare(path: Path) -> Path:
    return path if path.name == str(path) else _absolute(path)


def _below_a_folder(pattern: str) -> str:
    if not pattern or pattern.startswith("/") or ".." in pattern.split("/"):
        raise ValueError("it must be relative to the camera's folder, without `..`")
    compile_patterns([pattern])
    return pattern


def _name_to_ignore(entry: str) -> str:
    if entry.startswith("/") or ".." in entry.split("/"):
        raise ValueError("it must be a name, or a path relative to the camera's folder, without `..`")
    compile_ignored([entry])
    return entry


def _host_and_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= LAST_PORT:
        raise ValueError("it must be HOST:PORT, e.g. 127.0.0.1:9464")
    return text


def _with_one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"it must have exactly one group in parentheses, and it has {groups}")
    return pattern


def _knows_its_fields(template: str) -> str:
    rest = template.replace("{path}", "").replace("{path_windows}", "")
    if "{" in rest or "}" in rest or rest == template:
        raise ValueError("it must contain {path} or {path_windows}, and no other braces")
    return template


def _a_base_topic(template: str) -> str:
    if set(re.findall(r"[{}]", re.sub(r"\{(agent|site|area|line)\}", "", template))):
        raise ValueError("it knows {agent}, {site}, {area} and {line}, and no other braces")
    if template.lower().startswith("spbv"):
        raise ValueError("what begins with spBv belongs to Sparkplug, whose hosts would take JSON for broken messages")
    return template


def _name_or_address_alone(host: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%\w+)?", host):
        raise ValueError("it must be a host name or an address alone, without mqtt:// and without the port")
    return host


def in_words(text: str) -> Any:
    """Say in words what a type with a pattern or a validator of its own allows; problems and documentation show it."""
    return Field(json_schema_extra={"words": text})


Name = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$"), in_words("a name of 1 to 64 letters, digits, `-` and `_`")
]
Seconds = Annotated[float, Field(ge=0, le=86400 * 365)]
AbsolutePath = Annotated[Path, BeforeValidator(_to_path), AfterValidator(_absolute), in_words("an absolute path")]
SecretPath = Annotated[
    Path,
    BeforeValidator(_to_path),
    AfterValidator(_absolute_or_bare),
    in_words("an absolute path, or the bare name of a systemd credential"),
]
FilePattern = Annotated[str, AfterValidator(_below_a_folder)]
IgnoredName = Annotated[str, AfterValidator(_name_to_ignore)]
PatternWithOneGroup = Annotated[str, AfterValidator(_with_one_group), in_words("a regular expression with one group")]
UrlTemplate = Annotated[str, AfterValidator(_knows_its_fields)]
Host = Annotated[str, AfterValidator(_name_or_address_alone), in_words("a host name or an address")]
HostAndPort = Annotated[str, AfterValidator(_host_and_port), in_words("HOST:PORT")]
ClientId = Annotated[str, Field(pattern=r"^[!-~]{1,200}$"), in_words("1 to 200 printable ASCII characters")]
BaseTopic = Annotated[
    str,
    Field(pattern=r"^[^$+#/\x00-\x1f\x7f][^+#/\x00-\x1f\x7f]*(/[^+#/\x00-\x1f\x7f]+)*$", max_length=200),
    AfterValidator(_a_base_topic),
    in_words("topic levels between single `/`, without `+` and `#`, with no `$` at the beginning"),
]
SparkplugId = Annotated[
    str,
    Field(pattern=r"^[^+#/\x00-\x1f\x7f]{1,100}$"),
    in_words("1 to 100 characters without `+`, `#` and `/`"),
]
WhatToSave = Literal["all", "anomalous", "none"]


class Section(BaseModel):
    """Base of all sections. Paths come as text; beside that nothing is converted."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key, sentence) for each rule between several keys that this section breaks."""
        yield from ()

    @model_validator(mode="before")
    @classmethod
    def _nothing_below_it_means_defaults(cls, values: Any) -> Any:
        return {} if values is None else values

    @model_validator(mode="after")
    def _all_rules_at_once(self) -> Any:
        broken = list(self.broken_rules())
        if broken:
            sentences = "; ".join(f"{key}: {sentence}" for key, sentence in broken)
            raise PydanticCustomError("broken_rules", "{sentences}", {"sentences": sentences, "broken": broken})
        return self
