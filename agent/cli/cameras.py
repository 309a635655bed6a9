"""The commands about cameras: pause, resume, threshold, rescan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.cli import show
from agent.cli.asking import facts_of
from agent.cli.options import config_option, json_option
from agent.cli.terminal import say

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("camera")
@config_option
@json_option
def pause(camera: str, config_path: Path, *, as_json: bool) -> None:
    """Judge no more of a camera's strips until it is resumed; they wait, are counted, and nothing is lost."""
    say(facts_of(config_path, {"command": "pause", "camera": camera}), as_json, show.paused)


@click.command()
@click.argument("camera")
@config_option
@json_option
def resume(camera: str, config_path: Path, *, as_json: bool) -> None:
    """Judge a paused camera's strips again."""
    say(facts_of(config_path, {"command": "resume", "camera": camera}), as_json, show.resumed)


@click.command()
@click.argument("camera")
@click.argument("value", required=False)
@config_option
@json_option
def threshold(camera: str, value: str | None, config_path: Path, *, as_json: bool) -> None:
    """Show a camera's threshold, set it to VALUE over configuration and model, or take that back with `clear`."""
    request: dict[str, Any] = {"command": "threshold" if value is None else "set_threshold", "camera": camera}
    if value == "clear":
        request["clear"] = True
    elif value is not None:
        try:
            request["value"] = float(value)
        except ValueError as error:
            raise click.UsageError(f"VALUE is a number or `clear`, not {value}") from error
    say(facts_of(config_path, request), as_json, show.threshold)


@click.command()
@click.argument("camera", required=False)
@config_option
@json_option
def rescan(camera: str | None, config_path: Path, *, as_json: bool) -> None:
    """Have the service read a camera's folder as a whole now, or all of them."""
    say(facts_of(config_path, {"command": "rescan", "camera": camera}), as_json, show.rescanned)


COMMANDS = (pause, resume, threshold, rescan)
