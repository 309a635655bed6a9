"""docs/messages.md and docs/schemas/ out of the messages' models; the prose stands in messages_text.py."""

from __future__ import annotations

import json
from typing import Any

from agent import messages
from tools.docs_asyncapi import asyncapi
from tools.docs_topics import ANSWERED, ASKED, TOPICS, schema_file_name
from tools.messages_text import ALARMS, INTRODUCTION, RULES


def message_pages() -> dict[str, str]:
    """Return the text of every page, by its path below docs/."""
    schemas = messages.schemas()
    pages = {"messages.md": _markdown(schemas), "asyncapi.yaml": asyncapi(schemas)}
    for name, schema in schemas.items():
        pages[f"schemas/{schema_file_name(name)}"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return pages


def _markdown(schemas: dict[str, dict[str, Any]]) -> str:
    lines = ["| topic | schema | retained | when |", "|---|---|---|---|"]
    lines += [
        f"| `{topic}` | [`{schema}`](#{schema.replace('/', '')}) | {'yes' if retained else 'no'} | {when} |"
        for topic, schema, retained, when in TOPICS
    ]
    lines += [
        f"| `{topic}` | [`{schema}`](#{schema.replace('/', '')}) | no | {when} |"
        for topic, schema, when in (ASKED, ANSWERED)
    ]
    parts = [INTRODUCTION, "\n".join(lines), "\n", RULES, ALARMS]
    parts += [
        f"| `{code}` | {kind.priority} | {kind.text} | {kind.advice} |\n" for code, kind in messages.ALARMS.items()
    ]
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
