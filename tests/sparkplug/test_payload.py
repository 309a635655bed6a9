"""The payload's encoder and decoder: what goes out comes back, what comes in cannot hurt."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.sparkplug.payload import MAX_METRICS, Datatype, MalformedError, Metric, Payload, Property, decode, encode

SIGNED = {Datatype.INT8: 8, Datatype.INT16: 16, Datatype.INT32: 32, Datatype.INT64: 64}
UNSIGNED = {Datatype.UINT8: 8, Datatype.UINT16: 16, Datatype.UINT32: 32, Datatype.UINT64: 64, Datatype.DATETIME: 64}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
whole_64 = st.integers(0, (1 << 64) - 1)


def values(datatype: Datatype) -> st.SearchStrategy[bool | int | float | str | bytes]:
    """Everything that a datatype can hold."""
    if datatype in SIGNED:
        half = 1 << SIGNED[datatype] - 1
        return st.integers(-half, half - 1)
    if datatype in UNSIGNED:
        return st.integers(0, (1 << UNSIGNED[datatype]) - 1)
    if datatype in (Datatype.FLOAT, Datatype.DOUBLE):
        return st.floats(allow_nan=False, width=32 if datatype is Datatype.FLOAT else 64)
    if datatype is Datatype.BOOLEAN:
        return st.booleans()
    return st.binary(max_size=40) if datatype is Datatype.BYTES else texts


properties = st.sampled_from([d for d in Datatype if d is not Datatype.BYTES]).flatmap(
    lambda d: st.builds(Property, texts, st.just(d), values(d))
)
metrics = st.sampled_from(list(Datatype)).flatmap(
    lambda d: st.builds(
        Metric,
        name=st.none() | texts,
        datatype=st.just(d),
        value=st.none() | values(d),
        timestamp_ms=st.none() | whole_64,
        alias=st.none() | whole_64,
        historical=st.booleans(),
        properties=st.lists(properties, max_size=3).map(tuple),
    )
)
payloads = st.builds(Payload, st.none() | whole_64, st.lists(metrics, max_size=5).map(tuple), st.none() | whole_64)


@settings(max_examples=40, deadline=None)
@given(payloads)
@example(Payload(0, (Metric("", Datatype.INT64, -1, 0), Metric(None, None, None, None, alias=0)), 0))
def test_what_is_encoded_comes_back(payload: Payload) -> None:
    """Every value of every scalar datatype, with properties, survives the way there and back."""
    assert decode(encode(payload)) == payload


@given(st.binary(max_size=200))
def test_bytes_from_anybody_are_read_or_refused(data: bytes) -> None:
    """Whatever comes in is a payload or MalformedError, never anything else."""
    with contextlib.suppress(MalformedError):
        decode(data)


@settings(max_examples=25, deadline=None)
@given(payloads, st.data())
def test_a_payload_that_was_damaged_is_read_or_refused(payload: Payload, data: st.DataObject) -> None:
    """One byte of a good payload may become any other."""
    damaged = bytearray(encode(payload) or b"\0")
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedError):
        decode(bytes(damaged))


@pytest.mark.parametrize(
    ("what", "data"),
    {
        "a text that is cut": b"\x12\x05abc",
        "a length of 2^63": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        "a number without an end": b"\x08" + b"\xff" * 11,
        "a group, which nobody writes any more": b"\x0b\x0c",
        "a name that is no UTF-8": b"\x12\x03\x0a\x01\xff",
        "too many metrics": b"\x12\x00" * (MAX_METRICS + 1),
    }.items(),
)
def test_what_is_no_payload_is_refused(what: str, data: bytes) -> None:
    """Cut, endless or oversized: refused, and no memory is set aside for what a length promises."""
    with pytest.raises(MalformedError):
        decode(data)
    assert what


# Made on 2026-11-29 by others: Eclipse Tahu's encoder for JavaScript (sparkplug-payload 1.0.3) and pysparkplug 0.6.1.
BY_TAHU = bytes.fromhex(
    "08c4cea4ada03412210a144e6f646520436f6e74726f6c2f5265626972746818c4cea4ada034200b700112260a1253657474696e67732f"
    "5468726573686f6c6418c4cea4ada034200a69000000000000d03f12260a0d53657474696e67732f5465787418c4cea4ada034200c7a0c"
    "5072c3bc666c696e6720c39f121f0a0e53657474696e67732f42656c6f7718c4cea4ada034200350fbffffff0f12220a0c53657474696e"
    "67732f46617218c4cea4ada034200458809ce8afedffffffff01"
)
BY_PYSPARKPLUG = bytes.fromhex(
    "08c4cea4ada034121f0a144e6f646520436f6e74726f6c2f5265626972746818c4cea4ada034700112240a1253657474696e67732f5468"
    "726573686f6c6418c4cea4ada03469000000000000d03f12240a0d53657474696e67732f5465787418c4cea4ada0347a0c5072c3bc666c"
    "696e6720c39f121d0a0e53657474696e67732f42656c6f7718c4cea4ada03450fbffffff0f12200a0c53657474696e67732f46617218c4"
    "cea4ada03458809ce8afedffffffff01"
)


def test_what_tahu_encodes_is_understood() -> None:
    """A command as Eclipse Tahu's library writes it."""
    found = decode(BY_TAHU)
    assert found.timestamp_ms == 1795391301444
    assert {metric.name: (metric.datatype, metric.value) for metric in found.metrics} == {
        "Node Control/Rebirth": (Datatype.BOOLEAN, True),
        "Settings/Threshold": (Datatype.DOUBLE, 0.25),
        "Settings/Text": (Datatype.STRING, "Prüfling ß"),
        "Settings/Below": (Datatype.INT32, -5),
        "Settings/Far": (Datatype.INT64, -5_000_000_000),
    }


def test_what_pysparkplug_encodes_is_understood() -> None:
    """A command without datatypes, as the specification wants it: whole numbers are as they are on the wire."""
    found = {metric.name: (metric.datatype, metric.value) for metric in decode(BY_PYSPARKPLUG).metrics}
    assert found == {
        "Node Control/Rebirth": (None, True),
        "Settings/Threshold": (None, 0.25),
        "Settings/Text": (None, "Prüfling ß"),
        "Settings/Below": (None, (1 << 32) - 5),
        "Settings/Far": (None, (1 << 64) - 5_000_000_000),
    }


def test_what_is_not_understood_is_passed_over() -> None:
    """A newer sender's fields, and a datatype nobody knows, cost only themselves."""
    newer = b"\xf8\x01\x07" + b"\x12\x0a\x0a\x01a\x20\x63\x50\x07\xf8\x01\x07"
    assert decode(newer).metrics == (Metric("a", None, 7, None),)
