"""docs/commands.md and the schemas of the commands out of the table of commands and their arguments."""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from typing import Any, get_args

from agent import messages
from agent.control import commands, desk, over_mqtt
from agent.ledger.purge import COMMANDS_KEPT
from agent.messages import CommandName, Fault

NAMES: tuple[str, ...] = get_args(CommandName)

COMMAND_LINE = {
    "status": "`status`",
    "audit": "`audit`",
    "models_list": "`models list`",
    "rescan": "`rescan [CAMERA]`",
    "retry": "`strips retry ID...`",
    "resend": "`resend FROM TO`",
    "set_threshold": "`threshold CAMERA VALUE`, `threshold CAMERA clear`",
    "activate": "`models activate DIGEST`",
    "rollback": "`models rollback`",
    "pause": "`pause CAMERA`",
    "resume": "`resume CAMERA`",
}

MINUTES = f"{desk.REMEMBERED_SECONDS / 60:.0f}"
RESULT_KIB, REQUEST_KIB = commands.RESULT_BYTES >> 10, over_mqtt.LARGEST_BYTES >> 10

INTRODUCTION = f"""\
# Commands

What a SCADA system may have the agent do over MQTT is also on the command line; one handler carries out both. Over MQTT
nothing may be given until `mqtt.commands` lists it, and nothing is subscribed for what is not listed:

```yaml
mqtt:
  commands: [status, resend, pause, resume]
```

The agent has no passwords for commands: **the broker decides who may publish on `{{base}}/cmd/#`**. Give each command's
topic only to who needs it ([an access list](messages.md#what-the-broker-must-allow)), and use TLS.
`strip-agent check-config` warns where commands are listed and anybody on the way to the broker could give them.

## Asking, and the answer

Publish a [`command/1`](messages.md#command1) on `{{base}}/cmd/<name>`, QoS 1, not retained: `schema`, `id`, `by`, and
the command's arguments beside them.

```
mosquitto_rr -V mqttv5 -q 1 -t strip-agent/insp1/cmd/pause -e strip-agent/insp1/rsp/desk7 \\
  -m '{{"schema":"command/1","id":"desk7-0001","by":"desk7","camera":"top"}}'
```

The answer is a [`command-result/1`](messages.md#command-result1), QoS 1, not retained. Over MQTT 5 it goes to the
request's response topic with its correlation data, if that topic lies below `{{base}}/rsp/`; everything else is
answered on `{{base}}/rsp/<name>`, over 3.1.1 always. Tell answers apart by `id`. `result` is JSON in text, at most
{RESULT_KIB} KiB; of longer lists only the beginning, with `"cut": true` (the command line shows all of it).

- **Nothing is done twice.** What was asked with the same `id` by the same `by` in the last {MINUTES} minutes is
  answered again, the same bytes, and not done again. So ask again with the same `id` when no answer comes. The same
  `id` with another command or other arguments is refused (`id_used`). For commands that change something this holds
  over restarts and kills, because the ledger has them before they are done; what a kill interrupted is answered
  `interrupted`. Answers of commands that only read are remembered in memory, the last {desk.READS_REMEMBERED} of them;
  after that they are read again.
- **Nothing waits for long.** Commands are carried out one at a time, the different ones in turn, and at most
  {desk.QUEUE} of each wait. What is sent while the agent is not connected never reaches it: it asks the broker for no
  session.
- **Ignored and counted** (`commands_ignored` in `state/health`; `strip-agent status` says why), without an answer:
  retained messages (`retained`), what is larger than {REQUEST_KIB} KiB with its response topic and correlation data
  (`too_large`), what is older than {desk.EXPIRED_MS // 1000} s by its `ts_ms` (`expired`: both clocks must be right),
  and what comes while too much waits (`queue_full`, `flood`). Over MQTT 5 a message counts as retained whenever it was
  sent so. Over 3.1.1 a broker does not tell that of what it passes on at once: such a command is carried out, once, and
  ignored on every later connection.
- Of each command that changes something at most {desk.CHANGES_REMEMBERED} are carried out in {MINUTES} minutes
  (`too_many`): name several strips in one `retry`, and ranges in `resend`.
- A message that cannot even be read ends the connection: over 3.1.1, where a broker cannot be told a limit, one above
  64 KiB. Were it retained on a command's topic, it would end every connection; so after that the agent subscribes to
  no commands for a minute, longer each time, and raises `commands_suspended`. Results go on. After three connections
  that ended early, commands are subscribed once a connection has lasted for half a minute.
- Answers wait for the broker, in memory and for at most ten minutes. `answers_lost` counts those that could not be
  given.

**Who did what** is in the ledger and on `{{base}}/event/command` ([`command-event/1`](messages.md#command-event1)),
through the outbox: one event for each command that changes something, whatever became of it and whichever way it came.
From the command line `by` is the system's user, as the system knows it. What is refused before it is a command
(`malformed`, `not_allowed`, `bad_arguments`, `id_used`, `too_many`) leaves none. Commands are forgotten with other old
rows (`ledger.keep_days`), and beyond the newest {COMMANDS_KEPT:,}.

**Pausing a camera** lasts over restarts. Its strips are still seen, counted and pending, and nothing is lost; what a
worker holds already (at most two strips) is finished. `camera_paused` is an alarm, `cameras_paused` in `state/health`
counts.

**An operator's threshold** decides before that of the camera, the configuration and the model, over restarts and new
models, until `clear`. Every result says whose threshold it was (`threshold_source`). It is kept for the unit of the
score: after a change of `scoring.method` to or from `area` it is not used, and `strip-agent threshold CAMERA` says so.
Strips that a worker holds already are judged by the one before.

"""


