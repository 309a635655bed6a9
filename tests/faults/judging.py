"""The two judges of every fault: a subscriber that kept every message, and the audit. Both against what was written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.helpers.box import unique_results
from tests.helpers.broker import wait_for

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.helpers.box import Box
    from tests.helpers.broker import Subscriber

Written = set[tuple[str, str]]
"""What a test has put into the cameras' folders: (camera, path relative to its folder)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What both judges agree on; numbers of strips, and of messages that came more than once."""

    strips: int
    ok: int
    anomalous: int
    invalid: int
    skipped: int
    repeated: int
    results: list[dict[str, Any]]

    def __str__(self) -> str:
        """Say it in the words of the table."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return (
            f"{self.strips} strips: {self.ok} ok, {self.anomalous} anomalous, {self.invalid} invalid{skipped}; "
            f"0 lost, {self.repeated} repeated with the same id and bytes"
        )


def judge(
    box: Box,
    subscriber: Subscriber,
    written: Written,
    *,
    skipped: Collection[tuple[str, str]] = (),
    seconds: float = 180,
    messages_arrived: bool = True,
) -> Verdict:
    """Wait until everything that was written is published or skipped, then let both judges speak.

    Every strip has exactly one message for each of its revisions, repeats are the same bytes, the sequence numbers of
    a stream have no gap, and the audit counts the same by verdict and camera, with nothing pending or dropped.
    `messages_arrived=False` where the subscriber itself was cut off: then only what it got is compared.
    """

    def all_seen() -> bool:
        strips = box.ask("status")["strips"]
        return bool(strips["seen"] >= len(written) and strips["pending"] == 0)

    wait_for(all_seen, f"{len(written)} strips are published (see {box.log_file})", seconds)
    facts = box.audit()
    assert facts["balanced"], facts["problems"]
    sums = facts["strips"]
    assert (sums["seen"], sums["pending"], sums["dropped"]) == (len(written), 0, 0), (len(written), sums)
    assert sums["skipped"] == len(skipped), sums
    for camera, balance in facts["cameras"].items():
        assert balance["seen"] == sum(name == camera for name, _ in written), (camera, balance)

    expected = len(written) - len(skipped)
    if messages_arrived:
        wait_for(
            lambda: len({strip_of(result) for result in unique_results(subscriber).values()}) >= expected,
            f"messages of {expected} strips arrive",
        )
    found = list(unique_results(subscriber).values())
    results = [result for result in found if result["stream"] == facts["stream"]]
    strips = [strip_of(result) for result in results if result["revision"] == 1]
    assert len(strips) == len(set(strips)), "two messages with different ids for one strip"
    assert set(strips) <= written - set(skipped), set(strips) - written
    if messages_arrived:
        assert set(strips) == written - set(skipped), written - set(skipped) - set(strips)
        numbers = sorted(result["seq"] for result in results)
        assert numbers == list(range(1, facts["last_seq"] + 1)), "the sequence numbers have a gap"
        newest = {strip_of(result): result for result in sorted(results, key=lambda result: int(result["revision"]))}
        for verdict in ("ok", "anomalous", "invalid"):
            assert sums[verdict] == sum(result["verdict"] == verdict for result in newest.values()), (verdict, sums)
    repeated = len(subscriber.payloads("/event/strip/")) - len(found)
    return Verdict(len(written), sums["ok"], sums["anomalous"], sums["invalid"], len(skipped), repeated, results)


def strip_of(result: dict[str, Any]) -> tuple[str, str]:
    """Return whose result it is: (camera, path)."""
    return result["camera"], result["file"]


def health(subscriber: Subscriber) -> dict[str, Any]:
    """Return the newest `state/health`."""
    payloads = subscriber.payloads("/state/health")
    facts: dict[str, Any] = json.loads(payloads[-1]) if payloads else {}
    return facts
