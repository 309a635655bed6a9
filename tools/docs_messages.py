"""docs/messages.md, docs/schemas/ and docs/asyncapi.yaml out of the messages' models."""

from __future__ import annotations

import json
from typing import Any

import yaml

from agent import __version__, messages

BASE = "strip-agent/{agent}"

# Topic below the base topic, schema, retained, when. `{camera}` and `{slot}` stand for any of them.
TOPICS = (
    ("event/strip/{camera}", "strip-result/1", False, "One for each result; through the outbox."),
    ("event/model/{slot}", "model-event/1", False, "What happened to a slot's models; through the outbox."),
    ("state/last_strip/{camera}", "strip-result/1", True, "The strip of a camera that was judged last, for HMIs."),
    ("state/model/{slot}", "model-state/1", True, "What is active, what was refused last and why."),
    ("state/agent", "agent-state/1", True, "Whether the agent is connected; the will is one of these."),
    ("state/health", "health/1", True, "How the agent is; on change and each minute."),
)

INTRODUCTION = """\
# Messages

Everything the agent says over MQTT. JSON, UTF-8, QoS 1. Each message is one flat object with constant keys and
constant types: a float is always written as a float (`0.0`), "" stands for "there is none", and there is no null, no
NaN and no array. The JSON Schemas are in [`schemas/`](schemas/), an AsyncAPI 3.0 description is in
[`asyncapi.yaml`](asyncapi.yaml).

The topics are below `mqtt.base_topic`, which is `strip-agent/<agent.name>` unless it is configured.

"""

