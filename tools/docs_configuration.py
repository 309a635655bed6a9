"""docs/configuration.md out of the configuration's models: every key, what it takes, its default, what it means."""

from __future__ import annotations

import json
from typing import Any

from agent.config.file import variable
from agent.config.words import Schema, allowed, keys_below, resolved

INTRODUCTION = f"""\
# Configuration

One YAML file, `/etc/strip-agent/agent.yaml` unless `--config` says otherwise. Start from
[`config/agent.yaml`](../config/agent.yaml), which shows every key with its default.

`strip-agent check-config` shows every problem at once, each with its line, and looks at the folders and files of the
machine as well. An unusable configuration ends the service with exit code 78, and systemd does not start it again.

- Unknown keys are errors, and so are keys of features that this version does not have. Nothing is ignored.
- Words are what they look like: `on`, `no` and `0123` are text, only `true` and `false` are not. A key that occurs
  twice, tags (`!!`) and `<<` are refused; anchors and aliases work.
- A section without keys below it has its defaults.
- Paths are absolute. The folders of cameras, done files, heatmaps, state and models must not overlap; only the
  heatmaps may be inside the state folder, in `heatmaps`.
- Passwords are never in the file or the environment. `mqtt.password_file` names a file, or a systemd credential by its
  bare name (`LoadCredential=` in the unit).
- Every key can be set by environment: `mqtt.tls.enabled` is `{variable(("mqtt", "tls", "enabled"))}`. The value is
  YAML; lists are replaced whole, so all cameras are one list in `{variable(("cameras",))}`. The environment wins over
  the file, and an unknown variable that begins with `STRIP_AGENT__` is an error.
"""


def configuration_markdown() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for name, schema in keys_below({}).items():
        parts += _section(name, schema.get("items", schema))
    return "\n".join(parts)


def _section(name: str, schema: Schema) -> list[str]:
    """Return a section's heading and table, then those of the sections inside it."""
    heading = f"## {name}" if "." not in name else f"### {name}"
    lines = [heading, "", str(resolved(schema)["description"]), ""]
    lines += ["| key | takes | default | |", "|---|---|---|---|"]
    inner: list[str] = []
    for key, below in keys_below(schema).items():
        if keys_below(below):
            inner += _section(f"{name}.{key}", below)
        else:
            lines.append(_row(key, below))
    return [*lines, "", *inner]


def _row(key: str, schema: Schema) -> str:
    default = f"`{_yaml(schema['default'])}`" if "default" in schema else "must be given"
    meaning = str(schema["description"]).replace("\n", " ")
    return (
        "| " + " | ".join(text.replace("|", r"\|") for text in (f"`{key}`", allowed(schema), default, meaning)) + " |"
    )


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
