"""Writes answers into the shipped configuration, so that its explanations stay; an edited one is left alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from agent.cli.setup.answers import Answers

NAME, CAMERA, FOLDER, HOST = (
    "  name: insp1\n",
    "  - name: top\n",
    "    folder: /srv/cameras/top\n",
    "  host: localhost\n",
)
PORT = "  #port: 1883\n"
LOGIN = "  #username: null\n  #password_file: null\n"  # together: the page has a password_file too
BEHIND_CAMERAS = "\nmodels:\n"
SHIPPED = (NAME, CAMERA, FOLDER, HOST, PORT, LOGIN, BEHIND_CAMERAS)
USUAL_PORT = 1883


def is_shipped(text: str) -> bool:
    """Whether nobody has named box, camera and broker yet."""
    return all(text.count(line) == 1 for line in SHIPPED)


def fill_in(text: str, answers: Answers, password_file: Path) -> str:
    """Put the answers in place of the shipped lines."""
    first, *others = answers.cameras
    host, port = _address(answers.broker)
    more = "".join(f"  - name: {_yaml(one.name)}\n    folder: {_yaml(str(one.folder))}\n" for one in others)
    changes = {
        NAME: f"  name: {_yaml(answers.name)}\n",
        CAMERA: f"  - name: {_yaml(first.name)}\n",
        FOLDER: f"    folder: {_yaml(str(first.folder))}\n",
        HOST: f"  host: {_yaml(host)}\n",
        BEHIND_CAMERAS: f"{more}{BEHIND_CAMERAS}",
    }
    if port != USUAL_PORT:
        changes[PORT] = f"  port: {port}\n"
    if answers.username:
        login = f"  username: {_yaml(answers.username)}\n  password_file: {_yaml(str(password_file))}\n"
        changes[LOGIN] = login
    for line, instead in changes.items():
        text = text.replace(line, instead)
    return text


def _address(broker: str) -> tuple[str, str | int]:
    """Split HOST:PORT; IPv6 addresses are written as [::1]:1883. What is no number is left to the check to refuse."""
    host, colon, port = broker.rpartition(":")
    if not colon or broker.endswith("]") or (":" in host and not host.startswith("[")):
        host, port = broker, str(USUAL_PORT)
    return host.strip("[]"), int(port) if port.isdecimal() else _yaml(port)


def _yaml(text: str) -> str:
    """Write a value so that YAML reads it as this text whatever it holds."""
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    is_plain = plain.isascii() and plain.isalnum() and text[0].isalpha() | (text[0] == "/")
    reserved = text.lower() in {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    return text if is_plain and not reserved else json.dumps(text, ensure_ascii=False)
