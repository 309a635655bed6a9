"""The shadows of all slots, and their loops."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent.shadow.journey import ShadowJourney

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.loops import Loops
    from agent.models.journey import ModelJourney
    from agent.models.store import Store
    from agent.shadow.brake import Brake
    from agent.strips.folder import CameraFolder
    from agent.supervision import WorkerHandle
    from agent.wire import Setup

POLL_SECONDS = 1.0


class Shadows:
    """One journey for each slot, whether it has a shadow or not."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        store: Store,
        models: Mapping[str, ModelJourney],
        folders: Mapping[str, CameraFolder],
        brake: Brake,
        *,
        start_worker: Callable[[Setup], WorkerHandle],
        publish: Callable[[str, bytes], None],
    ) -> None:
        """`models` are those of the slots: no shadow begins a strip while one is tried, or a worker is at a strip."""
        self._models = models
        self._brake = brake
        self.slots = {
            name: ShadowJourney(
                one, config, ledger, store, folders, brake,
                start_worker=start_worker, is_busy=self._is_busy, publish=publish,
            )
            for name, one in models.items()
        }  # fmt: skip

    def start(self, loops: Loops) -> None:
        """Start the loops, `shadow-<slot>`."""
        for name, shadow in self.slots.items():
            loops.start(f"shadow-{name}", partial(shadow.step, POLL_SECONDS), shadow.close)

    def ring(self) -> None:
        """Say that a result was committed."""
        for shadow in self.slots.values():
            shadow.bell.set()

    def take(self, config: Config) -> None:
        """Go by another configuration."""
        for shadow in self.slots.values():
            shadow.take(config)

    def alarms(self) -> list[str]:
        """Return the codes of what needs attention."""
        return [alarm for shadow in self.slots.values() for alarm in shadow.alarms()]

    def _is_busy(self) -> bool:
        trial = any(one.trial_goes_on for one in self._models.values())
        return trial or self._brake.is_on
