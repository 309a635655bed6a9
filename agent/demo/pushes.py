"""The models that the demo pushes while strips go on: a newer one that is taken, and a damaged one that is not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = Path(__file__).with_name("model.onnx")
LAYER = slice(1_380_778, 1_384_306)  # bytes of the bundled model: the weights of one of its last layers
RESULTS_BEFORE = 3  # between what became of one push and the next one
ANSWER_SECONDS = 60.0  # a push that has no answer after so long gets none


@dataclass(frozen=True, slots=True)
class Plan:
    """A push, what is special about it, and how it has to end."""

    version: int
    about: str
    make: Callable[[bytes], bytes]
    ends: str  # `event` of `model-event/1`


def set_version(model: bytes, version: int) -> bytes:
    """Return the same ONNX model with another version: its digest changes, what it computes does not."""
    return set_metadata(model, "version", str(version))


def set_metadata(model: bytes, key: str, value: str) -> bytes:
    """Return the same ONNX model with another value in its metadata, `key` without the prefix.

    Two protobuf messages one after the other are the first with the fields of the second added, and of two metadata
    properties with one key the later one counts, so that no ONNX library is needed here. Field numbers: `onnx.proto`,
    ModelProto.metadata_props is 14, StringStringEntryProto.key and value are 1 and 2.
    """
    return model + _field(14, _field(1, f"strip_agent.{key}".encode()) + _field(2, value.encode()))


def zero_weights(model: bytes) -> bytes:
    """Return the bundled model with one layer zeroed: it loads, it runs, and finds no defect any more."""
    size = LAYER.stop - LAYER.start
    return model[: LAYER.start] + bytes(size) + model[LAYER.stop :]


def _field(number: int, content: bytes) -> bytes:
    head, size = bytes([number << 3 | 2]), len(content)
    while size > 0x7F:  # noqa: PLR2004 - seven bits a byte, the eighth says that more follow
        head, size = head + bytes([size & 0x7F | 0x80]), size >> 7
    return head + bytes([size]) + content


PLANS = (
    Plan(2, "a newer version", lambda model: set_version(model, 2), "activated"),
    Plan(
        3,
        "a layer of it zeroed, so that it would find nothing",
        lambda model: zero_weights(set_version(model, 3)),
        "rejected",
    ),
)


def put_model(inbox: Path, version: int, model: bytes) -> None:
    """Push as the exporter does: a temporary name, then the final one."""
    temporary = inbox / f".{file_name(version)}.part"
    temporary.write_bytes(model)
    temporary.rename(inbox / file_name(version))


def file_name(version: int) -> str:
    """Return the name in the inbox of a version of the demo's model."""
    return f"flex-demo-{version}.onnx"


class Pushes:
    """Pushes the planned models one after the other; `said` is what became of them, line by line."""

    def __init__(self, inbox: Path) -> None:
        self.said: list[str] = []
        self.wrong = False
        self._inbox = inbox
        self._plans = list(PLANS)
        self._pushed: tuple[float, int] | None = None  # when, monotonic seconds, and after how many results
        self._next_at = RESULTS_BEFORE

    def still_waits(self) -> bool:
        """Say whether an answer is still waited for; after a while it is given up."""
        if self._pushed is not None and time.monotonic() - self._pushed[0] > ANSWER_SECONDS:
            self._end(f"no answer in {ANSWER_SECONDS:g} s", as_planned=False)
        return self._pushed is not None

    def push_next(self, results: int) -> str:
        """Push the next model when so many results are enough; say so, or return an empty string."""
        if not self._plans or self.still_waits() or results < self._next_at:
            return ""
        plan = self._plans[0]
        put_model(self._inbox, plan.version, plan.make(MODEL.read_bytes()))
        self._pushed = time.monotonic(), results
        return f"pushed v{plan.version} into the inbox: {plan.about}; strips go on"

    def take(self, event: dict[str, Any], results: int) -> str:
        """Take an event about a model; say what it means for the push that waits for one."""
        if self._pushed is None or event["file"] != file_name(self._plans[0].version):
            return ""
        plan, (pushed, results_then) = self._plans[0], self._pushed
        what = event["event"]
        why = f", {event['reason']}: {event['detail']}" if event["reason"] else ", golden strip reproduced"
        meanwhile = f"{time.monotonic() - pushed:.1f} s after the push, {results - results_then} strips meanwhile"
        self._next_at = results + RESULTS_BEFORE
        return self._end(f"{what}{why} ({meanwhile})", as_planned=what == plan.ends)

    def _end(self, said: str, *, as_planned: bool) -> str:
        plan = self._plans.pop(0)
        self._pushed = None
        self.wrong |= not as_planned
        self.said.append(f"v{plan.version} ({plan.about}): {said}" + ("" if as_planned else "  NOT AS IT SHOULD BE"))
        return self.said[-1]
