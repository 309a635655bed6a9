"""docs/asyncapi.yaml out of the messages' models."""

from __future__ import annotations

from typing import Any

import yaml

from agent import __version__
from tools.docs_commands import NAMES, request_schema, schema_file
from tools.docs_topics import ANSWERED, ASKED, BASE, TOPICS, schema_file_name


def asyncapi(schemas: dict[str, dict[str, Any]]) -> str:
    """Return the text of the page; `schemas` by their names."""
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
    for (topic, _, when), action in ((ASKED, "receive"), (ANSWERED, "send")):
        name = topic.partition("/")[0]
        below = NAMES if topic == ASKED[0] else [_message_name("command-result/1")]
        messages_of = {f"command_{one}" if topic == ASKED[0] else one: one for one in below}
        parameters = {"agent": {"description": "Name of the box."}}
        channels[name] = {
            "address": f"{BASE}/{topic}",
            "description": when,
            "parameters": parameters | {"name": {"description": "Name of the command.", "enum": list(NAMES)}},
            "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in messages_of},
        }
        operations[f"{action}_{name}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{name}"},
            "bindings": {"mqtt": {"qos": 1, "bindingVersion": "0.2.0"}},
        }
    operations["receive_cmd"]["reply"] = {
        "address": {
            "location": "$message.header#/responseTopic",
            "description": "MQTT 5, below rsp/; everything else is answered on rsp/{name}.",
        },
        "channel": {"$ref": "#/channels/rsp"},
    }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "strip-agent",
            "version": __version__,
            "description": "What the agent publishes, and what it may be asked. "
            "The addresses are those of the default mqtt.base_topic.",
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
                        "schema": {"$ref": f"./schemas/{schema_file_name(name)}"},
                    },
                }
                for name, schema in schemas.items()
                if name != ASKED[1]
            }
            | {
                f"command_{name}": {
                    "name": f"command/1 {name}",
                    "contentType": "application/json",
                    "description": request_schema(name)["description"],
                    "payload": {
                        "schemaFormat": "application/schema+json;version=2020-12",
                        "schema": {"$ref": f"./schemas/{schema_file(name)}"},
                    },
                }
                for name in NAMES
            }
        },
    }
    header = "# Made by `make docs` from the messages' models; do not edit.\n"
    return header + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _message_name(schema: str) -> str:
    return schema.replace("/", "_").replace("-", "_")
