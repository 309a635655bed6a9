"""The rules of Sparkplug B 3.0 for an edge node, one test each, named by its tck-id; all look at one story."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from agent.sparkplug.payload import Datatype
from tests.helpers.packets import CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE
from tests.helpers.sparkplug import broken_rules

if TYPE_CHECKING:
    from tests.helpers.packets import Packet
    from tests.sparkplug.conftest import Story

CLEAN, WILL, WILL_QOS_1, WILL_RETAIN = 0x02, 0x04, 0x08, 0x20
WILL_QOS = 0x18


def connects(story: Story) -> list[Packet]:
    """Return the CONNECT packets."""
    return [packet for packets in story.packets for packet in packets if packet.kind == CONNECT]


def is_v5(story: Story) -> bool:
    """Say whether the story is told over MQTT 5."""
    return connects(story)[0].body[6] == 5


def test_no_rule_that_a_host_can_see_is_broken(story: Story) -> None:
    """Over births, data, deaths, a rebirth, a cut and a new connection."""
    assert broken_rules(story.heard) == []


def test_principles_persistence_clean_session(story: Story) -> None:
    """Every CONNECT begins clean, and asks for no session that outlives it."""
    for packet in connects(story):
        assert packet.body[7] & CLEAN
        if is_v5(story):
            length = packet.body[10]
            assert 0x11 not in packet.body[11 : 11 + length : 5], "no session expiry: that is 0"
    assert len(connects(story)) == 2


def test_message_flow_edge_node_birth_publish_will_message(story: Story) -> None:
    """Every CONNECT has NDEATH as its will: QoS 1, not retained, bdSeq and nothing else, and no seq."""
    for number, packet in enumerate(connects(story)):
        flags = packet.body[7]
        assert flags & WILL
        assert flags & WILL_QOS == WILL_QOS_1
        assert not flags & WILL_RETAIN
        assert b"spBv1.0/plant1/NDEATH/insp1" in packet.body
        metric = b"\x0a\x05bdSeq\x18"
        assert metric in packet.body
        assert packet.body.endswith(b"\x20\x04\x58" + bytes([number])), "Int64, its value last, no field for seq behind"


def test_topics_nbirth_bdseq_increment(story: Story) -> None:
    """BdSeq rises with every CONNECT and stays the same in a rebirth."""
    assert [h.values["bdSeq"] for h in story.of("NBIRTH")] == [0, 0, 1]
    assert {h.metric("bdSeq").datatype for h in story.of("NBIRTH")} == {Datatype.INT64}


def test_payloads_nbirth_bdseq_repeat(story: Story) -> None:
    """A death names the connection that it ends: by the broker after the cut, by the node at the end."""
    found = [h.values["bdSeq"] for h in story.of("NDEATH")]
    assert found == ([0, 1, 1] if is_v5(story) else [0, 1])


def test_message_flow_edge_node_ncmd_subscribe(story: Story) -> None:
    """NCMD is subscribed to with QoS 1 before anything is published."""
    for packets in story.packets:
        kinds = [packet.kind for packet in packets]
        assert kinds[0] == CONNECT
        first = next(packet for packet in packets if packet.kind == SUBSCRIBE)
        assert first.subscription(v5=is_v5(story)) == ("spBv1.0/plant1/NCMD/insp1", 1)
        assert kinds.index(SUBSCRIBE) < kinds.index(PUBLISH)


def test_principles_birth_certificates_order(story: Story) -> None:
    """NBIRTH comes first, then the devices' births, then data; and so it is after a rebirth and a cut."""
    kinds = [h.kind for h in story.heard]
    for at, kind in enumerate(kinds):
        if kind == "NBIRTH":
            following = kinds[at + 1 :]
            first_data = next(n for n, other in enumerate(following) if not other.endswith("BIRTH"))
            assert first_data > 0, "a device's birth follows at once"
    assert kinds[0] == "NBIRTH"


def test_operational_behavior_data_publish_nbirth_values(story: Story) -> None:
    """A birth has the present values, or null where there is none yet."""
    first, _, last = story.of("NBIRTH")
    assert first.values["Health/Status"] == "ok"
    assert first.values["Model/default/Id"] is None
    assert last.values["Health/StatusCode"] == 0
    sides = story.of("DBIRTH", device="side")
    assert sides[0].values["Strip/Score"] is None
    assert sides[1].values["Strip/Score"] == 0.75


def test_topics_nbirth_rebirth_metric(story: Story) -> None:
    """NBIRTH has `Node Control/Rebirth`, Boolean, false, without an alias."""
    for h in story.of("NBIRTH"):
        metric = h.metric("Node Control/Rebirth")
        assert (metric.datatype, metric.value, metric.alias) == (Datatype.BOOLEAN, False, None)


def test_topics_nbirth_mqtt(story: Story) -> None:
    """All but NDEATH is QoS 0, and nothing is retained."""
    assert {(h.qos, h.retain) for h in story.heard if h.kind != "NDEATH"} == {(0, False)}
    assert {(h.qos, h.retain) for h in story.of("NDEATH")} == {(1, False)}


def test_payloads_sequence_num_incrementing(story: Story) -> None:
    """One count for the node and its devices, from 0 in NBIRTH to 255 and around."""
    alive = [h for h in story.heard if h.kind != "NDEATH"]
    assert {h.payload.seq for h in story.of("NBIRTH")} == {0}
    for before, after in pairwise(alive):
        assert after.kind == "NBIRTH" or after.payload.seq == (int(before.payload.seq or 0) + 1) % 256
    assert any(h.payload.seq == 255 for h in alive), "it went around"


