"""Secrets come from files or from systemd's credentials, never out of the configuration itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config.file import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SECRET_BYTES = 65535  # the longest password that MQTT can carry


def secret_path(path: Path, environ: Mapping[str, str]) -> Path:
    """Find a secret's file: a bare name is looked up among systemd's credentials first."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and path.name == str(path) and (Path(folder) / path).is_file():
        return Path(folder) / path
    return path


def read_secret(path: Path, environ: Mapping[str, str]) -> str:
    """Read a password from a file or a systemd credential, without its newline at the end.

    Raises ConfigError; its text names the file and never shows what is in it.
    """
    file_path = secret_path(path, environ)
    try:
        # Without O_NONBLOCK opening a FIFO would wait for ever.
        descriptor = os.open(file_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError([Problem(None, str(file_path), "is not a regular file")])
            raw = file.read(MAX_SECRET_BYTES + 3)
        secret = raw.decode()
    except OSError as error:
        raise ConfigError([Problem(None, str(file_path), f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError:
        # Without the cause: it would carry the secret's bytes.
        raise ConfigError([Problem(None, str(file_path), "is not UTF-8 text")]) from None
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigError([Problem(None, str(file_path), "is empty")])
    if len(secret.encode()) > MAX_SECRET_BYTES:
        raise ConfigError([Problem(None, str(file_path), f"is longer than {MAX_SECRET_BYTES} bytes")])
    return secret
