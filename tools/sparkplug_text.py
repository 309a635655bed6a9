"""What docs/sparkplug.md says above and below its tables."""

ABOVE = """\
# Sparkplug B

With `mqtt.payload: sparkplug` the agent speaks Sparkplug B 3.0 instead of the JSON of [messages.md](messages.md);
with `both` each, over a connection of its own. The box is an *edge node*, each camera is a *device* of it:

    spBv1.0/<group>/NBIRTH/<node>            the box: health, models
    spBv1.0/<group>/DBIRTH/<node>/<camera>   a camera and its newest strip
    spBv1.0/<group>/DDATA/<node>/<camera>    one for each strip

```yaml
mqtt:
  payload: both
  sparkplug: {group: plant1}   # node: agent.name
```

`mqtt.sparkplug.group` may be left out where `agent.site` is set. [configuration.md](configuration.md#mqttsparkplug)
has the other keys.

## What a host can rely on

- **No strip is lost between box and broker.** Sparkplug's data are QoS 0, which nobody acknowledges. So the agent
  sends a batch, subscribes once more to its own NCMD, and takes the broker's answer to that for the acknowledgement:
  a broker works off what comes in on a connection in order. Until then the strips stay in the outbox. With `both` a
  strip is acknowledged when both ways have it.
- **What could not be sent at once comes as history**: after the births, with `is_historical`, with the times at which
  it came about, oldest first, and live strips are not kept waiting for it. It never replaces a live value. A strip
  may come twice: `Strip/Stream` and `Strip/Seq` tell it, as `msg_id` does in JSON. `Strip/Seq` has no gaps within a
  stream.
- **All metrics of a strip come together** in one DDATA, with one time: that of the commit. `Strip/Seq` changes with
  each strip, so it is what a script on the host should wait for.
- **A strip that was not judged is never good**: `Strip/VerdictCode` is 2, what only a judged strip has is null with
  `Quality` 0, and `Strip/Reason` has a code of [reasons.md](reasons.md). What was judged has `Quality` 192.
- **Births list everything.** Data carry names and datatypes, and no aliases unless `aliases: true`. Aliases are
  shorter, but mqtt-spb-wrapper cannot read them, and Tahu's JavaScript decoder reads null where the datatype is
  missing.
- **A device dies when its camera's folder goes** (DDEATH), and is born again when it comes. Results of it that still
  wait are told all the same: it is born for them and dies again.
- **`seq` counts 0 to 255** over node and devices and begins with 0 in each NBIRTH. `bdSeq` rises with every CONNECT,
  over restarts too: it is kept in `sparkplug.json` in the state folder.
- **A rebirth is answered at once.** Of several requests within a second one is.
- At a stop the node publishes NDEATH and disconnects; over MQTT 5 with "disconnect with will message", as the
  specification asks for, so that the same NDEATH comes twice.

## A primary host

With `mqtt.sparkplug.primary_host: <id>` the agent waits for `spBv1.0/STATE/<id>` to say `{"online": true,
"timestamp": ...}` (retained) before anything is sent, and ends its session when that says otherwise; meanwhile
everything waits in the outbox. Of two messages the one with the later timestamp counts, as the specification
asks for; but one more than five minutes ahead of this box's clock gives way to one that is not: the host's clock was
wrong and has been set. Half a minute without the host is the alarm `primary_host_offline`. A host that dies is called
offline only after its keepalive has run out: what was sent in the two minutes before that is sent once more, as
history. Hosts of Sparkplug 2.2, which publish `ONLINE` as text on `STATE/<id>`, are not understood.

Without one, data that no host subscribes to are gone, as with any QoS 0 message; `strip-agent resend` sends them
again, as history.

## Commands

Hosts give commands by writing metrics, and only those that `mqtt.commands` lists; with none, no DCMD is subscribed to
and all metrics but the rebirth are read-only. [commands.md](commands.md) says what each does.

| write | means | needs |
|---|---|---|
| `Settings/Threshold` of a device; null takes it back | `set_threshold` | `set_threshold` |
| `Settings/Paused` of a device | `pause`, `resume` | both |
| `Device Control/Rescan` of a device, true | `rescan` | `rescan` |
| `Command/Request` of the node | any | that command |

`Command/Request` takes the JSON of `command/1` with one key more, the command's name:

    {"schema":"command/1","id":"7f3a","by":"hmi2","command":"resend","from_seq":100,"to_seq":140}

Each command is answered in `Command/Response`, also those given by writing something else, with an `id` of their own.
They are done one at a time by the same desk as commands in JSON, leave the same `event/command` (here in `Event/Last`),
and count as commands by `sparkplug`, unless a request says whom they come from. Commands that were left on the broker
(retained), that are larger than 8 KiB or no payload, and what may not be written are passed over and counted.

## What the broker must allow

Write `spBv1.0/<group>/+/<node>` and `spBv1.0/<group>/+/<node>/+`. Read `spBv1.0/<group>/NCMD/<node>`, with commands
`spBv1.0/<group>/DCMD/<node>/+`, and with a primary host `spBv1.0/STATE/<host>`. A broker says nothing about QoS 0
messages that it denies. So that this is noticed the agent subscribes to each of its own topics until the first message
has come back, which needs the right to read them, too: else `delivery` says `unverified` and the alarm
`delivery_unverified` is raised. With `both` there are two clients: `mqtt.client_id`, and the same with `-sparkplug`
behind it.

## Metrics
"""

BELOW = """\
In births, metrics have the properties `engUnit`, `engLow` and `engHigh` where there is something to say, and
`readOnly`. `Event/Last` is how alarms, models and commands are told: each event is sent once as it happens, late ones
as history.

## What was tried

Each rule of the specification's checklist that an edge node can break has a test with its tck-id in
`tests/sparkplug/test_checklist.py`, over MQTT 5 and 3.1.1, against mosquitto. Three hosts that were not written here
(`make test-peers`) were content with births, data, deaths, a rebirth that they asked for and a command: Eclipse Tahu's
decoder (npm sparkplug-payload 1.0.3), mqtt-spb-wrapper 2.1.2 and pysparkplug 0.6.1. The specification's own test kit
(TCK) was not run.
"""
