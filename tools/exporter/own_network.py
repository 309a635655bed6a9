"""A network of the user's own: a class in a Python file, which is imported and so runs."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import torch

from tools.exporter.errors import ExportError, reason_of


def load_class(network: str, arguments: str | None) -> torch.nn.Module:
    """Import FILE.py, which runs it, and build its class; ExportError in one sentence whatever that code raises."""
    file, _, name = network.rpartition(":")
    path = Path(file)
    if not file or not path.is_file():
        raise ExportError(f"--network {network}: there is no file {file or network!r}, give FILE.py:Class.")
    specification = importlib.util.spec_from_file_location("users_network", path)
    if specification is None or specification.loader is None:
        raise ExportError(f"--network {network}: {path.name} is not a Python file, give FILE.py:Class.")
    module = importlib.util.module_from_spec(specification)
    sys.modules["users_network"] = module
    sys.path.insert(0, str(path.parent.resolve()))  # what the file imports lies beside it
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # it is the user's code: anything can happen
        raise ExportError(
            f"{path.name} cannot be imported ({type(error).__name__}: {reason_of(error)}): mend it first."
        ) from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.nn.Module)):
        classes = [
            key
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, torch.nn.Module) and value.__module__ == "users_network"
        ]
        raise ExportError(f"{path.name} has no network class {name!r}: it has {', '.join(classes) or 'none'}.")
    try:
        built: torch.nn.Module = kind(**_arguments(arguments))
    except (Exception, SystemExit) as error:  # the same
        raise ExportError(
            f"{name} cannot be built ({type(error).__name__}: {reason_of(error)}): give --network-args "
            "'{\"name\": value}'."
        ) from error
    return built


def _arguments(arguments: str | None) -> dict[str, Any]:
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError as error:
        raise ExportError(f"--network-args is not JSON ({error}): write it as '{{\"width\": 64}}'.") from error
    if not isinstance(parsed, dict):
        raise ExportError("--network-args must be a JSON object: write it as '{\"width\": 64}'.")
    return parsed
