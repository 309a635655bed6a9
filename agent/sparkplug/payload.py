"""The payload of Sparkplug B 3.0 (chapter 6): records to bytes and back, by hand. docs/decisions/017 says why.

The wire format is that of Protocol Buffers: fields, each a number and one of four ways to write a value. Of the schema
everything is here that this agent writes or understands: metrics with a scalar value and properties with one. What
else others send (data sets, templates, arrays, metadata) is passed over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Scalar = bool | int | float | str | bytes

MAX_METRICS = 1000  # of a payload that comes in
_64_BITS = (1 << 64) - 1
_LONGEST_VARINT = 10  # bytes

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


class Datatype(IntEnum):
    """The scalar ones, by their numbers on the wire."""

    INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEXT, UUID = (
        range(1, 16)
    )
    BYTES = 17


_KNOWN = frozenset(Datatype)
_SIGNED_BITS = {Datatype.INT8: 32, Datatype.INT16: 32, Datatype.INT32: 32, Datatype.INT64: 64}
_INT = {Datatype.INT8, Datatype.INT16, Datatype.INT32, Datatype.UINT8, Datatype.UINT16, Datatype.UINT32}
_LONG = {Datatype.INT64, Datatype.UINT64, Datatype.DATETIME}


@dataclass(frozen=True, slots=True)
class _ValueFields:
    """The numbers of the fields for each kind of value; a metric's and a property's differ."""

    int_: int
    long: int
    float_: int
    double: int
    boolean: int
    string: int
    raw: int


_OF_METRIC = _ValueFields(10, 11, 12, 13, 14, 15, 16)
_OF_PROPERTY = _ValueFields(3, 4, 5, 6, 7, 8, 0)


class MalformedError(ValueError):
    """These bytes are no payload."""


@dataclass(frozen=True, slots=True)
class Property:
    """One of a metric's properties; its value is not null."""

    name: str
    datatype: Datatype
    value: Scalar


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. In what others send `name`, `datatype` and `timestamp_ms` may be missing; `value` None is null."""

    name: str | None
    datatype: Datatype | None
    value: Scalar | None
    timestamp_ms: int | None  # Unix milliseconds
    alias: int | None = None
    historical: bool = False
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class Payload:
    """One message; `seq` is missing in NDEATH and in commands."""

    timestamp_ms: int | None  # Unix milliseconds
    metrics: tuple[Metric, ...]
    seq: int | None = None


def encode(payload: Payload) -> bytes:
    """Write a payload. Each metric that has a value has its datatype."""
    return (
        _number(1, payload.timestamp_ms)
        + b"".join(_bytes(2, _encode_metric(metric)) for metric in payload.metrics)
        + _number(3, payload.seq)
    )


def _encode_metric(metric: Metric) -> bytes:
    out = b"" if metric.name is None else _bytes(1, metric.name.encode())
    out += _number(2, metric.alias) + _number(3, metric.timestamp_ms) + _number(4, metric.datatype)
    out += _number(5, 1 if metric.historical else None) + _number(7, 1 if metric.value is None else None)
    if metric.properties:
        out += _bytes(9, _encode_properties(metric.properties))
    if metric.value is not None and metric.datatype is not None:
        out += _encode_value(metric.datatype, metric.value, _OF_METRIC)
    return out


def _encode_properties(properties: Sequence[Property]) -> bytes:
    values = (_number(1, p.datatype) + _encode_value(p.datatype, p.value, _OF_PROPERTY) for p in properties)
    return b"".join(_bytes(1, p.name.encode()) for p in properties) + b"".join(_bytes(2, value) for value in values)


def _encode_value(datatype: Datatype, value: Scalar, fields: _ValueFields) -> bytes:
    if isinstance(value, str | bytes):
        return _bytes(fields.string, value.encode()) if isinstance(value, str) else _bytes(fields.raw, value)
    if datatype in _INT:
        return _number(fields.int_, int(value) & 0xFFFFFFFF)  # two's complement in an unsigned field
    if datatype in _LONG:
        return _number(fields.long, int(value) & _64_BITS)
    if datatype is Datatype.FLOAT:
        return _varint(fields.float_ << 3 | _FIXED_32) + struct.pack("<f", value)
    if datatype is Datatype.DOUBLE:
        return _varint(fields.double << 3 | _FIXED_64) + struct.pack("<d", value)
    return _number(fields.boolean, int(value))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, number: int | None) -> bytes:
    return b"" if number is None else _varint(field << 3 | _VARINT) + _varint(number)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def decode(data: bytes) -> Payload:
    """Read a payload. Raises MalformedError; takes memory and time in proportion to the length of `data`."""
    timestamp_ms = seq = None
    metrics: list[Metric] = []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, int):
            timestamp_ms = value
        elif field == 3 and isinstance(value, int):  # noqa: PLR2004 - the schema's number, here and below
            seq = value
        elif field == 2 and isinstance(value, bytes):  # noqa: PLR2004
            if len(metrics) == MAX_METRICS:
                raise MalformedError(f"more than {MAX_METRICS} metrics")
            metrics.append(_decode_metric(value))
    return Payload(timestamp_ms, tuple(metrics), seq)


def _decode_metric(data: bytes) -> Metric:
    fields = dict(_fields(data))  # of a field that comes twice the last one counts
    name, properties = fields.get(1), fields.get(9)
    datatype = _datatype(fields.get(4))
    return Metric(
        name=_text(name) if isinstance(name, bytes) else None,
        datatype=datatype,
        value=None if fields.get(7) else _decode_value(fields, datatype, _OF_METRIC),
        timestamp_ms=_whole(fields.get(3)),
        alias=_whole(fields.get(2)),
        historical=bool(fields.get(5)),
        properties=_decode_properties(properties) if isinstance(properties, bytes) else (),
    )


def _decode_properties(data: bytes) -> tuple[Property, ...]:
    names, values = [], []
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            names.append(_text(value))
        elif field == 2 and isinstance(value, bytes):  # noqa: PLR2004
            values.append(dict(_fields(value)))
    found = []
    for name, fields in zip(names, values, strict=False):
        datatype = _datatype(fields.get(1))
        decoded = None if fields.get(2) else _decode_value(fields, datatype, _OF_PROPERTY)
        if datatype is not None and decoded is not None:
            found.append(Property(name, datatype, decoded))
    return tuple(found)


def _decode_value(fields: dict[int, int | bytes | float], datatype: Datatype | None, at: _ValueFields) -> Scalar | None:
    for field in (at.double, at.float_):
        if isinstance(fields.get(field), float):
            return fields[field]
    for field, bits in ((at.int_, 32), (at.long, 64)):
        number = fields.get(field)
        if isinstance(number, int):
            number &= (1 << bits) - 1
            signed = datatype is not None and _SIGNED_BITS.get(datatype) == bits
            return number - (1 << bits) if signed and number >> bits - 1 else number
    boolean, string, raw = fields.get(at.boolean), fields.get(at.string), fields.get(at.raw)
    if isinstance(boolean, int):
        return bool(boolean)
    if isinstance(string, bytes):
        return _text(string)
    return raw if isinstance(raw, bytes) else None


def _datatype(number: object) -> Datatype | None:
    return Datatype(number) if isinstance(number, int) and number in _KNOWN else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"a text is not UTF-8: {error}") from error


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes | float]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        field, way = key >> 3, key & 7
        if way == _VARINT:
            number, at = _read_varint(data, at)
            yield field, number
            continue
        if way == _BYTES:
            length, at = _read_varint(data, at)
        elif way in (_FIXED_64, _FIXED_32):
            length = 8 if way == _FIXED_64 else 4
        else:
            raise MalformedError(f"field {field} is written in an unknown way ({way})")
        if length > len(data) - at:
            raise MalformedError(f"field {field} ends {length - len(data) + at} bytes behind the end")
        value = data[at : at + length]
        at += length
        if way == _BYTES:
            yield field, value
        else:
            yield field, float(struct.unpack("<d" if way == _FIXED_64 else "<f", value)[0])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for position, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        number |= (byte & 127) << 7 * position
        if byte < 128:  # noqa: PLR2004
            return number & _64_BITS, at + position + 1
    raise MalformedError(f"a number at byte {at} has no end")
