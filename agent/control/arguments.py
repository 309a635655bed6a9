"""The arguments of every command, strictly checked: nothing unknown, nothing of another type, nothing endless."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agent.ledger.audit import STATES
from agent.ledger.reviews import Finding  # noqa: TC001 - pydantic reads it

STRIP_DIGITS = 16
MODEL_DIGITS = 8  # fewer might mean a model that nobody thought of
MAX_NAMED = 10_000  # strips in one request
PERSON_CHARACTERS = 64
REMARK_CHARACTERS = 500
PAGE = 1000  # strips in one answer, of which everything is told
_LARGEST = (1 << 63) - 1  # that the ledger holds
_SHOWN = 80  # characters of what was wrong
_LONGEST_TEXT = 4096  # before it is made one line
_KNOWN_STATES = ("pending", "acknowledged", *STATES)


def digits(what: str, least: int, most: int) -> BeforeValidator:
    """Demand so many hexadecimal digits, which name `what`; capitals become small."""

    def check(text: Any) -> str:
        if not isinstance(text, str) or not re.fullmatch(f"[0-9a-fA-F]{{{least},{most}}}", text):
            raise ValueError(f"{_shown(text)} does not name {what}: {least} to {most} hexadecimal digits do")
        return text.lower()

    return BeforeValidator(check)


def _state(text: Any) -> Any:
    if text is not None and text not in _KNOWN_STATES:
        raise ValueError(f"there is no state {_shown(text)}; known are {', '.join(_KNOWN_STATES)}")
    return text


def _one_line(text: Any) -> Any:
    """Make spaces of line breaks and of whatever else separates words; what no terminal should show is refused."""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return text
    line = " ".join(text.split())
    if not line.isprintable():
        raise ValueError("it must be printable text")
    return line


StripDigits = Annotated[str, digits("a strip", 1, STRIP_DIGITS)]
ModelDigits = Annotated[str, digits("a model", MODEL_DIGITS, 64)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Number = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]


class Arguments(BaseModel):
    """What every command takes at the least: nothing."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


Checked = TypeVar("Checked", bound=Arguments)


class Since(Arguments):
    """Only what was seen since; Unix milliseconds."""

    since_ms: Number = 0
    """Only strips seen since; Unix milliseconds."""


class Part(Since):
    """The next part of a long list."""

    after_row: Number


class Listing(Arguments):
    """Which strips to list."""

    state: Annotated[str | None, BeforeValidator(_state)] = None
    camera: Name | None = None
    model: ModelDigits | None = None
    limit: Annotated[int, Field(ge=1)] = 50


class LookingBack(Since):
    """Which strips to tell everything of, the newest first; a page at a time."""

    cameras: Annotated[list[Name], Field(max_length=1000)]
    verdicts: Annotated[list[Literal["ok", "anomalous", "invalid"]], Field(default=[], max_length=3)]
    reviewed: bool = False
    near: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    disagreeing: bool = False
    before_row: Number | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE)] = PAGE


class OneStrip(Arguments):
    """A strip by the beginning of its id."""

    strip_id: StripDigits


class Reviewing(OneStrip):
    """What a person says about a strip."""

    finding: Finding
    """`defect`, `no_defect` or `unsure`."""
    by: Annotated[str, BeforeValidator(_one_line), Field(min_length=1, max_length=PERSON_CHARACTERS)]
    """The person's name: of the same person and strip the latest review counts, whatever case the name is in."""
    remark: Annotated[str, BeforeValidator(_one_line), Field(max_length=REMARK_CHARACTERS)] = ""
    """A remark."""
    revision: Annotated[int, Field(ge=1, le=_LARGEST)] | None = None
    """Revision of the result that the person saw; null: the newest one."""


class ManyStrips(Arguments):
    """Strips by the beginnings of their ids, and the next of a model's behind a row."""

    strip_ids: Annotated[list[StripDigits], Field(default=[], max_length=MAX_NAMED)]
    """Beginnings of strips' ids, each of one strip alone."""
    model: ModelDigits | None = None
    """All strips judged by the model whose digest begins so; 2,000 in one request."""
    after_row: Number = 0
    """Go on with a model's strips: `next_row` of the answer before, until that is null."""


class Numbers(Arguments):
    """Results of a stream (None: the present one) by their numbers, both ends included."""

    stream: Annotated[str, Field(pattern="^[0-9a-f]{1,32}$")] | None = None
    """An earlier stream, of a ledger that was damaged; null: the present one."""
    from_seq: Annotated[int, Field(ge=1, le=_LARGEST)]
    """The first number."""
    to_seq: Annotated[int, Field(ge=1, le=_LARGEST)]
    """The last one; at most 10,000 at a time."""


class OneSlot(Arguments):
    """A slot."""

    slot: Name = "default"
    """Name of the slot."""


class OneModel(OneSlot):
    """A model by the beginning of its digest."""

    digest: Annotated[str, digits("a model", 1, 64)]
    """Beginning of its file's sha256, of one model alone."""


class Shadowing(OneSlot):
    """A model of the store by the beginning of its digest, to score beside the active one; "" for none."""

    digest: Annotated[str, digits("a model", 0, 64)] = ""
    events: bool = False
    """Publish what it says of each strip on `event/shadow/<slot>`."""


class WorstPairs(OneSlot):
    """How a slot's shadow compares, with so many of the strips that it sees most differently."""

    limit: Annotated[int, Field(ge=0, le=1000)] = 20


class Forgetting(OneSlot):
    """A model by the beginning of its digest; "" for the highest version instead."""

    digest: Annotated[str, digits("a model", 0, 64)] = ""


class OneCamera(Arguments):
    """A camera by its name."""

    camera: Name
    """Name of the camera."""


class CameraOrAll(Arguments):
    """A camera by its name; without one all of them."""

    camera: Name | None = None
    """Name of the camera; null: all of them."""


class NewThreshold(OneCamera):
    """A camera's threshold from now on, in the unit of the score; `clear` takes the one that was set back."""

    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A score at or above it is anomalous: 0 to 1, with `scoring.method: area` pixels above 0."""
    clear: bool = False
    """Take back what was set, instead of a value."""

    @model_validator(mode="after")
    def _either(self) -> NewThreshold:
        if (self.value is None) != self.clear:
            raise ValueError("give either a value, or clear: true")
        return self


def check(model: type[Checked], values: dict[str, Any]) -> Checked:
    """Check a command's arguments. Raises ValueError with a sentence that names everything that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(map(sentence, error.errors(include_url=False)))) from None


def sentence(error: Any) -> str:
    """Say what pydantic found."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    where = ".".join(str(step)[:_SHOWN] for step in error["loc"])
    said = "there is no such argument" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{where}: {said[:1].lower()}{said[1:]}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