def command_pages() -> dict[str, str]:
    """Return the text of every page, by its path below docs/."""
    pages = {"commands.md": _markdown()}
    for name in NAMES:
        pages[f"schemas/{schema_file(name)}"] = json.dumps(request_schema(name), indent=2, ensure_ascii=False) + "\n"
    return pages


def schema_file(name: str) -> str:
    """Name the file of a command's schema."""
    return f"command-1-{name.replace('_', '-')}.json"


def request_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a command's request: what all have, and its arguments."""
    base = messages.schemas()["command/1"]
    arguments = _arguments(name)
    return {
        **base,
        "$id": f"urn:strip-agent:command/1:{name}",
        "title": f"command/1 on cmd/{name}",
        "description": _says(name),
        "properties": {**base["properties"], **arguments.get("properties", {})},
        "required": [*base["required"], *arguments.get("required", [])],
        "additionalProperties": False,
    }


def _arguments(name: str) -> dict[str, Any]:
    schema = commands.COMMANDS[name].arguments.model_json_schema()
    for described in schema.get("properties", {}).values():
        described.pop("title", None)
    return schema


def _says(name: str) -> str:
    return inspect.getdoc(commands.COMMANDS[name].run) or ""


def _markdown() -> str:
    parts = [INTRODUCTION, "## The commands\n\n"]
    parts.append("| over MQTT | on the command line (`strip-agent ...`) | changes something | |\n|---|---|---|---|\n")
    for name in NAMES:
        changes = "yes" if commands.COMMANDS[name].changes else "no"
        parts.append(f"| [`{name}`](#{name}) | {COMMAND_LINE[name]} | {changes} | {_says(name)} |\n")
    for name in NAMES:
        parts += _about(name)
    parts.append("\n## Errors\n\n| `error` | |\n|---|---|\n")
    parts += [f"| `{fault}` | {said} |\n" for fault, said in _faults().items()]
    parts.append(
        "\nAfter an error that has an event, ask again with a new `id`: with the old one it is only answered again.\n"
    )
    return "".join(parts)


def _about(name: str) -> list[str]:
    schema = _arguments(name)
    parts = [f"\n### {name}\n\n{_says(name)} Schema: [`{schema_file(name)}`](schemas/{schema_file(name)}).\n"]
    properties = schema.get("properties", {})
    if not properties:
        return [*parts, "No arguments.\n"]
    needed = schema.get("required", [])
    parts.append("\n| argument | type | | |\n|---|---|---|---|\n")
    for key, described in properties.items():
        default = "must be given" if key in needed else f"`{json.dumps(described.get('default'))}` when left out"
        parts.append(f"| `{key}` | {_type(described)} | {default} | {described.get('description', '')} |\n")
    return parts


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}, at most {schema['maxItems']}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return words.get(schema["type"], "null")


def _faults() -> dict[str, str]:
    """Return what is written below each member of `Fault`."""
    members = [
        node for node in ast.walk(ast.parse(inspect.getsource(Fault))) if isinstance(node, ast.Assign | ast.Expr)
    ]
    told: dict[str, str] = {}
    for member, words in pairwise(members):
        match member, words:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(said))):
                told[Fault[name].value] = " ".join(said.split())
    return {str(fault): told[fault] for fault in Fault}
