"""Figures for Prometheus: what is told (exposition.py) and the HTTP end that tells it (endpoint.py)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from agent.health import Parts
    from agent.messages import Health
    from agent.metrics.endpoint import MetricsServer
    from agent.models.journey import ModelJourney


def make_server(
    listen: str | None,
    take: Callable[[], tuple[Parts, Health]],
    drift: Callable[[], dict[str, Any]],
    models: Mapping[str, ModelJourney],
) -> MetricsServer | None:
    """Make the HTTP end where the configuration wants one; without it the library is never loaded.

    `drift` gives what `DriftWatch.facts` does, `models` are those of the slots.
    """
    if listen is None:
        return None
    from agent.metrics.endpoint import MetricsServer  # noqa: PLC0415
    from agent.metrics.exposition import Told, expose  # noqa: PLC0415

    def told() -> Told:
        parts, health = take()
        states = {slot: journey.state for slot, journey in models.items()}
        return Told(parts, health, drift(), states)

    return MetricsServer(listen, partial(expose, told))
