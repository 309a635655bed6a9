"""Every message the agent publishes: its keys, their types, its topic, and how it becomes bytes.

All messages are flat JSON objects with constant keys and constant types: SCADA systems and historians make one tag or
column of each key and take its type from the first value they see. There is no null, no NaN and no array; "" stands for
"there is none". The docstring below a key becomes its text in docs/messages.md and in docs/schemas/.
"""

from agent.messages.about_agent import AgentState, Health
from agent.messages.about_alarms import AlarmEvent
from agent.messages.about_models import ModelEvent, ModelState
from agent.messages.about_reviews import ReviewEvent
from agent.messages.about_shadows import ShadowEvent, ShadowState
from agent.messages.alarms import ALARMS, explain
from agent.messages.base import Message, encode, schema_name, utc_text
from agent.messages.commands import CommandEvent, CommandName, CommandRequest, CommandResult, Fault
from agent.messages.schemas import MESSAGES, schemas
from agent.messages.strip_result import BAD_QUALITY, GOOD_QUALITY, INVALID_SCORE, VERDICT_CODES, StripResult
from agent.messages.topics import (
    ALARM_EVENT,
    ANSWERS,
    COMMAND_EVENT,
    REVIEW_EVENT,
    STATE_AGENT,
    STATE_HEALTH,
    answer_topic,
    command_topic,
    last_strip_topic,
    model_event_topic,
    model_state_topic,
    replay_topic,
    retained_topics,
    shadow_event_topic,
    shadow_state_topic,
    strip_event_topic,
)

__all__ = [
    "ALARMS",
    "ALARM_EVENT",
    "ANSWERS",
    "BAD_QUALITY",
    "COMMAND_EVENT",
    "GOOD_QUALITY",
    "INVALID_SCORE",
    "MESSAGES",
    "REVIEW_EVENT",
    "STATE_AGENT",
    "STATE_HEALTH",
    "VERDICT_CODES",
    "AgentState",
    "AlarmEvent",
    "CommandEvent",
    "CommandName",
    "CommandRequest",
    "CommandResult",
    "Fault",
    "Health",
    "Message",
    "ModelEvent",
    "ModelState",
    "ReviewEvent",
    "ShadowEvent",
    "ShadowState",
    "StripResult",
    "answer_topic",
    "command_topic",
    "encode",
    "explain",
    "last_strip_topic",
    "model_event_topic",
    "model_state_topic",
    "replay_topic",
    "retained_topics",
    "schema_name",
    "schemas",
    "shadow_event_topic",
    "shadow_state_topic",
    "strip_event_topic",
    "utc_text",
]
