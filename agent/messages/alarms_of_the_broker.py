"""What is known of each kind of alarm, and the kinds that are about the broker; the others are in `alarms.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.messages.about_alarms import Priority


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """What is known of a code; `text` goes into the message, `advice` into the documentation."""

    priority: Priority
    text: str
    advice: str


OF_THE_BROKER: dict[str, AlarmKind] = {
    "broker_unreachable": AlarmKind(
        "high",
        "Not connected to the broker for half a minute; results wait in the outbox.",
        "`broker_error` (`strip-agent status`) says why: network, broker, `mqtt.host` and `mqtt.port`.",
    ),
    "login_refused": AlarmKind(
        "high",
        "The broker refuses the login: wrong user or password, or not allowed to connect.",
        "Correct `mqtt.username` and the password's file, which is read for each attempt; look at the broker's log.",
    ),
    "not_authorized": AlarmKind(
        "high",
        "The broker's access list lacks a topic of this agent; what is for it waits in the outbox.",
        "Allow what is written above (What the broker must allow); the log names the topic.",
    ),
    "quota_exceeded": AlarmKind(
        "high", "The broker takes no more for now; results wait in the outbox.", "Look at the broker's limits."
    ),
    "publish_refused": AlarmKind(
        "high",
        "The broker refuses messages, or hangs up on them; they wait in the outbox.",
        "The log names the topic and what the broker said; look at the broker's log.",
    ),
    "delivery_unverified": AlarmKind(
        "high",
        "For more than ten seconds no message has come back (MQTT 3.1.1, Sparkplug): the broker may be throwing "
        "results away.",
        "Allow the agent to write and to read its own topics, or use a broker with MQTT 5.",
    ),
    "certificate_expires": AlarmKind(
        "medium",
        "The certificate with which this box proves who it is, or its authority's, expires within 30 days.",
        "Renew the file; the log and `strip-agent doctor` name it. It is read for each connection, without a restart; "
        "the alarm ends within a minute.",
    ),
    "certificate_expired": AlarmKind(
        "high",
        "The certificate with which this box proves who it is, or its authority's, has expired.",
        "Renew the file, as above; the box connects by itself then. Results wait in the outbox meanwhile.",
    ),
    "session_taken_over": AlarmKind(
        "high",
        "Another agent has the same name or client id; stays for ten minutes.",
        "Give each box its own `agent.name` (and `mqtt.client_id`).",
    ),
    "unstable_connection": AlarmKind(
        "medium",
        "Three connections in a row ended within half a minute.",
        "`broker_error` says how the last one ended; look at the network and at the broker's log.",
    ),
    "nobody_listening": AlarmKind(
        "low",
        "Nobody subscribed to results that the broker took, now or in the last ten minutes.",
        "Nothing, where nobody is to listen yet; else see above (When nobody listens).",
    ),
    "no_subscriber": AlarmKind(
        "high",
        "Nobody subscribes to some of the events, which wait in the outbox (outbox.hold_until_subscribed).",
        "Subscribe to `{base}/event/#`; they arrive within a minute after that. The log names the topic.",
    ),
    "hold_not_possible": AlarmKind(
        "medium",
        "The broker speaks MQTT 3.1.1 and does not tell whether anybody subscribes: events are not held.",
        "Use a broker with MQTT 5, or set `outbox.hold_until_subscribed: false`.",
    ),
    "primary_host_offline": AlarmKind(
        "high",
        "For half a minute the primary host of Sparkplug has not been online; results wait in the outbox.",
        "Look at that host; its id is `mqtt.sparkplug.primary_host`, and it publishes `spBv1.0/STATE/<id>`, retained.",
    ),
    "subscription_refused": AlarmKind(
        "medium",
        "The broker does not let the edge node subscribe: hosts cannot ask for its births, nor give commands.",
        "Allow it to read `spBv1.0/<group>/NCMD/<node>` and `spBv1.0/STATE/<host>` (sparkplug.md).",
    ),
    "broker_without_retain": AlarmKind(
        "low",
        "The broker keeps no retained messages: who subscribes late sees no states.",
        "Set `mqtt.retain: false` where that is meant to be so.",
    ),
    "commands_not_granted": AlarmKind(
        "medium", "The broker denies the subscription to a command.", "Let the agent read `{base}/cmd/#`; see the log."
    ),
    "commands_suspended": AlarmKind(
        "medium",
        "A message on a command's topic could not be read and ended the connection; commands rest for a while.",
        "Look for a retained message there (`mosquitto_sub -t '{base}/cmd/#'`), and see who may write it.",
    ),
    "outbox_error": AlarmKind(
        "high", "The outbox cannot be read or written; results wait.", "The log says why; look at the state disk."
    ),
    "outbox_parked": AlarmKind(
        "high",
        "Messages are set aside that the broker can never take.",
        "`strip-agent audit` names them and says why; `strip-agent strips retry` sends a strip's result anew.",
    ),
    "outbox_dropped": AlarmKind(
        "high",
        "The outbox was full, and its oldest messages were dropped.",
        "`strip-agent audit` names the strips, `strip-agent strips retry` judges them again; raise "
        "`outbox.max_messages`. Goes when all of them are made good or forgotten.",
    ),
}
