"""Sentences about the configuration's keys: what is allowed, what was found, which key was probably meant."""

from __future__ import annotations

import difflib
import functools
import json
from typing import TYPE_CHECKING, Any

from agent.config import Config
from agent.records import show_name

if TYPE_CHECKING:
    from agent.config.yaml_text import KeyPath

Schema = dict[str, Any]
"""JSON Schema of a key, as pydantic makes it from the models."""

NOT_IN_PLAIN = "passwords are not written here: put it into a file of its own and name that in password_file"
SHOWN_CHARACTERS = 60  # of a value or key from the file


@functools.cache
def _whole() -> Schema:
    return Config.model_json_schema()


def resolved(schema: Schema) -> Schema:
    """Follow a reference to a section; everything else comes back as it is."""
    if "$ref" in schema:
        return {**_whole()["$defs"][schema["$ref"].removeprefix("#/$defs/")], "section": True}
    return schema


def keys_below(schema: Schema) -> dict[str, Schema]:
    """Keys of a section, or of the whole file for `{}`; empty for a value."""
    properties: dict[str, Schema] = (resolved(schema) if schema else _whole()).get("properties", {})
    return properties


def known_part(path: KeyPath) -> tuple[KeyPath, Schema]:
    """Return the longest beginning of `path` that the models know, and its schema (`{}` for the whole file)."""
    schema: Schema = {}
    for depth, step in enumerate(path):
        below = resolved(schema).get("items") if isinstance(step, int) else keys_below(schema).get(step)
        if below is None:
            return path[:depth], schema
        schema = below
    return path, schema


@functools.cache
def leaf_paths() -> tuple[tuple[str, ...], ...]:
    """Return every key that holds a value or a list, in the order of the models; `cameras` is one of them."""

    def below(path: tuple[str, ...], schema: Schema) -> list[tuple[str, ...]]:
        keys = keys_below(schema)
        return [leaf for key in keys for leaf in below((*path, key), keys[key])] if keys else [path]

    return tuple(below((), {}))


_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "null": "`null`",
    "object": "a group of keys",
}


def allowed(schema: Schema) -> str:
    """Say which values a key takes, for example "a whole number from 1 to 65535"."""
    schema = resolved(schema)
    if "words" in schema:
        return str(schema["words"])
    if "anyOf" in schema:
        return " or ".join(allowed(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        values = [f"`{value}`" for value in schema.get("enum", [schema.get("const")])]
        return " or ".join(filter(None, [", ".join(values[:-1]), values[-1]]))
    if schema.get("type") == "array":
        least = f"at least {schema['minItems']} of them, " if "minItems" in schema else ""
        return f"a list ({least}each one {allowed(schema['items'])})"
    return _TYPES.get(schema.get("type", ""), "text") + _range(schema)


def _range(schema: Schema) -> str:
    low = f" from {schema['minimum']:.12g}" if "minimum" in schema else ""
    low = f" above {schema['exclusiveMinimum']:.12g}" if "exclusiveMinimum" in schema else low
    return low + (f" {'to' if low else 'up to'} {schema['maximum']:.12g}" if "maximum" in schema else "")


def found(value: Any, schema: Schema) -> str:
    """Say what stands in the file, with a hint where only the quotes are wrong."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if not isinstance(value, str):
        kind = "" if isinstance(value, bool) else "the number "
        quotes = " (write it in quotes)" if allowed(schema).startswith(("text", "a name")) else ""
        return f"{kind}{_short(json.dumps(value))}{quotes}"
    if not value:
        return "an empty text"
    wants_number = any(one.get("type") in {"integer", "number"} for one in schema.get("anyOf", [schema]))
    plain = wants_number and value.replace(".", "", 1).lstrip("+-").isdecimal()
    return f"the text '{_short(show_name(value))}'" + (" (write it without quotes and leading zeros)" if plain else "")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def unknown_key(path: KeyPath) -> str:
    """Say what to do about a key that does not exist: the one that was meant, or those that exist there."""
    parent, schema = known_part(path[:-1])
    key = str(path[-1])
    here = list(keys_below(schema))
    if key.lower().startswith(("pass", "secret", "token")):
        return NOT_IN_PLAIN
    close = difflib.get_close_matches(key.lower().replace("-", "_"), here, n=1)
    elsewhere = [".".join(leaf) for leaf in leaf_paths() if leaf[-1] == key]
    if close or elsewhere:
        return f"there is no such key; did you mean {close[0] if close else elsewhere[0]}?"
    section = shown_path(parent) or "the file"
    return f"there is no such key; {section} knows {', '.join(here)}"


def shown_path(path: KeyPath) -> str:
    """Write a path the way people do: `cameras[0].folder`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_short(show_name(step))}" for step in path)
    return text.removeprefix(".")
