"""The prose of docs/messages.md."""

INTRODUCTION = """\
# Messages

Everything the agent says over MQTT, and what it can be asked ([commands](commands.md)). JSON, UTF-8, QoS 1. Each
message is one flat object with constant keys and constant types: a float is always written as a float (`0.0`), ""
stands for "there is none", and there is no null, no NaN and no array. The JSON Schemas are in [`schemas/`](schemas/),
an AsyncAPI 3.0 description is in [`asyncapi.yaml`](asyncapi.yaml). How Node-RED, Telegraf, Ignition and others are set
up for it: [scada.md](scada.md).

The topics are below `mqtt.base_topic`, which is `strip-agent/{agent}` unless it is configured. It knows `{agent}`,
`{site}`, `{area}` and `{line}`, which are keys of `agent:`: with `acme/{site}/{area}/{line}/{agent}` all boxes of a
plant can have the same line in their configuration. It must not begin with `spBv1.0`: that is Sparkplug's.

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
will: offline, with the reason `connection_lost`. On a clean stop the agent says so itself: `shutdown`; a
broker that owes answers and takes no more is left without a goodbye, so that it publishes the will. A
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

For brokers that keep no retained messages there is `mqtt.retain: false`. Then nothing is published with the flag, not
the will either. `state/` is published at the same moments as else: all of it on every connection, then on every change,
health each minute. Whoever subscribes in between waits for the next value: up to a minute for health, until the next
strip for `last_strip`, until the next change or connection for `state/model` and `state/agent`. What was retained
before is cleared as above; where the broker hangs up on that, it is left alone until the next start. Proving that
messages arrive (MQTT 3.1.1) works as always: the agent subscribes before it publishes. Over MQTT 5 a broker says that
it keeps none; the agent then goes on without and raises `broker_without_retain`.

## Rented brokers

*AWS IoT Core* takes topics of at most 8 levels and 256 bytes, and client ids of at most 128. The agent's topics have
three levels below the base topic, so that leaves five. `strip-agent check-config` says what is beyond; it is a warning,
and an error where `mqtt.host` is Amazon's. It needs TLS with a client certificate, and a policy that allows what is
under "What the broker must allow", `iot:RetainPublish` as well.

*Azure IoT Hub* is no MQTT broker of this kind, and `check-config` refuses it: a device publishes to
`devices/{device_id}/messages/events/` and nowhere else, nothing is retained, and others cannot subscribe. Use a broker
of your own, or the MQTT broker of Azure Event Grid, which has topics of one's own choice.

Neither was tried from here; their limits are those of their documentation.

## When nobody listens

A broker takes a result although nobody subscribes to it, and then it is gone; the agent has done its part and does not
send it again. Over MQTT 5 the broker says so, and the agent raises `nobody_listening`, counts such results in
`unheard`, and logs the topic. Over 3.1.1 it cannot know. The alarm has the priority `low`: a box that works before
there is a SCADA system is in order, and its `status` is `ok`.

With `outbox.hold_until_subscribed: true` nothing is given to nobody: an event that the broker would take although no
one subscribes to its topic stays in the outbox, with the alarm `no_subscriber`, and leaves within a minute after
somebody subscribes, in order: on each connection the first event of a topic goes alone, and the others follow when
somebody got it. (A subscriber who leaves and returns within the 16 that may be unanswered can see the last of these
before the first.) Each topic waits by itself; so subscribe to `{base}/event/#`, or what is left out waits
for ever. A subscriber whose session outlives its connection counts while it is away. This needs MQTT 5, and a broker
that says so (the answer "no matching subscribers", which MQTT leaves to it; mosquitto does). Over 3.1.1 the alarm
`hold_not_possible` is raised and nothing is held.

**A broker that is restarted without persistence** has forgotten its subscribers' sessions and what it kept for them.
That is lost:

- what it had acknowledged and not yet passed on, because subscribers were away or slow;
- unless events are held: everything that the agent delivers after the restart and before the subscribers are back. That
  may be the whole outbox of an outage.

Against it helps, all three together:

- Subscribers ask for QoS 1 and a session that outlives their connection (MQTT 5: clean start off and a session expiry;
  3.1.1: clean session off, a fixed client id).
- The broker keeps sessions and messages over a restart (mosquitto: `persistence true`, `autosave_interval`,
  `max_queued_messages` above what an outage brings).
- `outbox.hold_until_subscribed: true`.

To get it back: a subscriber that looks for gaps in `seq` knows what it lacks, and `resend` brings it.

## Getting back what was missed

`strip-agent resend FROM TO` sends the results with these numbers again, both ends included, at most 10,000 at a time,
on `replay/strip/{camera}`: the stored bytes with the same `msg_id`, and `replayed` true. Counters on `event/#` do not
count them twice; who keeps what comes on `replay/#` drops repeats by `msg_id`. Subscribe to `replay/#` first: replays
are not held for subscribers.

- They go behind everything that waits in the outbox, and live results pass them. Until they are acknowledged they are
  in the ledger, over kills and outages. Asking twice for a number that still waits sends it once.
- Results that still wait for the broker are not sent twice: they arrive by themselves.
- What was dropped (`outbox_dropped`) or parked can be sent as well.
- Numbers that the ledger does not hold any more (`ledger.keep_days`) are named, and the exit code is 1.
- `--stream` asks for an earlier stream, of a damaged ledger whose rows were brought over.

## What an acknowledgement is worth

`delivery` in `state/health` and in `strip-agent status`:

- `verified`: the broker has what it acknowledged. Over MQTT 5 a denied message is answered with "not authorized". Over
  3.1.1 it is answered like any other; there the agent subscribes to each topic it publishes to until the first of its
  own messages has come back, for which it needs the right to read them.
- `unverified`: MQTT 3.1.1, and on some topic nothing has come back. The broker may be throwing results away.
- `refused`: the broker does not take messages on some topic: it answers so, or hangs up on them. They wait in the
  outbox and are tried again, at most a minute apart; other topics go on.
- `down`: not connected.

## Parked messages

A message that the broker can never take is parked: set aside, counted (`outbox_parked`) and named by
`strip-agent audit`. Its reason is `too_large` (for the broker's limit), `topic_invalid`, `payload_invalid`, or
`broker_disconnects` when the broker hung up five times in a row on this message.

## What the broker must allow

To write `{base}/event/#`, `{base}/state/#` and, for `resend`, `{base}/replay/#`, and to read `{base}/state/agent`;
with MQTT 3.1.1 to read `{base}/event/#` and `{base}/replay/#` as well. The will is on `{base}/state/agent`.
`strip-agent doctor` and `check-config` write `{base}/doctor`. For [commands](commands.md): to read `{base}/cmd/#` and
to write `{base}/rsp/#`. An access list for mosquitto that allows just this stands in [scada/](scada/security.md).

Nobody else needs to write anything below `{base}`, except `{base}/cmd/<name>` for each command that they may give; to
read below `{base}/rsp/` is for those who give them. mosquitto grants a subscription to `cmd/...` that its list denies,
and then delivers nothing; brokers that deny it are heard: `commands_not_granted`.
"""

