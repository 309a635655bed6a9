"""docs/sparkplug.md: what is written by hand, and the tables of metrics out of the code that sends them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent import messages
from agent.sparkplug import metrics
from tools.sparkplug_text import ABOVE, BELOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OWN = {
    "status_code": "`Health/Status` as a number: 0 ok, 1 degraded, 2 failing.",
    "state": "How the folder is watched, or why not: `events`, `polling`, `missing`, `unreadable`, `unreachable`.",
    "reachable": "The folder can be read.",
    "ok": "Strips of this camera whose result is `ok` and acknowledged.",
    "anomalous": "The same for `anomalous`.",
    "invalid": "The same for `invalid`.",
    "operators_threshold": "What an operator has set over the configuration; null: nothing.",
    "paused": "Strips of this camera are not judged for now; they wait.",
    "active_since": "Since when it scores; null when there is none.",
    "last_refused_reason": 'Why the model was refused that was refused last, a code of docs/reasons.md; else "".',
    "last_refused_ts": "When that was; null when none was.",
    "version": "Version of the agent.",
    "started_ts": "When the agent was started.",
}


def sparkplug_page() -> str:
    """Make the page."""
    health, model, strip = messages.Health, messages.ModelState, messages.StripResult
    node = [
        ("`bdSeq`", "Int64", "Which connection this is; the death that ends it has the same."),
        ("`Node Control/Rebirth`", "Boolean", "Write true to have all births sent again."),
        *_rows(metrics.AGENT, {}),
        *_rows(metrics.HEALTH, _texts(health)),
        *_rows(metrics.MODEL, _texts(model), "Model/<slot>/"),
        (f"`{metrics.LAST_EVENT}`", "String", "The JSON of an `event/model`, `event/alarm`, ... as it happens."),
        (f"`{metrics.REQUEST}`", "String", "Write the JSON of `command/1`; there where any command is allowed."),
        (f"`{metrics.RESPONSE}`", "String", "The JSON of `command-result/1` to what was written last."),
    ]
    rescan = (f"`{metrics.RESCAN}`", "Boolean", "Write true to have the folder read; there where `rescan` is allowed.")
    device = [*_rows(metrics.STRIP, _texts(strip)), *_rows(metrics.CAMERA, {}), rescan]
    return f"{ABOVE}\n### The node\n\n{_table(node)}\n### A device\n\n{_table(device)}\n{BELOW}"


def _texts(message: type[messages.Message]) -> dict[str, str]:
    return {name: field.description or "" for name, field in message.model_fields.items()}


def _rows(
    definitions: Iterable[metrics.Definition], texts: Mapping[str, str], prefix: str = ""
) -> list[tuple[str, str, str]]:
    rows = []
    for definition in definitions:
        text = " ".join((_OWN.get(definition.key) or texts[definition.key]).split())
        text = re.sub(r"; (-1|\"\"|0) when it was not judged|; -1\.0 when it was not judged", "", text)
        unit = f" in {definition.unit}" if definition.unit else ""
        kind = {"Datetime": "DateTime"}.get(definition.datatype.name.title(), definition.datatype.name.title())
        rows.append(
            (
                f"`{prefix}{definition.name}`",
                kind + unit,
                text + (" Null for an invalid strip." if definition.judged else ""),
            )
        )
    return rows


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = "".join(f"| {name} | {kind} | {text.replace('|', '&#124;')} |\n" for name, kind, text in rows)
    return f"| metric | type | meaning |\n|---|---|---|\n{lines}"
