"""The topics, all below the configuration's base topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STATE_AGENT = "state/agent"
STATE_HEALTH = "state/health"
ALARM_EVENT = "event/alarm"
COMMAND_EVENT = "event/command"
REVIEW_EVENT = "event/review"
ANSWERS = "rsp"


def strip_event_topic(camera: str) -> str:
    """Topic of a camera's results."""
    return f"event/strip/{camera}"


def replay_topic(camera: str) -> str:
    """Topic of a camera's results that somebody asked for again."""
    return f"replay/strip/{camera}"


def last_strip_topic(camera: str) -> str:
    """Topic of a camera's newest result, retained."""
    return f"state/last_strip/{camera}"


def model_event_topic(slot: str) -> str:
    """Topic of what happened to a slot's models."""
    return f"event/model/{slot}"


def model_state_topic(slot: str) -> str:
    """Topic of a slot's active model, retained."""
    return f"state/model/{slot}"


def shadow_state_topic(slot: str) -> str:
    """Topic of how a slot's shadow compares, retained while there is one."""
    return f"state/shadow/{slot}"


def shadow_event_topic(slot: str) -> str:
    """Topic of what a slot's shadow says of each strip, where that was asked for."""
    return f"event/shadow/{slot}"


def command_topic(name: str) -> str:
    """Topic on which a command is asked."""
    return f"cmd/{name}"


def answer_topic(name: str) -> str:
    """Topic of a command's answers that were not asked for elsewhere."""
    return f"{ANSWERS}/{name}"


def retained_topics(cameras: Iterable[str], slots: Iterable[str]) -> set[str]:
    """Return every topic with a retained message of an agent with these cameras and slots; shadows may add theirs."""
    return {STATE_AGENT, STATE_HEALTH, *map(last_strip_topic, cameras), *map(model_state_topic, slots)}
