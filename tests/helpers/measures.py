"""How a strip of tests looks."""

from __future__ import annotations

from agent.contract.measures import NAMES, Measures, kind_of

_USUAL = {"level": 200.0, "contrast": 50.0, "noise": 2.0, "sharpness": 0.3, "shift": 0.0, "unlike": 0.0, "score": 0.2}


def make_measures(**changes: float | None) -> Measures:
    """Give the measures of a strip as any other, but for `changes`."""
    usual = {name: _USUAL[kind_of(name)] for name in NAMES}
    return Measures(**usual | changes)  # type: ignore[arg-type] # tests know which may be None
