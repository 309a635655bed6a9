"""JSON Schemas of the messages, made from the models that send them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from agent.messages.about_agent import AgentState, Health
from agent.messages.about_models import ModelEvent, ModelState
from agent.messages.strip_result import StripResult

if TYPE_CHECKING:
    from agent.messages.base import Message

MESSAGES: tuple[type[Message], ...] = (StripResult, ModelEvent, ModelState, AgentState, Health)

# One letter, then letters, digits and underscores: what Ignition, FUXA and InfluxDB all take as a name.
_KEY = re.compile(r"^[a-z][a-z0-9_]*$")


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message, by schema name, in the order of `MESSAGES`."""
    found = {}
    for model in MESSAGES:
        name = model.model_fields["schema_"].default
        schema = model.model_json_schema(by_alias=True, mode="serialization", schema_generator=_PlainSchema)
        # New keys keep the version: a subscriber that checks against this schema must let them pass.
        schema.pop("additionalProperties")
        schema = {"$schema": _PlainSchema.schema_dialect, "$id": f"urn:strip-agent:{name}", **schema, "title": name}
        bad = [key for key in schema["properties"] if not _KEY.match(key)]
        if bad:
            raise ValueError(f"{name}: no SCADA-safe keys: {bad}")
        found[name] = schema
    return found


class _PlainSchema(GenerateJsonSchema):
    """Without the titles that only repeat each key."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False
