"""Which strips to look back at: asked of whoever holds the ledger, page by page, the newest first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.contract.threshold import operators_threshold
from agent.ledger import Choice, Said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agent.config import Config

    Ask = Callable[[dict[str, Any]], dict[str, Any]]
    """Carries out a request of the control socket and returns its answer: the service's, or the ledger's."""

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which strips of which cameras, seen since (Unix milliseconds), and how many at most."""

    cameras: Sequence[str]
    since_ms: int = 0
    most: int = PAGE
    choice: Choice = field(default_factory=Choice)


def look_back(ask: Ask, wanted: Wanted) -> Iterator[Said]:
    """Give what was said of the strips, up to `wanted.most`, each by its newest result."""
    choice = wanted.choice
    request = {
        "command": "looking_back", "cameras": [*wanted.cameras], "since_ms": wanted.since_ms, "near": choice.near,
        "verdicts": [*choice.verdicts], "reviewed": choice.reviewed, "disagreeing": choice.disagreeing,
    }  # fmt: skip
    left, before = wanted.most, None
    while left > 0:
        answer = ask(request | {"before_row": before, "limit": min(left, PAGE)})
        for fields in answer["strips"]:
            yield Said(**fields)
        left -= len(answer["strips"])
        before = answer["before_row"]
        if before is None:
            return


def thresholds_of_operators(ask: Ask, config: Config) -> Mapping[str, float | None]:
    """Return those that operators have set, by camera, where they are of this method of scoring."""
    told = ask({"command": "looking_back", "cameras": [], "limit": 1})["thresholds"]
    method = config.scoring.method
    return {camera: operators_threshold(one["value"], one["method"], method) for camera, one in told.items()}
