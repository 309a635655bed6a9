"""Building blocks of the configuration's models: types that several keys share, and the base of all sections."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterator


def _to_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("it must be an absolute path, one that starts with /")
    if "\0" in str(path):
        raise ValueError("it must not contain a zero byte")
    return path


def _absolute_or_bare(path: Path) -> Path:
    return path if path.name == str(path) else _absolute(path)


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
ClientId = Annotated[str, Field(pattern=r"^[!-~]{1,200}$"), in_words("1 to 200 printable ASCII characters")]
Topic = Annotated[
    str,
    Field(pattern=r"^[^$+#/\x00-\x1f\x7f][^+#/\x00-\x1f\x7f]*(/[^+#/\x00-\x1f\x7f]+)*$", max_length=200),
    in_words("topic levels between single `/`, without `+` and `#`, with no `$` at the beginning"),
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
