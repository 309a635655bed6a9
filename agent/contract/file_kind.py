"""What a file that was given as a model really is, told from its bytes: so that a refusal names the mistake.

One function for the box, for push, verify and inspect. Only the standard library, and never more than a few thousand
fields are looked at, whatever the file claims.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_BYTES = 4096
MOST_FIELDS = 100_000
EXPORT_IT = "export it first: tools/export.py export CHECKPOINT --out MODEL.onnx"

STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file it stands for: run `git lfs pull`"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", f"a torch checkpoint in its old format; {EXPORT_IT}"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras' weights; save the network as ONNX"),
    (b"GGUF", "a language model (GGUF)"),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"BZh", "compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ\x00", "compressed (xz): unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd): unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z): unpack it first"),
    (b"Rar!", "an archive (rar): unpack it first"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"II+\x00", "a TIFF image"),
    (b"MM\x00+", "a TIFF image"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"SQLite format 3\x00", "an SQLite database"),
)
INSIDE: tuple[tuple[slice, bytes, str], ...] = (
    (slice(257, 262), b"ustar", "an archive (tar): unpack it first"),
    (slice(4, 8), b"ORTM", "onnxruntime's own format (.ort), which depends on the processor: give the .onnx file"),
    (slice(4, 8), b"TFL3", "a TensorFlow Lite model: save the network as ONNX"),
)
TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page: a download that failed, or that needs a login"),
    (b"<html", "an HTML page: a download that failed, or that needs a login"),
    (b"<?xml", "an XML file"),
    (b"-----begin", "a key or certificate"),
)

LENGTH_DELIMITED = 2
MODEL_FIELDS = (*range(1, 9), 14, 20, 25, 26)  # field numbers of ModelProto in onnx.proto
GRAPH, INITIALIZER, EXTERNAL_DATA, DATA_LOCATION = 7, 5, 13, 14  # of the model, the graph, the tensor


def tell_what_it_is(content: bytes) -> str:
    """Say what is wrong with the file as a whole: what it is instead of ONNX, or that it is not all there.

    Returns "" for anything that may be a model.
    """
    head = content[:HEAD_BYTES]
    if not content:
        return "it is empty"
    if not head.strip(b"\x00") and not content.strip(b"\x00"):
        return "it is nothing but zeros, as after an upload that broke off"
    if known := _known_format(content, head):
        return f"it is {known}"
    if text := _text(head):
        return f"it is {text}"
    return _incomplete(content)


def _known_format(content: bytes, head: bytes) -> str:
    for start, what in STARTS:
        if head.startswith(start):
            return what
    for place, mark, what in INSIDE:
        if head[place] == mark:
            return what
    if head.startswith(b"PK\x03\x04"):
        return _zip(content)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and content.endswith(b"."):
        return f"a Python pickle, perhaps a checkpoint; {EXPORT_IT}"
    header_bytes = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= header_bytes <= len(content) - 8:  # noqa: PLR2004 - `{}`
        return f"weights alone (safetensors); {EXPORT_IT}"
    return ""


def _zip(content: bytes) -> str:
    """Tell torch's archives from others by the names in them: torch writes data.pkl first, code of TorchScript last."""
    ends = content[:HEAD_BYTES] + content[-16 * HEAD_BYTES :]
    if b"data.pkl" not in ends:
        return "an archive (zip): unpack it first"
    if b"/code/" in ends:
        return "a TorchScript archive: save the network's state_dict, then export that"
    return f"a torch checkpoint (.pth); {EXPORT_IT}"


def _text(head: bytes) -> str:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in TEXTS:
        if start.startswith(beginning):
            return what
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character may be cut in two at the end
            return ""
        text = head[: error.start].decode()
    if not all(character.isprintable() or character in "\t\r\n" for character in text):
        return ""
    return "JSON text" if start[:1] in (b"{", b"[") else f"text, which begins with {text[:40]!r}"


def _incomplete(content: bytes) -> str:
    """Look at the outermost fields of what may be ONNX, and at where its weights are."""
    size, graphs = len(content), 0
    for number, kind, start, stop in islice(fields_of(content, 0, size), MOST_FIELDS):
        if stop > size and content[:1] == b"\x08" and number in MODEL_FIELDS:
            return f"it is cut off: {size} bytes are there, {stop} or more belong to it"
        if (number == 0 or stop > size) and graphs:
            return f"behind the model, from byte {start}, stands something that does not belong to it"
        if number == GRAPH and kind == LENGTH_DELIMITED:
            graphs += 1
            if (place := _external_data(content, start, stop)) is not None:
                return (
                    f"it keeps weights in another file ({place}; external data), which is never read; put all into one "
                    "file: onnx.save_model(onnx.load(FILE), FILE)"
                )
    return ""


def _external_data(content: bytes, start: int, stop: int) -> str | None:
    """Return where the first of the graph's weights lies that is in another file; None when all are in this one."""
    for number, kind, tensor, tensor_stop in islice(fields_of(content, start, stop), MOST_FIELDS):
        if number != INITIALIZER or kind != LENGTH_DELIMITED:
            continue
        fields = list(islice(fields_of(content, tensor, tensor_stop), 64))
        if any(number == DATA_LOCATION and value == 1 for number, kind, value, _ in fields if kind == 0):
            entries = [content[begin:end] for number, kind, begin, end in fields if number == EXTERNAL_DATA and kind]
            places = [entry.partition(b"\x12")[2][1:] for entry in entries if b"location" in entry]
            return repr(places[0][:80].decode(errors="replace")) if places else "it does not say which"
    return None


def fields_of(content: bytes, position: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a protobuf message: number, wire type, and begin and end of its content.

    Of a whole number the begin is its value. Ends with number 0 at what is no field; an end may lie behind `stop`.
    """
    stop = min(stop, len(content))  # what a length claims may lie behind the file
    while position < stop:
        place = position
        tag, position = varint(content, position, stop)
        number, kind = tag >> 3, tag & 7
        if number == 0 or kind not in (0, 1, LENGTH_DELIMITED, 5):
            yield 0, kind, place, place
            return
        if kind == 0:
            value, position = varint(content, position, stop)
            yield number, kind, value, position
        elif kind == LENGTH_DELIMITED:
            length, position = varint(content, position, stop)
            yield number, kind, position, position + length
            position += length
        else:
            length = 8 if kind == 1 else 4
            yield number, kind, position, position + length
            position += length


def varint(content: bytes, position: int, stop: int) -> tuple[int, int]:
    """Return the number at `position` and what follows it; 0 where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= stop:
            return 0, stop
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no flag
            return value, position
    return 0, stop
