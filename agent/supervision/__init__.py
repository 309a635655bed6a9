"""The supervisor's side of worker processes.

- `handle.py`: one process, from its start to its end
- `stderr.py`: what it writes to standard error
- `slot.py`: the place of one active model, where workers are swapped
- `starter.py`: starts processes in the main thread
"""

from agent.supervision.handle import WorkerHandle, starved_seconds
from agent.supervision.slot import Slot
from agent.supervision.starter import Starter

__all__ = ["Slot", "Starter", "WorkerHandle", "starved_seconds"]
