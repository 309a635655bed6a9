"""The command that sets a box up; what it does is `agent/cli/setup/`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from agent.cli.options import config_option
from agent.config.secret_files import read_secret


@click.command("setup")
@click.option("--yes", is_flag=True, help="Ask nothing: what is not given is as most boxes have it.")
@click.option("--name", default="", help="Name of this box, unique on the broker.")
@click.option("--camera", "cameras", multiple=True, metavar="NAME=FOLDER[:USER]", help="USER writes the files.")
@click.option("--broker", default="", metavar="HOST[:PORT]")
@click.option("--username", default="", help="At the broker; the password comes from --password-file.")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--pusher", "pushers", multiple=True, metavar="USER", help="May push models.")
@click.option("--reader", "readers", multiple=True, metavar="USER", help="May ask the service; reads heatmaps.")
@click.option("--sftp-pusher", multiple=True, metavar="NAME=KEYFILE", help="An account that may only push, over SFTP.")
@click.option("--no-start", is_flag=True, help="Leave the service as it is.")
@config_option
def setup_command(
    cameras: tuple[str, ...],
    password_file: Path | None,
    sftp_pusher: tuple[str, ...],
    config_path: Path,
    *,
    yes: bool,
    no_start: bool,
    **given: Any,
) -> None:
    """Set this box up: configuration, folders, rights, walls, start, doctor. Run again, it changes what is missing."""
    from agent.cli.setup import Answers, CameraAnswer, set_up  # noqa: PLC0415 - starts faster without

    if given["username"] and password_file is None and yes:
        raise click.UsageError("--username needs --password-file")
    password = read_secret(password_file, os.environ) if password_file is not None else ""
    keys = dict(_key_of(text) for text in sftp_pusher)
    answers = Answers(cameras=tuple(map(CameraAnswer.of, cameras)), password=password, sftp_pushers=keys, **given)
    sys.exit(set_up(config_path, answers, partial(print, flush=True), guided=not yes, starts=not no_start))


def _key_of(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not (name and equals and Path(file).is_file()):
        raise click.BadParameter(f"{text}: an account is NAME=KEYFILE, and KEYFILE its public key")
    return name, Path(file)
