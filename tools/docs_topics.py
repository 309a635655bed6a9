"""Which topics there are: for the pages about messages."""

from __future__ import annotations

BASE = "strip-agent/{agent}"

# Topic below the base topic, schema, retained, when. `{camera}` and `{slot}` stand for any of them.
TOPICS = (
    ("event/strip/{camera}", "strip-result/1", False, "One for each result; through the outbox."),
    ("event/model/{slot}", "model-event/1", False, "What happened to a slot's models; through the outbox."),
    ("event/alarm", "alarm-event/1", False, "An alarm was raised or cleared; through the outbox."),
    ("event/command", "command-event/1", False, "Somebody had something changed; through the outbox."),
    ("event/review", "review-event/1", False, "A person has said something about a strip; through the outbox."),
    ("event/shadow/{slot}", "shadow-event/1", False, "What a shadow says of a strip (`models shadow --events`)."),
    ("replay/strip/{camera}", "strip-result/1", False, "A stored result again, because somebody asked (`resend`)."),
    ("state/last_strip/{camera}", "strip-result/1", True, "The strip of a camera that was judged last, for HMIs."),
    ("state/model/{slot}", "model-state/1", True, "What is active, what was refused last and why."),
    ("state/shadow/{slot}", "shadow-state/1", True, "How a shadow compares with the active model, while there is one."),
    ("state/agent", "agent-state/1", True, "Whether the agent is connected; the will is one of these."),
    ("state/health", "health/1", True, "How the agent is; on change and each minute."),
)

# Topic, schema, when; `{name}` is the name of a command (docs/commands.md).
ASKED = ("cmd/{name}", "command/1", "Others ask the agent to do something, where `mqtt.commands` lists it.")
ANSWERED = ("rsp/{name}", "command-result/1", "The answer, where the request names no topic below `rsp/` (MQTT 5).")


def schema_file_name(schema: str) -> str:
    """Name the file below docs/schemas/ of a schema."""
    return schema.replace("/", "-") + ".json"
