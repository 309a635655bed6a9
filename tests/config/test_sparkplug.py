"""What Sparkplug needs of the configuration, and which names the box has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.sparkplug.topics import Topics, client_id_of, topics_of
from tests.config.reading import CAMERA, load, the_problem_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mqtt: {payload: sparkplug}", "mqtt.sparkplug.group"),
        ("mqtt: {payload: both, sparkplug: {group: STATE}}", "mqtt.sparkplug.group"),
        ("mqtt: {payload: both, sparkplug: {group: a/b}}", "mqtt.sparkplug.group"),
        ("mqtt: {payload: both, sparkplug: {group: g, node: a+b}}", "mqtt.sparkplug.node"),
        ("mqtt: {sparkplug: {group: g}}", "mqtt.sparkplug"),
        ("mqtt: {payload: sparkplug, sparkplug: {group: g}}\noutbox: {hold_until_subscribed: true}",
         "outbox.hold_until_subscribed"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, where: str) -> None:
    """No group, one that is a topic of hosts, names that are topic filters, keys that would do nothing."""
    assert the_problem_of(tmp_path, CAMERA + text).where == where


def test_names_come_from_the_box_where_they_are_not_given(tmp_path: Path) -> None:
    """Group and node have defaults; with both ways the second connection has a client id of its own."""
    config = load(tmp_path, CAMERA + "agent: {name: box7, site: plant1}\nmqtt: {payload: sparkplug}")
    assert (topics_of(config), client_id_of(config)) == (Topics("plant1", "box7"), "box7")
    text = "mqtt: {payload: both, client_id: c, sparkplug: {group: g, node: n}}"
    config = load(tmp_path, CAMERA + text)
    assert (topics_of(config), client_id_of(config)) == (Topics("g", "n"), "c-sparkplug")
