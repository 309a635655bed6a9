"""Run strip-agent with shorter patience, and so that it can be killed between two given steps of a model's journey.

    python -m tests.model_journey.launch SETTINGS.json run --config ...

SETTINGS.json: `constants` (dotted name -> value) and `arm_file`, see tests/e2e/kill_at.py. The product knows nothing of
this.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from tests.e2e.kill_at import _wrap

POINTS = {
    "before_copy": ("agent.model_journey", "Inbox.copy", "before"),
    "during_copy": ("agent.inbox", "_refuse_special", "after"),
    "half_of_it_copied": ("os", "fsync", "before"),
    "after_copy": ("agent.model_journey", "Inbox.copy", "after"),
    "before_trial": ("agent.workers.handle", "WorkerHandle.__init__", "before"),
    "trial_has_begun": ("agent.workers.handle", "WorkerHandle.__init__", "after"),
    "trial_is_over": ("agent.model_journey", "check_facts", "before"),
    "before_accept": ("agent.models.memory", "Memory.accept", "before"),
    "model_has_its_name": ("agent.store", "fsync_folder", "after"),
    "slot_file_is_saved": ("agent.store", "Store.accept", "after"),
    "activation_is_told": ("agent.models.memory", "Memory._tell", "after"),
    "before_offer": ("agent.workers.slot", "Slot.offer", "before"),
    "after_offer": ("agent.workers.slot", "Slot.offer", "after"),
    "after_swap": ("agent.models.keeper", "Keeper._note_who_scores", "after"),
    "before_refuse": ("agent.models.memory", "Memory.refuse", "before"),
    "refusal_is_told": ("agent.models.memory", "Memory._tell", "after"),
    "after_refuse": ("agent.models.memory", "Memory.refuse", "after"),
    "before_go_back": ("agent.models.memory", "Memory.go_back", "before"),
    "went_back_untold": ("agent.models.memory", "Memory._tell_return", "before"),
    "after_go_back": ("agent.models.memory", "Memory.go_back", "after"),
}
"""Where the supervisor can be killed: module, function, before or after it."""


def main() -> None:
    """Change the constants, wrap the points, be the supervisor."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    for dotted, value in settings["constants"].items():
        module, _, name = dotted.rpartition(".")
        owner = importlib.import_module(module)
        assert hasattr(owner, name)
        setattr(owner, name, value)
    for point, (module, function, when) in POINTS.items():
        _wrap(Path(settings["arm_file"]), point, module, function, when)
    from agent.cli import main as cli_main  # noqa: PLC0415 - after everything is wrapped

    sys.argv[1:] = sys.argv[2:]
    cli_main()


if __name__ == "__main__":
    main()
