"""Write a model file anew with another threshold; nothing else of it changes but its version and its time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from agent.contract.model import PREFIX, format_metadata
from tools.exporter.errors import ExportError
from tools.exporter.keys import read_facts, read_model
from tools.exporter.versions import next_version, utc

if TYPE_CHECKING:
    from pathlib import Path


def with_threshold(path: Path, threshold: float, version: int | None) -> bytes:
    """Return the model at `path` with that threshold, 0..1; ExportError where it has no metadata to change."""
    content = read_model(path)
    facts = read_facts(content)
    if not facts.labelled:
        raise ExportError(f"{path.name} has no metadata to write a threshold into: `tools/export.py adopt` adds them.")
    if version is not None and version <= facts.version:
        raise ExportError(
            f"Version {version} is not above {facts.version} of {path.name}: boxes take higher ones only."
        )
    chosen = version or max(next_version(), facts.version + 1)
    changed = replace(facts, threshold=threshold, version=chosen, created=utc(time.time()))
    model = onnx.load_from_string(content)
    more = {prop.key.removeprefix(PREFIX): prop.value for prop in model.metadata_props if prop.key.startswith(PREFIX)}
    about = format_metadata(changed)
    kept = {PREFIX + key: value for key, value in more.items() if PREFIX + key not in about}
    others = {prop.key: prop.value for prop in model.metadata_props if not prop.key.startswith(PREFIX)}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, others | kept | about)
    written: bytes = model.SerializeToString(deterministic=True)
    read_facts(written)  # what no box would take is not written
    return written
