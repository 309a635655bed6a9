"""What has to be known of a box: from the arguments, and what they leave open from the person."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

FOLDER = Path("/srv/cameras")


@dataclass(frozen=True, slots=True)
class CameraAnswer:
    """A camera; `user` is whom its files are written by, "" where that is not known."""

    name: str
    folder: Path
    user: str = ""

    @classmethod
    def of(cls, text: str) -> CameraAnswer:
        """Read NAME=FOLDER or NAME=FOLDER:USER. Raises click.BadParameter."""
        name, equals, rest = text.partition("=")
        folder, _, user = rest.partition(":")
        if not (name and equals and folder.startswith("/")):
            raise click.BadParameter(f"{text}: a camera is NAME=/FOLDER or NAME=/FOLDER:USER")
        return cls(name, Path(folder), user)


@dataclass(frozen=True, slots=True)
class Answers:
    """What setup was told; what is empty was left open."""

    name: str = ""
    cameras: tuple[CameraAnswer, ...] = ()
    broker: str = ""  # HOST or HOST:PORT
    username: str = ""
    password: str = field(default="", repr=False)
    pushers: tuple[str, ...] = ()  # users who may push models
    sftp_pushers: dict[str, Path] = field(default_factory=dict)  # accounts that may only push, and their public keys
    readers: tuple[str, ...] = ()  # users who may ask the service, and read the configuration and heatmaps

    @property
    def about_configuration(self) -> bool:
        """Whether anything was said that stands in the configuration."""
        return bool(self.name or self.cameras or self.broker or self.username)


def with_defaults(given: Answers) -> Answers:
    """Take for what was left open what most boxes have."""
    return replace(
        given,
        name=given.name or default_name(),
        cameras=given.cameras or (CameraAnswer("top", FOLDER / "top"),),
        broker=given.broker or "localhost:1883",
    )


def default_name() -> str:
    """Name a box as the machine is named, where that can be a name here."""
    name = "".join(
        letter if letter.isalnum() or letter in "_-" else "-" for letter in socket.gethostname().split(".")[0]
    )
    return name.lower().strip("-") or "insp1"


def ask(given: Answers) -> Answers:
    """Ask the person for what the arguments left open."""
    name = given.name or click.prompt("Name of this box, unique on the broker", default=default_name())
    cameras = given.cameras or tuple(_ask_cameras())
    broker = given.broker or click.prompt("Broker, as HOST or HOST:PORT", default="localhost:1883")
    username = given.username or click.prompt("User name at the broker, empty for none", default="", show_default=False)
    password = given.password
    if username and not password:
        password = click.prompt("Password at the broker (not shown)", hide_input=True)
    pushers = given.pushers or tuple(
        click.prompt("Users who may push models, with spaces between", default="", show_default=False).split()
    )
    return replace(
        given, name=name, cameras=cameras, broker=broker, username=username, password=password, pushers=pushers
    )


def _ask_cameras() -> list[CameraAnswer]:
    cameras: list[CameraAnswer] = []
    while not cameras or click.confirm("Another camera", default=False):
        name = click.prompt("Name of the camera", default="top" if not cameras else None)
        folder = click.prompt("Folder that it writes to", default=str(FOLDER / name))
        user = click.prompt("User of this box that its files come from, empty if none", default="", show_default=False)
        cameras.append(CameraAnswer.of(f"{name}={folder}:{user}"))
    return cameras