RULES = """
## What a subscriber can rely on

- **Nothing is lost between the box and the broker.** A result stays in the outbox until the broker has acknowledged it
  with a success code. Results of an outage arrive afterwards, oldest first.
- **Repeats happen** when an acknowledgement is lost. A repeat has the same bytes and carries no sign of being one: drop
  it by `msg_id`.
- **`seq` shows a loss.** It counts the results of a ledger without gaps; a new ledger has a new `stream`. A missing
  number was lost behind the broker: the subscriber asked for QoS 0, or for no session that outlives its connection
  (clean session, clean start), or the broker keeps less than the outage brought (mosquitto: 1000 messages,
  `max_queued_messages`). Otherwise `strip-agent audit` names it: parked,
  or dropped because the outbox was full.
- **Order.** First deliveries come in the order of `seq`. A topic that the broker refuses for a while catches up later.
- **`event/` is not retained, `state/` is.** States are the latest value only: not more than ten a second are sent for
  each topic, values in between are left out, and all of them are sent again on every connection. `state/last_strip`
  is what was committed last, whatever the time of its file: a strip of the backlog or a retry as well.
- **New keys may be added** under the same schema name. A key that goes away or changes its type means a new schema
  name and a new topic.
- Over MQTT 5 each message has the content type `application/json` and a user property `schema`.

## Is it still there?

`state/agent` is online from the first moment of a connection. When the connection just ends, the broker publishes the
will: offline, with the reason `connection_lost`. On a clean stop the agent says so itself, with its own reason. A
retained message outlives its sender: believe `state/health` only until `ts_ms` plus `valid_for_s`.

The will is written when the connection begins, so its time is not when the connection was lost. Its order is told by
`connection`, which counts the connections of a box over restarts (a new state folder begins anew): the higher number is
the later one, and of the same number offline is the later one. A historian that sorts by `ts_ms` comes to the same
order: the will's is one millisecond after that of the birth.

## What is retained, and how it goes

The agent remembers in `broker.json` in its state folder on which topics it has left retained messages. When a camera or
a slot is no longer configured, or `agent.name` or `mqtt.base_topic` changes, it clears them after its next connection
to the same broker (an empty retained message). It needs the right to write there; where the broker refuses, the log
names the topic, it is tried again after the next start, and `mosquitto_pub -r -n -t TOPIC` clears it by hand.

For brokers that keep no retained messages there is `mqtt.retain: false`: `state/` is then published like events, and
whoever subscribes later waits for the next value (health: a minute). Over MQTT 5 a broker says that it keeps none; the
agent then goes on without and raises `broker_without_retain`.

## When nobody listens

A broker takes a result although nobody subscribes to it, and then it is gone; the agent has done its part and does not
send it again. Over MQTT 5 the broker says so, and the agent raises `nobody_listening`, counts such results in
`unheard`, and logs the topic. Over 3.1.1 it cannot know.

A broker that is restarted without persistence has forgotten its subscribers' sessions and what it kept for them. When
the agent is connected again before they are, the whole outbox goes to nobody; and what the broker had acknowledged and
not yet passed on is lost with it. What helps, all three together:

- Subscribers ask for QoS 1 and a session that outlives their connection (MQTT 5: clean start off and a session expiry;
  3.1.1: clean session off, a fixed client id).
- The broker keeps sessions and messages over a restart (mosquitto: `persistence true`, `autosave_interval`,
  `max_queued_messages` above what an outage brings).
- Subscribers look for gaps in `seq`. The results are still in the ledger: `strip-agent strips list` and `strips show`
  tell them, and `strips retry` judges a strip again, whose result is then a new message.

## What an acknowledgement is worth

`delivery` in `state/health` and in `strip-agent status`:

- `verified`: the broker has what it acknowledged. Over MQTT 5 a denied message is answered with "not authorized". Over
  3.1.1 it is answered like any other; there the agent subscribes to each topic it publishes to until the first of its
  own messages has come back, for which it needs the right to read them.
- `unverified`: MQTT 3.1.1, and on some topic nothing has come back. The broker may be throwing results away.
- `refused`: the broker does not take messages on some topic: it answers so, or hangs up on them. They wait in the
  outbox and are tried again, at most a minute apart; other topics go on.
- `down`: not connected.

## Alarms of the publisher

- `broker_unreachable`: not connected for half a minute; `broker_error` says why.
- `login_refused`: wrong user or password, or not allowed to connect. The password file is read for each attempt.
- `not_authorized`: the broker's access list lacks a topic of this agent.
- `quota_exceeded`: the broker takes no more for now.
- `publish_refused`: the broker refuses messages for another reason, or hangs up on them; the log names the topic.
- `delivery_unverified`: for more than ten seconds `unverified`.
- `session_taken_over`: another agent has the same name. Two boxes must not share `agent.name`. Stays for ten minutes.
- `unstable_connection`: three connections in a row ended within half a minute.
- `nobody_listening`: results went to nobody, now or in the last ten minutes; see above.
- `broker_without_retain`: the broker keeps no retained messages, so that who subscribes late sees no states; see above.
- `outbox_error`: the ledger cannot be read or written; see the log.

A message that the broker can never take is parked: set aside, counted (`outbox_parked`) and named by
`strip-agent audit`. Its reason is `too_large` (for the broker's limit), `topic_invalid`, `payload_invalid`, or
`broker_disconnects` when the broker hung up five times in a row on this message.

## Alarms of the cameras

`strip-agent status` says more about each.

- `camera_<name>_missing`: the folder is not there, or nothing is mounted where it was. Its strips wait.
- `camera_<name>_unreadable`: it cannot be read. Its strips wait.
- `camera_<name>_unreachable`: reading it has not come back for three `rescan_seconds`: a share that hangs.
- `camera_<name>_partly_unreadable`: the last full scan could not read a folder or a file in it.
- `camera_<name>_clock_ahead`: its last strip, or one of the last hour, has a time more than a minute ahead of this
  box's. `captured_ts_ms` and the folders of heatmaps go by it, nothing else does. Set both clocks by NTP.
- `camera_<name>_linked_folder`: a link in it leads to a folder elsewhere. Links are not followed: nothing behind it is
  judged. Seen by full scans, so at most `rescan_seconds` after it came or went.

## Alarms of the workers

- `slot_<slot>_worker_hangs`: a worker was killed and does not end: it hangs in the kernel, on a share or a disk that
  does not answer. Another one has taken over; what it costs is its memory. `dmesg` says what it waits for.
- `old_workers_hang`: so does one of the service that ran before this one.

## Alarms of the ledger and of files

- `ledger_no_space`, `ledger_io_error`: the ledger cannot be written (state disk full, or broken): `status` is
  `failing`. Nothing is lost: strips wait, are counted in `strips_pending`, and are judged once it can be written.
- `ledger_was_damaged`: a damaged ledger was set aside (`ledger.db.corrupt.*` in the state folder) and a new `stream`
  has begun. Remove those files once you have looked at them.
- `camera_{camera}_files_cannot_be_disposed_of`: for a minute files could not be moved or removed (`when_done`):
  read-only, forbidden, no room. `strip-agent status` says why; it is tried again every ten seconds.
- `camera_{camera}_files_stay`: in the place of files that were to be moved or removed is something that nothing may
  touch (a link, a pipe, a folder), or their content was never read. `strip-agent status` names them; it ends within
  a minute after they are taken away, or with `when_done: keep`.
- `clock_jumped_ahead`: the wall clock jumped forward by more than a day. Until both clocks have agreed for a day of
  running, heatmaps and rows become old by the monotonic clock only; the limits of space hold all the time.

## What the broker must allow

To write `{base}/event/#` and `{base}/state/#`, and to read `{base}/state/agent`; with MQTT 3.1.1 to read
`{base}/event/#` as well. The will is on `{base}/state/agent`.
"""


