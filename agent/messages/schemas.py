"""JSON Schemas of the messages, made from the models that send them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from agent.messages.about_agent import AgentState, Health
from agent.messages.about_alarms import AlarmEvent
from agent.messages.about_models import ModelEvent, ModelState
from agent.messages.about_reviews import ReviewEvent
from agent.messages.about_shadows import ShadowEvent, ShadowState
from agent.messages.commands import CommandEvent, CommandRequest, CommandResult
from agent.messages.strip_result import StripResult

if TYPE_CHECKING:
    from agent.messages.base import Message

MESSAGES: tuple[type[Message], ...] = (
    StripResult,
    ModelEvent,
    AlarmEvent,
    CommandEvent,
    ReviewEvent,
    ShadowEvent,
    ModelState,
    ShadowState,
    AgentState,
    Health,
    CommandRequest,
    CommandResult,
)
ASKED: frozenset[type[Message]] = frozenset({CommandRequest})
"""Those that others send: what has a default may be left out."""

# One letter, then letters, digits and underscores: what Ignition, FUXA and InfluxDB all take as a name.
_KEY = re.compile(r"^[a-z][a-z0-9_]*$")


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each message, by schema name, in the order of `MESSAGES`."""
    found = {}
    for model in MESSAGES:
        [name] = get_args(model.model_fields["schema_"].annotation)
        mode: JsonSchemaMode = "validation" if model in ASKED else "serialization"
        schema = model.model_json_schema(by_alias=True, mode=mode, schema_generator=_PlainSchema)
        # New keys keep the version: a subscriber that checks against this schema must let them pass.
        schema.pop("additionalProperties", None)
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