ALARMS = """
## Alarms

`state/health` has the alarms of the moment in `alarms`, with the name of the camera or slot in the middle:
`camera_top_missing`. `event/alarm` tells of the same alarm with the code `camera_missing` and the source `camera/top`,
once when it is raised and once when it is cleared, through the outbox: what came and went while the broker was away
arrives afterwards, with its own times.

- An alarm is cleared when it has been gone for 5 s. Comes it back within ten minutes after that, it has to be gone for
  twice as long the next time, at most ten minutes: a fault that flaps costs a few messages an hour.
- Which alarms are raised is kept in the ledger, in one transaction with the event. After a kill or a restart an alarm
  that is still there is not raised again. One that has ended is cleared, up to two minutes after the start: some faults
  take so long to be found again.
- While the ledger cannot be written (`ledger_no_space`, `ledger_io_error`) only `state/health` tells of alarms; the
  events follow with their own times as soon as it can, unless the service is killed before that.
- While models are loaded at a start (at most half a minute) none is raised.
- A verdict is no alarm: anomalous and invalid strips are told by `event/strip`.

Priorities: `critical`, strips are not judged or not recorded; `high`, results do not arrive, strips wait, or some were
dropped; `medium`, something needs attention; `low`, only to know. With alarms of priority `low` alone `status` stays
`ok`.

| code | priority | what it says | what to do |
|---|---|---|---|
"""
