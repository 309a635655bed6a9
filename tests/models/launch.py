"""Run strip-agent with shorter patience, and so that it can be killed between two given steps of a model's journey.

    python -m tests.models.launch SETTINGS.json run --config ...

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
    "before_copy": ("agent.models.intake", "copy_candidate", "before"),
    "during_copy": ("agent.models.inbox_folder", "_refuse_special", "after"),
    "half_of_it_copied": ("os", "fsync", "before"),
    "after_copy": ("agent.models.intake", "copy_candidate", "after"),
    "before_trial": ("agent.supervision.handle", "WorkerHandle.__init__", "before"),
    "trial_has_begun": ("agent.supervision.handle", "WorkerHandle.__init__", "after"),
    "trial_is_over": ("agent.models.journey", "check_trial", "before"),
    "before_accept": ("agent.models.slot_record", "SlotRecord.accept", "before"),
    "model_has_its_name": ("agent.models.store", "fsync_folder", "after"),
    "slot_file_is_saved": ("agent.models.store", "Store.accept", "after"),
    "activation_is_told": ("agent.models.slot_record", "tell", "after"),
    "before_offer": ("agent.supervision.slot", "Slot.offer", "before"),
    "after_offer": ("agent.supervision.slot", "Slot.offer", "after"),
    "after_swap": ("agent.models.keeper", "Keeper._note_who_scores", "after"),
    "before_refuse": ("agent.models.slot_record", "SlotRecord.refuse", "before"),
    "refusal_is_told": ("agent.models.slot_record", "tell", "after"),
    "after_refuse": ("agent.models.slot_record", "SlotRecord.refuse", "after"),
    "before_go_back": ("agent.models.slot_record", "SlotRecord.go_back", "before"),
    "went_back_untold": ("agent.models.slot_record", "tell", "before"),
    "after_go_back": ("agent.models.slot_record", "SlotRecord.go_back", "after"),
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
    from agent.cli.__main__ import main as cli_main  # noqa: PLC0415 - after everything is wrapped

    sys.argv[1:] = sys.argv[2:]
    cli_main()


if __name__ == "__main__":
    main()
