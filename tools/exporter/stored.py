"""Read what torch.save and safetensors wrote, running nothing of it; say what any other file is."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import io
import json
import pathlib
import types
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from agent.contract.file_kind import EXPORT_IT, tell_what_it_is
from tools.exporter.errors import ExportError, reason_of, short

if TYPE_CHECKING:
    from collections.abc import Iterable

NAMED = 4  # how many of the unknown classes a message names
LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
SAVE_WEIGHTS = "save model.state_dict() alone with torch.save, or use safetensors"


def read_stored(name: str, content: bytes) -> tuple[Any, dict[str, str]]:
    """Read a checkpoint's bytes: what it holds, and what a safetensors file says about itself.

    Raises ExportError with what the file really is.
    """
    is_zip = content[:2] == b"PK"  # as torch writes them; a name in there proves nothing, so they are opened below
    if not is_zip and (what := tell_what_it_is(content)) and EXPORT_IT not in what:
        raise ExportError(f"{name} is no checkpoint: {what}.")
    if name.endswith(".safetensors") or _begins_as_safetensors(content):
        return _read_safetensors(name, content)
    if is_zip:
        _refuse_other_archives(name, content)
    elif _is_onnx(content):
        raise ExportError(
            f"{name} is an ONNX file, exported already: look at it with `inspect`, give the checkpoint here."
        )
    return _read_torch(name, content), {}


def _harmless() -> list[Any]:
    """List what may lie beside weights: classes that do nothing but hold values, under every name they have had."""
    numbers = "?bhilqBHILQefdFDgG"
    paths: dict[str, Any] = {
        "PosixPath": pathlib.PurePosixPath, "PurePosixPath": pathlib.PurePosixPath,
        "WindowsPath": pathlib.PureWindowsPath, "PureWindowsPath": pathlib.PureWindowsPath,
    }  # fmt: skip
    functions: dict[str, Any] = {"_reconstruct": np.ones(1).__reduce__()[0], "scalar": np.float64(1).__reduce__()[0]}
    return [
        *((made, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for name, made in functions.items()),
        np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in numbers}, np.dtypes.StrDType, np.dtypes.BytesDType,
        *((kind, f"{place}.{name}") for place in ("pathlib", "pathlib._local") for name, kind in paths.items()),
        argparse.Namespace, types.SimpleNamespace, (_plain_dict, "collections.defaultdict"), collections.deque,
        *((kind, f"builtins.{kind.__name__}") for kind in (int, float, str, bool, list, dict, tuple, frozenset, slice)),
        dt.datetime, dt.date, dt.time, dt.timedelta, dt.timezone,
        torch.torch_version.TorchVersion,
    ]  # fmt: skip


def _plain_dict(_factory: Any = None) -> dict[Any, Any]:
    """Stand in for a defaultdict, which torch does not fill."""
    return {}


def _read_torch(name: str, content: bytes) -> Any:
    with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
        warnings.simplefilter("ignore")
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except Exception as error:  # a hostile or a broken file makes torch raise nearly anything
            unknown = _unknown_classes(content)
            if any(kind.startswith("torch.nn.modules.") for kind in unknown):
                raise ExportError(f"{name} holds a whole network, not its weights: {SAVE_WEIGHTS}.") from error
            if unknown:
                named = ", ".join(short(kind) for kind in unknown[:NAMED])
                more = " and more" if len(unknown) > NAMED else ""
                raise ExportError(
                    f"{name} does not hold weights only but also {named}{more}, which to load would run code: "
                    f"{SAVE_WEIGHTS}."
                ) from error
            raise ExportError(
                f"{name} is not a torch file that holds weights only ({_cause(error)}): {SAVE_WEIGHTS}."
            ) from error


def _unknown_classes(content: bytes) -> list[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content)))
    except Exception:  # noqa: BLE001 - only a help for the message: the file is refused already
        return []


def _cause(error: Exception) -> str:
    """Find the cause behind torch's advice to load the file unsafely."""
    text = str(error)
    cause = text.rpartition("WeightsUnpickler error:")[2] if "WeightsUnpickler error:" in text else text
    return reason_of(ValueError(cause.strip())) if cause.strip() else type(error).__name__


def _refuse_other_archives(name: str, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ExportError(
            f"{name} is damaged or cut off ({reason_of(error)}): copy it again, then compare the sizes."
        ) from error
    if _has(names, "constants.pkl"):
        raise ExportError(
            f"{name} is a TorchScript archive (torch.jit.save), a program and not weights: {SAVE_WEIGHTS}."
        )
    if _has(names, "archive_format") or _has(names, "serialized_exported_program.json"):
        raise ExportError(f"{name} is an archive of torch.export, a program and not weights: {SAVE_WEIGHTS}.")
    if not _has(names, "data.pkl"):
        raise ExportError(f"{name} is a zip archive, not a checkpoint: unpack it, then give the file inside.")


def _has(names: Iterable[str], last: str) -> bool:
    return any(name.rpartition("/")[2] == last for name in names)


def _is_onnx(content: bytes) -> bool:
    """Tell ONNX files, which begin with their version and their producer, from pickles."""
    return content[:1] == b"\x08" and content[2:3] in (b"\x12", b":", b"B")


def _begins_as_safetensors(content: bytes) -> bool:
    header = int.from_bytes(content[:8], "little")
    return 0 < header <= min(LONGEST_HEADER, len(content) - 8) and content[8:9] == b"{"


def _read_safetensors(name: str, content: bytes) -> tuple[Any, dict[str, str]]:
    try:
        import safetensors.torch  # noqa: PLC0415 - only users of such files need the library
    except ImportError as error:
        raise ExportError(f"{name} needs the library safetensors: pip install -e '.[export]'.") from error
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except Exception as error:  # the library raises its own kind and, for kinds of numbers it does not know, others
        raise ExportError(f"{name} is not a safetensors file ({reason_of(error)}): save it again.") from error
    return tensors, header.get("__metadata__") or {}
