"""The golden strip that travels inside a model file: a strip, and the heatmap that the model must give for it.

JSON around zlib around raw pixels, so that the box can check every limit before it inflates anything.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.contract.model import CHANNELS, MAX_GOLDEN_CHARACTERS
from agent.errors import Reason, Reject

_DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("uint8"), "float32": np.dtype("<f4")}
_HEATMAP = np.dtype("<f2")
FLOAT16_STEP = 2.0**-12  # the most a heatmap value can be off after a round trip through float16


@dataclass(frozen=True, slots=True)
class Golden:
    """A strip, (3, height, width) float32 grey levels 0..255, and its heatmap, (height, width) float32 0..1."""

    strip: np.ndarray[Any, np.dtype[np.float32]]
    heatmap: np.ndarray[Any, np.dtype[np.float32]]


def encode_golden(golden: Golden) -> str:
    """Give the metadata value `golden`: the strip as uint8 when all its values are whole, else as float32."""
    strip = np.asarray(golden.strip, np.float32)
    whole = bool(np.all(strip == np.rint(strip)) and strip.min() >= 0 and strip.max() <= 255)  # noqa: PLR2004 - 8 bits
    dtype = "uint8" if whole else "float32"
    return json.dumps(
        {
            "height": strip.shape[1],
            "width": strip.shape[2],
            "strip_dtype": dtype,
            "strip": _pack(strip.astype(_DTYPES[dtype])),
            "heatmap": _pack(np.asarray(golden.heatmap).astype(_HEATMAP)),
        }
    )


def decode_golden(text: str, height: int, width: int) -> Golden:
    """Read the metadata value `golden` of a model for strips of `height` x `width`.

    Raises `Reject(GOLDEN_DAMAGED)` when it is anything else than such a strip. Never inflates more than that needs.
    """
    if len(text) > MAX_GOLDEN_CHARACTERS:
        raise _damaged(f"is longer than {MAX_GOLDEN_CHARACTERS} characters")
    try:
        fields = json.loads(text)
        if (fields["height"], fields["width"]) != (height, width):
            raise _damaged(f"is {fields['height']} x {fields['width']}, the model takes {height} x {width}")
        strip = _unpack(fields["strip"], _DTYPES[fields["strip_dtype"]], (CHANNELS, height, width))
        heatmap = _unpack(fields["heatmap"], _HEATMAP, (height, width))
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error, zlib.error) as error:
        raise _damaged(f"cannot be read ({type(error).__name__}: {error})") from error
    if not (np.isfinite(strip).all() and np.isfinite(heatmap).all()):
        raise _damaged("holds values that are not finite")
    return Golden(strip, heatmap)


def _pack(pixels: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(pixels).tobytes(), 9)).decode()


def _unpack(text: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    wanted = int(np.prod(shape)) * dtype.itemsize
    inflater = zlib.decompressobj()
    raw = inflater.decompress(base64.b64decode(text, validate=True), wanted + 1)
    if len(raw) != wanted:
        raise ValueError(f"{len(raw)} bytes or more where {wanted} belong")
    return np.frombuffer(raw, dtype).reshape(shape).astype(np.float32)


def _damaged(detail: str) -> Reject:
    return Reject(Reason.GOLDEN_DAMAGED, f"the golden strip {detail}", model_fault=True)
