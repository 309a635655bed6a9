"""The topics, all below the configuration's base topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STATE_AGENT = "state/agent"
STATE_HEALTH = "state/health"


def strip_event_topic(camera: str) -> str:
    """Topic of a camera's results."""
    return f"event/strip/{camera}"


def last_strip_topic(camera: str) -> str:
    """Topic of a camera's newest result, retained."""
    return f"state/last_strip/{camera}"


def model_event_topic(slot: str) -> str:
    """Topic of what happened to a slot's models."""
    return f"event/model/{slot}"


def model_state_topic(slot: str) -> str:
    """Topic of a slot's active model, retained."""
    return f"state/model/{slot}"


def retained_topics(cameras: Iterable[str], slots: Iterable[str]) -> set[str]:
    """Return every topic with a retained message of an agent with these cameras and slots."""
    return {STATE_AGENT, STATE_HEALTH, *map(last_strip_topic, cameras), *map(model_state_topic, slots)}