def test_payloads_timestamp_in_utc(story: Story) -> None:
    """A payload has the time of its sending, a metric that of its coming about, also when it is sent late."""
    for h in story.heard:
        assert 1_700_000_000_000 < int(h.payload.timestamp_ms or 0) < 1 << 42
    first = story.of("DDATA", device="top")[0]
    assert {m.timestamp_ms for m in first.payload.metrics} == {int(str(first.values["Strip/Captured"])) + 1000}


def test_operational_behavior_data_commands_rebirth_action(story: Story) -> None:
    """Asked twice at once the node answers once: births of all, with the same bdSeq and without a death."""
    between = story.heard[story.rebirth_at : story.cut_at]
    births = [(h.kind, h.device) for h in between if h.kind.endswith("BIRTH")]
    assert births == [("NBIRTH", ""), ("DBIRTH", "top"), ("DBIRTH", "side"), ("DBIRTH", "top")]
    assert not [h for h in between if h.kind == "NDEATH"]


def test_a_rebirth_that_was_left_on_the_broker_is_passed_over(story: Story) -> None:
    """A retained command may be years old: nothing is done, on no connection and at no barrier."""
    assert len(story.of("NBIRTH")) == 3


def test_principles_rbe_recommended(story: Story) -> None:
    """The node tells what has changed, and not what has not."""
    news = [set(h.values) for h in story.of("NDATA")]
    assert {"Health/StripsPending", "Health/Status", "Health/StatusCode"} in news
    assert all("Agent/Version" not in names for names in news)


def test_live_strips_come_in_the_order_of_their_commit(story: Story) -> None:
    """Live ones in order, each once, all with one time: tck-id-operational-behavior-data-publish-dbirth-order."""
    live = [h for h in story.of("DDATA") if "Strip/Seq" in h.values and not h.payload.metrics[0].historical]
    assert [h.values["Strip/Seq"] for h in live] == story.live
    assert all(len({m.timestamp_ms for m in h.payload.metrics}) == 1 for h in live)


def test_store_and_forward(story: Story) -> None:
    """What waited comes after the births as history, with its own time, and nothing of it is lost."""
    history = [h for h in story.of("DDATA") if "Strip/Seq" in h.values and h.payload.metrics[0].historical]
    assert [h.values["Strip/Seq"] for h in history] == story.history + story.after_cut
    assert all(m.historical for h in history for m in h.payload.metrics)


def test_payloads_metric_datatype(story: Story) -> None:
    """Births and data alike have datatypes: without them two of three hosts read null."""
    assert all(m.datatype for h in story.heard for m in h.payload.metrics)
    kinds = {m.datatype for h in story.heard for m in h.payload.metrics}
    assert not kinds & {Datatype.UINT64, Datatype.UINT32}, "not every host can hold them"


def test_payloads_alias(story: Story) -> None:
    """There are none by default."""
    assert all(m.alias is None and m.name for h in story.heard for m in h.payload.metrics)


def test_operational_behavior_device_ddeath(story: Story) -> None:
    """A camera whose folder goes dies, and is born again when it comes; one that was never there is not born."""
    lives = [h.kind for h in story.heard[story.rebirth_at : story.cut_at] if h.device == "top" and h.kind[0] == "D"]
    assert [kind for kind in lives if kind != "DDATA"] == ["DBIRTH", "DDEATH", "DBIRTH"]
    first_side = next(n for n, h in enumerate(story.heard) if h.device == "side")
    assert story.heard[first_side].kind == "DBIRTH"
    assert first_side > 270


def test_operational_behavior_edge_node_intentional_disconnect(story: Story) -> None:
    """At a stop the node publishes NDEATH, then DISCONNECT; over MQTT 5 that has the broker send the will, too."""
    *_, death, goodbye = [packet for packet in story.packets[-1] if packet.kind in (PUBLISH, DISCONNECT)]
    assert (death.kind, death.topic) == (PUBLISH, "spBv1.0/plant1/NDEATH/insp1")
    assert goodbye.kind == DISCONNECT
    assert goodbye.body[:1] == (b"\x04" if is_v5(story) else b"")


def test_payloads_propertyset_quality_value(story: Story) -> None:
    """`Quality` is an Int32 of 0 or 192."""
    found = [p for h in story.heard for m in h.payload.metrics for p in m.properties if p.name == "Quality"]
    assert {p.datatype for p in found} == {Datatype.INT32}
    assert {p.value for p in found} == {0, 192}


def test_an_invalid_strip_is_never_taken_for_a_good_one(story: Story) -> None:
    """What was not judged is null and of bad quality; why stands beside it."""
    (invalid,) = [h for h in story.of("DDATA") if h.values.get("Strip/Verdict") == "invalid"]
    judged = {"Strip/Score", "Strip/AnomalyArea", "Strip/DefectCount", "Strip/PeakRow", "Strip/PeakCol"}
    judged.add("Strip/InferenceTime")
    for metric in invalid.payload.metrics:
        qualities = [p.value for p in metric.properties if p.name == "Quality"]
        assert (metric.value is None) == (metric.name in judged)
        assert qualities == ([0] if metric.name in judged else [])
    assert (invalid.values["Strip/VerdictCode"], invalid.values["Strip/Reason"]) == (2, "not_a_tiff")


def test_case_sensitivity_metric_names(story: Story) -> None:
    """No two names are the same without case, and none has a character that hosts cannot have in a tag's name."""
    for h in story.of("NBIRTH", "DBIRTH"):
        names = [str(m.name) for m in h.payload.metrics]
        assert len({name.lower() for name in names}) == len(names)
        assert all(part.replace(" ", "").isalnum() for name in names for part in name.split("/"))