def message_pages() -> dict[str, str]:
    """Return the text of every page, by its path below docs/."""
    schemas = messages.schemas()
    pages = {"messages.md": _markdown(schemas), "asyncapi.yaml": _asyncapi(schemas)}
    for name, schema in schemas.items():
        pages[f"schemas/{_file_name(name)}"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return pages


def _file_name(schema: str) -> str:
    return schema.replace("/", "-") + ".json"


def _markdown(schemas: dict[str, dict[str, Any]]) -> str:
    lines = ["| topic | schema | retained | when |", "|---|---|---|---|"]
    lines += [
        f"| `{topic}` | [`{schema}`](#{schema.replace('/', '')}) | {'yes' if retained else 'no'} | {when} |"
        for topic, schema, retained, when in TOPICS
    ]
    parts = [INTRODUCTION, "\n".join(lines), "\n", RULES]
    for name, schema in schemas.items():
        parts += [f"\n## {name}\n\n{schema['description']}\n\n| key | type | |\n|---|---|---|\n"]
        parts += [
            f"| `{key}` | {_type(key_schema)} | {_text(key_schema)} |\n"
            for key, key_schema in schema["properties"].items()
        ]
    return "".join(parts)


def _type(schema: dict[str, Any]) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    return {"string": "text", "integer": "whole number", "number": "float", "boolean": "true or false"}[schema["type"]]


def _text(schema: dict[str, Any]) -> str:
    return " ".join(schema["description"].split()).replace("|", "\\|")


def _asyncapi(schemas: dict[str, dict[str, Any]]) -> str:
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for topic, schema, retained, when in TOPICS:
        name = topic.replace("/{camera}", "").replace("/{slot}", "").replace("/", "_")
        parameters = {"agent": {"description": "Name of the box."}}
        if "{camera}" in topic:
            parameters["camera"] = {"description": "Name of the camera."}
        if "{slot}" in topic:
            parameters["slot"] = {"description": "Name of the model slot."}
        message = _message_name(schema)
        channels[name] = {
            "address": f"{BASE}/{topic}",
            "description": when,
            "parameters": parameters,
            "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        }
        operations[f"publish_{name}"] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"mqtt": {"qos": 1, "retain": retained, "bindingVersion": "0.2.0"}},
        }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "strip-agent",
            "version": __version__,
            "description": "What the agent publishes. The addresses are those of the default mqtt.base_topic.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {
                _message_name(name): {
                    "name": name,
                    "contentType": "application/json",
                    "description": schema["description"],
                    "payload": {
                        "schemaFormat": "application/schema+json;version=2020-12",
                        "schema": {"$ref": f"./schemas/{_file_name(name)}"},
                    },
                }
                for name, schema in schemas.items()
            }
        },
    }
    header = "# Made by `make docs` from the messages' models; do not edit.\n"
    return header + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _message_name(schema: str) -> str:
    return schema.replace("/", "_").replace("-", "_")
