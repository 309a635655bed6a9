"""Examining a box before trusting it: everything that can be seen without a running service; nothing is changed.

`examine.py` goes through it all: the box itself (`box.py`), what lies in the cameras' folders (`cameras.py`), what the
installed unit's walls forbid (`walls.py`), and the broker (`broker.py`).
"""

from agent.cli.doctor.examine import examine, load_as_the_service, problems_of
from agent.cli.doctor.finding import Finding

__all__ = ["Finding", "examine", "load_as_the_service", "problems_of"]
