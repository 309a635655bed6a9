"""Checkpoints: the weights, and what the file says about them. Never executes what a file contains."""

from __future__ import annotations

import argparse
import hashlib
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tools.exporter.channels import Channels, check_count, read_channels
from tools.exporter.errors import ExportError, short
from tools.exporter.networks import UNet, is_second_family
from tools.exporter.stored import read_stored
from tools.exporter.weights import choose_weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATCH_SIDE = 128
IMAGE_SIZES = {"strip": (976, 176), "square": (384, 384)}
DEEPEST = 16  # dicts in dicts; a file can hold one that holds itself
MOST_WEIGHTS = 2**29  # numbers: an ONNX file ends at 2 GiB
NAMED = 4
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All tensors of a file and what it says about them; what it does not say is None."""

    name: str
    tensors: Mapping[tuple[str, ...], torch.Tensor] = field(repr=False)  # by the keys of the dicts around them
    sha256: str
    patch_size: tuple[int, int] | None
    image_type: str | None
    input_channels: Channels | None  # what the network takes, in order


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; raises ExportError when it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"Cannot read the checkpoint {path} ({error.strerror}): give the path of a file.") from error
    loaded, stated = read_stored(path.name, content)
    if not isinstance(loaded, Mapping):
        raise ExportError(
            f"{path.name} holds a {type(loaded).__name__}, not weights: save model.state_dict() and export that."
        )
    leaves = list(_leaves(loaded, ()))
    tensors = {place: value for place, value in leaves if isinstance(value, torch.Tensor)}
    if not any(tensor.ndim for tensor in tensors.values()):
        keys = ", ".join(sorted(short(key) for key in loaded)[:6]) or "nothing"
        raise ExportError(
            f"{path.name} holds no weights at all (it has {keys}): save model.state_dict() after training."
        )
    said: dict[tuple[str, ...], Any] = {(key,): value for key, value in stated.items()} | dict(leaves)
    size = (_side(said, "img_height"), _side(said, "img_width"))
    image_type, channels = _said(said, "image_type"), _said(said, "input_channels")
    return Checkpoint(
        path.name,
        tensors,
        hashlib.sha256(content).hexdigest(),
        size if all(size) else None,  # type: ignore[arg-type]  # that is what `all` says
        image_type if isinstance(image_type, str) else None,
        # A bare number only counts them, as many trainers' settings do; the weights say that themselves.
        None if channels is None or isinstance(channels, int) else read_channels(channels, "The checkpoint"),
    )


def _leaves(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Go through dicts in dicts, namespaces, and the tensors of lists; arrays become tensors."""
    if isinstance(value, argparse.Namespace | types.SimpleNamespace):
        value = vars(value)
    if len(place) > DEEPEST:
        raise ExportError(f"The file holds dicts in dicts, deeper than {DEEPEST}: save model.state_dict() alone.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
        return
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for number, inner in enumerate(value):
            if isinstance(inner, torch.Tensor):
                yield (*place, str(number)), inner
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(np.array(value, value.dtype.newbyteorder("=")))
    yield place, value


def _said(said: Mapping[tuple[str, ...], Any], name: str) -> Any:
    """Find what the file says under a name: outermost, else wherever it stands; None when it does not say."""
    places = [place for place, value in said.items() if place[-1] == name and value is not None]
    if (name,) in places:
        return said[name,]
    values = [said[place] for place in places]
    if any(str(value) != str(values[0]) for value in values):
        where = ", ".join(short(".".join(place)) for place in places[:NAMED])
        raise ExportError(f"The checkpoint says different things as {name} ({where}): leave one of them in the file.")
    return values[0] if values else None


def _side(said: Mapping[tuple[str, ...], Any], name: str) -> int | None:
    """Read a side of the patch in pixels: a whole number of any kind, or its text."""
    value = _said(said, name)
    if value is None:
        return None
    try:
        side = int(value)
        exact = side == float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        side, exact = 0, False
    if side < 1 or not exact:
        raise ExportError(
            f"The checkpoint states {name} as {short(value, 40)}, not a number of pixels: take it out of the file and "
            "give --patch HEIGHT WIDTH."
        )
    return side


def build_known_network(checkpoint: Checkpoint, channels: Channels | None, asked: str | None = None) -> UNet:
    """Build the family that the keys tell and load the weights; ExportError names what does not fit.

    `asked` says which weights, where there are several.
    """
    families = [frozenset(_empty_network(8, squeeze=squeeze).state_dict()) for squeeze in (False, True)]
    state = choose_weights(checkpoint.tensors, families, asked, checkpoint.name)
    first = state.get("encoder.block1.0.weight", torch.empty(_any_side(state), 3, 3, 3, device="meta"))
    if not state or first.ndim != 4 or not first.numel():  # noqa: PLR2004 - a convolution's weights
        keys = ", ".join(short(".".join(place)) for place in list(checkpoint.tensors)[:3])
        raise ExportError(
            f"The keys of this checkpoint ({keys}, ...) are of no network that is built in: "
            "give the file and class of yours with --network FILE.py:Class."
        )
    width, inputs, squeeze = (
        int(first.shape[0]),
        len(check_count(channels, int(first.shape[1]))),
        is_second_family(state),
    )
    _check_fits(_empty_network(width, squeeze=squeeze, inputs=inputs), state)
    network = UNet(width, squeeze=squeeze, inputs=inputs)
    _load(network, state)
    return network


def _any_side(state: Mapping[str, torch.Tensor]) -> int:
    """Guess the width of a network whose first weights are missing, so that what is missing can be named."""
    biases = [tensor for key, tensor in state.items() if key.startswith("encoder.block1.") and tensor.ndim == 1]
    return len(biases[0]) if biases else 8


def load_weights(network: torch.nn.Module, checkpoint: Checkpoint, asked: str | None = None) -> None:
    """Load the weights and switch to evaluation; ExportError names missing and unexpected keys and wrong shapes."""
    wanted = frozenset(network.state_dict())
    state = choose_weights(checkpoint.tensors, [wanted], asked, checkpoint.name) if wanted else {}
    _check_fits(network, state or {".".join(place): tensor for place, tensor in checkpoint.tensors.items()})
    _load(network, state)


def _empty_network(width: int, *, squeeze: bool, inputs: int = 3) -> UNet:
    """Give the network without memory for its weights: how large it is said to be can be anything."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of widths below 8, whose gates have no weights
        return UNet(width, squeeze=squeeze, inputs=inputs)


def _check_fits(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    both = [key for key in wanted if key in state]
    wrong = [
        f"{short(key)} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in both
        if state[key].shape != wanted[key].shape
    ]
    kinds = [f"{short(key)} is {kind}" for key in both if (kind := _unusable(state[key], wanted[key]))]
    problems = [
        f"{what}: {', '.join(short(key, 160) for key in keys[:NAMED])}{' and more' if len(keys) > NAMED else ''}"
        for what, keys in (
            ("missing keys", missing),
            ("unexpected keys", unexpected),
            ("wrong shapes", wrong),
            ("no such numbers", kinds),
        )
        if keys
    ]
    if problems:
        raise ExportError(
            f"The weights do not fit the network ({'; '.join(problems)}): "
            "export the checkpoint with the class it was trained with (--network FILE.py:Class)."
        )
    if sum(tensor.numel() for tensor in wanted.values()) > MOST_WEIGHTS:
        raise ExportError("The network has more weights than an ONNX file can hold (2 GiB): train a narrower one.")


def _unusable(tensor: torch.Tensor, wanted: torch.Tensor) -> str:
    """Say why a stored tensor cannot be a weight; nothing when it can. Whole numbers for floats are quantised ones."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.device.type == "meta":
        return "stored without its values"
    usable = FLOATS if wanted.is_floating_point() else (wanted.dtype,)
    return "" if tensor.dtype in usable else str(tensor.dtype).removeprefix("torch.")


def _load(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    network.load_state_dict(dict(state), strict=False)
    network.float().eval()
    bad = [key for key, value in network.state_dict().items() if not torch.isfinite(value.float()).all()]
    if bad:
        raise ExportError(
            f"The weights {', '.join(short(key) for key in bad[:NAMED])} are not finite: the training failed, or they "
            "are too large for 32 bits: export another epoch."
        )


def image_size_of(checkpoint: Checkpoint) -> tuple[int, int]:
    """Guess the strip's (height, width) where it was not given: square when the checkpoint says so, else strip."""
    return IMAGE_SIZES["square" if checkpoint.image_type == "square" else "strip"]
