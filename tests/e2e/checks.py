"""What must hold for a box whatever has happened to it."""

from __future__ import annotations

import functools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it brings no types

from agent import messages
from tests.helpers.box import Box, results, unique_results
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.helpers.broker import Subscriber


def check_messages(subscriber: Subscriber) -> None:
    """Every message keeps its schema, and its topic is one of those that are documented."""
    for message in subscriber.messages("strip-agent/"):
        if message.payload:
            values = json.loads(message.payload)
            errors = [error.message for error in validators()[values["schema"]].iter_errors(values)]
            assert not errors, (message.topic, errors)


@functools.cache
def validators() -> dict[str, Draft202012Validator]:
    """Give a validator for each published schema."""
    return {name: Draft202012Validator(schema) for name, schema in messages.schemas().items()}


def check_every_strip_once(box: Box, subscriber: Subscriber, files: Collection[str]) -> list[dict[str, Any]]:
    """Each file has exactly one result, which arrived; return them by `seq`.

    Nothing waits, the audit balances, `seq` has no gap, repeats are the same bytes, nothing half done lies about.
    """
    box.wait_until_published(len(files))
    wait_for(lambda: len(unique_results(subscriber)) >= len(files), "every result reaches the subscriber")
    found = sorted(unique_results(subscriber).values(), key=lambda result: int(result["seq"]))
    assert Counter(result["file"] for result in found) == Counter(files)
    assert {result["revision"] for result in found} == {1}
    assert [result["seq"] for result in found] == list(range(1, len(files) + 1))
    assert len({result["stream"] for result in found}) == 1
    check_audit(box, len(files))
    check_messages(subscriber)
    check_nothing_half_done(box)
    return found


def check_audit(box: Box, seen: int) -> None:
    """See that the running service's books balance and hold this number of strips."""
    audit = box.ask("audit")
    assert audit["balanced"], audit["problems"]
    assert audit["strips"]["seen"] == seen
    assert audit["last_seq"] == len(box.ask("strips_list", limit=100_000)["strips"])


def check_nothing_half_done(box: Box) -> None:
    """No temporary file is left, and whatever a message names is there."""
    wait_for(lambda: not list(box.heatmaps.rglob(".*")), f"no temporary file is left in {box.heatmaps}")
    assert not list(box.camera().rglob(".strip-agent-*"))


def check_named_files(box: Box, found: list[dict[str, Any]]) -> None:
    """Every heatmap and preview that a message names is on the disk."""
    for result in found:
        for key in ("heatmap_path", "preview_path"):
            assert not result[key] or (box.heatmaps / result[key]).is_file(), result


def check_processes(box: Box) -> None:
    """See that the service has one worker, and that nobody else works for this box."""
    assert box.process is not None
    supervisor = psutil.Process(box.process.pid)

    def only_ours() -> bool:
        return [worker.pid for worker in box.workers()] == [child.pid for child in supervisor.children(recursive=True)]

    wait_for(only_ours, "no process is left over")


def in_first_seen_order(subscriber: Subscriber) -> list[int]:
    """Give the `seq` of each result in the order in which it first arrived."""
    return list(dict.fromkeys(int(result["seq"]) for result in results(subscriber)))
