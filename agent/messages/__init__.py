"""Every message the agent publishes: its keys, their types, its topic, and how it becomes bytes.

All messages are flat JSON objects with constant keys and constant types: SCADA systems and historians make one tag or
column of each key and take its type from the first value they see. There is no null, no NaN and no array; "" stands for
"there is none". The docstring below a key becomes its text in docs/messages.md and in docs/schemas/.
"""

from agent.messages.about_agent import AgentState, Health
from agent.messages.about_models import ModelEvent, ModelState
from agent.messages.base import Message, encode, schema_name, utc_text
from agent.messages.schemas import MESSAGES, schemas
from agent.messages.strip_result import BAD_QUALITY, GOOD_QUALITY, INVALID_SCORE, VERDICT_CODES, StripResult
from agent.messages.topics import (
    STATE_AGENT,
    STATE_HEALTH,
    last_strip_topic,
    model_event_topic,
    model_state_topic,
    retained_topics,
    strip_event_topic,
)

__all__ = [
    "BAD_QUALITY",
    "GOOD_QUALITY",
    "INVALID_SCORE",
    "MESSAGES",
    "STATE_AGENT",
    "STATE_HEALTH",
    "VERDICT_CODES",
    "AgentState",
    "Health",
    "Message",
    "ModelEvent",
    "ModelState",
    "StripResult",
    "encode",
    "last_strip_topic",
    "model_event_topic",
    "model_state_topic",
    "retained_topics",
    "schema_name",
    "schemas",
    "strip_event_topic",
    "utc_text",
]
