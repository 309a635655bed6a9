"""Read checkpoints: the project's own, bare state dicts, safetensors. Never executes what a file contains."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tools.exporter.channels import Channels, check_count, read_channels
from tools.exporter.errors import ExportError
from tools.exporter.networks import UNet, is_second_family

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PATCH_SIDE = 128
IMAGE_SIZES = {"strip": (976, 176), "square": (384, 384)}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights and what the file says about them; what it does not say is None."""

    state: Mapping[str, torch.Tensor]
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
    digest = hashlib.sha256(content).hexdigest()
    loaded = _load_safetensors(path, content) if path.suffix == ".safetensors" else _load_torch(path)
    if not isinstance(loaded, dict):
        raise ExportError(
            f"{path.name} holds a {type(loaded).__name__}, not weights: save model.state_dict() and export that."
        )
    state = loaded.get("model_state_dict", loaded.get("state_dict", loaded))
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        keys = ", ".join(sorted(str(key) for key in loaded)[:6])
        raise ExportError(
            f"{path.name} has no weights under model_state_dict (it has {keys}): save model.state_dict()."
        )
    if not state:
        raise ExportError(f"{path.name} holds no weights at all: save model.state_dict() after training.")
    prefix = "module."  # torch's DataParallel puts it before every key
    if all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    size = (loaded.get("img_height"), loaded.get("img_width"))
    known = all(isinstance(side, int) for side in size)
    image_type = loaded.get("image_type")
    image_type = image_type if isinstance(image_type, str) else None
    stated = loaded.get("input_channels")
    channels = None if stated is None else read_channels(stated, "The checkpoint")
    return Checkpoint(state, digest, size if known else None, image_type, channels)  # type: ignore[arg-type]  # `known` says so


def _load_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ExportError(
            f"{path.name} is not a torch file that holds weights only ({_first_line(error)}): "
            "save model.state_dict() with torch.save, or use safetensors."
        ) from error


def _load_safetensors(path: Path, content: bytes) -> Any:
    import safetensors.torch  # noqa: PLC0415 - only users of such files need the library

    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ExportError(f"{path.name} is not a safetensors file ({_first_line(error)}): save it again.") from error


def build_known_network(checkpoint: Checkpoint, channels: Channels | None) -> UNet:
    """Build the family that the keys tell and load the weights; ExportError names what does not fit."""
    state = checkpoint.state
    first = state.get("encoder.block1.0.weight")
    if first is None or first.ndim != 4:  # noqa: PLR2004 - a convolution's weights
        keys = ", ".join(list(state)[:3])
        raise ExportError(
            f"The keys of this checkpoint ({keys}, ...) are of no network that is built in: "
            "give the file and class of yours with --network FILE.py:Class."
        )
    inputs = len(check_count(channels, int(first.shape[1])))
    network = UNet(int(first.shape[0]), squeeze=is_second_family(state), inputs=inputs)
    load_weights(network, state)
    return network


def load_weights(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Load the weights and switch to evaluation; ExportError names missing and unexpected keys and wrong shapes."""
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in wanted]
    wrong = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    problems = [
        f"{what}: {', '.join(keys[:4])}{' and more' if len(keys) > 4 else ''}"  # noqa: PLR2004 - enough to see it
        for what, keys in (("missing keys", missing), ("unexpected keys", unexpected), ("wrong shapes", wrong))
        if keys
    ]
    if problems:
        raise ExportError(
            f"The weights do not fit the network ({'; '.join(problems)}): "
            "export the checkpoint with the class it was trained with (--network FILE.py:Class)."
        )
    network.load_state_dict(dict(state), strict=False)
    network.float().eval()
    bad = [key for key, value in network.state_dict().items() if not torch.isfinite(value.float()).all()]
    if bad:
        raise ExportError(
            f"The weights {', '.join(bad[:4])} are not finite: the training failed, export another epoch."
        )


def image_size_of(checkpoint: Checkpoint) -> tuple[int, int]:
    """Guess the strip's (height, width) where it was not given: square when the checkpoint says so, else strip."""
    return IMAGE_SIZES["square" if checkpoint.image_type == "square" else "strip"]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
