"""Figures for Prometheus: what is told (exposition.py) and the HTTP end that tells it (endpoint.py)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.health import Parts
    from agent.messages import Health
    from agent.metrics.endpoint import MetricsServer


def make_server(listen: str | None, take: Callable[[], tuple[Parts, Health]]) -> MetricsServer | None:
    """Make the HTTP end where the configuration wants one; without it the library is never loaded."""
    if listen is None:
        return None
    from agent.metrics.endpoint import MetricsServer  # noqa: PLC0415
    from agent.metrics.exposition import expose  # noqa: PLC0415

    return MetricsServer(listen, partial(expose, take))
