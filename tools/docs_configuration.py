"""docs/configuration.md out of the configuration's models: every key, what it takes, its default, what it means."""

from __future__ import annotations

import json
from typing import Any

from agent.config.difference import applied_by_reload
from agent.config.file import variable
from agent.config.words import Schema, allowed, keys_below, resolved

INTRODUCTION = f"""\
# Configuration

One YAML file, `/etc/strip-agent/agent.yaml` unless `--config` says otherwise. Start from
[`config/agent.yaml`](../config/agent.yaml), which shows every key with its default.

`strip-agent check-config` shows every problem at once, each with its line, and looks at the folders and files of the
machine as well. An unusable configuration ends the service with exit code 78, and systemd does not start it again.
What is only away or full for now does not: [folders](folders.md).

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

## Changing it while the service runs

`systemctl reload strip-agent` (or SIGHUP) has the service read the file again. Cameras come, change and go while the
others go on; the column *reload* says of each key whether it is applied so. All or nothing: where the file is no
good, or anything in it needs a restart, nothing is changed, and the answer, the journal and `strip-agent status` say
what is in the way. A model slot that no camera has used before, or that none uses any more, needs a restart too.

An edited file that nobody has reloaded is an alarm of low priority (`configuration_not_applied`), one that is no good
an alarm of medium priority (`configuration_invalid`): the service runs on, and would not start again. Files that the
configuration only names (password, certificates, keys) are read when they are needed, without a reload; variables of
the environment are those of the start.
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
    lines += ["| key | takes | default | reload | |", "|---|---|---|---|---|"]
    inner: list[str] = []
    for key, below in keys_below(schema).items():
        if keys_below(below):
            inner += _section(f"{name}.{key}", below)
        else:
            lines.append(_row((*name.split("."), key), below))
    return [*lines, "", *inner]


def _row(path: tuple[str, ...], schema: Schema) -> str:
    default = f"`{_yaml(schema['default'])}`" if "default" in schema else "must be given"
    meaning = str(schema["description"]).replace("\n", " ")
    reload = "applied" if applied_by_reload(path) else "restart"
    cells = (f"`{path[-1]}`", allowed(schema), default, reload, meaning)
    return "| " + " | ".join(text.replace("|", r"\|") for text in cells) + " |"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
