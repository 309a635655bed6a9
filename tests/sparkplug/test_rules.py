"""The rules that the tests hold against an edge node do find what breaks them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.helpers.sparkplug import broken_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.sparkplug import Heard
    from tests.sparkplug.conftest import Story


def first(heard: list[Heard], kind: str) -> int:
    """Return where the first message of a kind stands."""
    return next(number for number, h in enumerate(heard) if h.kind == kind)


def changed(heard: list[Heard], kind: str, change: Callable[[Heard], Heard]) -> list[Heard]:
    """Return all of it with the first message of a kind changed."""
    at = first(heard, kind)
    return [*heard[:at], change(heard[at]), *heard[at + 1 :]]


def without_type(h: Heard) -> Heard:
    """Take the datatypes away."""
    return replace(h, payload=replace(h.payload, metrics=tuple(replace(m, datatype=None) for m in h.payload.metrics)))


def with_other_bdseq(h: Heard) -> Heard:
    """Let a message name another connection."""
    metrics = (replace(m, value=99) if m.name == "bdSeq" else m for m in h.payload.metrics)
    return replace(h, payload=replace(h.payload, metrics=tuple(metrics)))


def without_score(h: Heard) -> Heard:
    """Leave a metric out of a birth."""
    metrics = tuple(m for m in h.payload.metrics if m.name != "Strip/Score")
    return replace(h, payload=replace(h.payload, metrics=metrics))


FAULTS: dict[str, tuple[str, Callable[[list[Heard]], list[Heard]]]] = {
    "a message is left out": (
        "tck-id-payloads-sequence-num-incrementing",
        lambda heard: [*heard[: first(heard, "DDATA")], *heard[first(heard, "DDATA") + 1 :]],
    ),
    "a death of another connection": (
        "tck-id-payloads-nbirth-bdseq-repeat",
        lambda heard: changed(heard, "NDEATH", with_other_bdseq),
    ),
    "data with QoS 1": ("tck-id-topics-ddata-mqtt", lambda heard: changed(heard, "DDATA", lambda h: replace(h, qos=1))),
    "a metric that the birth did not list": (
        "tck-id-operational-behavior-data-publish-nbirth",
        lambda heard: changed(heard, "DBIRTH", without_score),
    ),
    "data before the birth": (
        "tck-id-payloads-ddata-order",
        lambda heard: [heard[0], heard[first(heard, "DDATA")], *heard[1:]],
    ),
    "a birth without datatypes": (
        "tck-id-payloads-metric-datatype-req",
        lambda heard: changed(heard, "DBIRTH", without_type),
    ),
    "a retained birth": (
        "tck-id-topics-nbirth-mqtt",
        lambda heard: changed(heard, "NBIRTH", lambda h: replace(h, retain=True)),
    ),
    "a will with QoS 0": (
        "tck-id-topics-ndeath-mqtt",
        lambda heard: changed(heard, "NDEATH", lambda h: replace(h, qos=0)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_noticed(story: Story, fault: str) -> None:
    """A story without a fault breaks no rule; with one it breaks the one that is meant."""
    rule, spoil = FAULTS[fault]
    assert broken_rules(story.heard) == []
    assert any(broken.startswith(rule) for broken in broken_rules(spoil(story.heard)))
