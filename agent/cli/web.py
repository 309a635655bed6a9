"""`strip-agent web`: the page on the box."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from agent import logs
from agent.cli.options import config_option
from agent.cli.terminal import fail
from agent.config.file import load_config
from agent.config.web import missing_packages
from agent.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path


@click.command("web")
@click.option("--hash", "only_hash", is_flag=True, help="Ask for a password and print what its file may hold instead.")
@config_option
def web_command(config_path: Path, *, only_hash: bool) -> None:
    """Serve the page on the box (configuration: web); a process of its own, which the service does not need."""
    if missing := missing_packages():
        fail(f"the page needs the packages {', '.join(missing)}: pip install 'strip-agent[web]'", ExitCode.CONFIG)
    if only_hash:
        from agent.web.sessions import hash_password  # noqa: PLC0415 - starts faster without

        print(hash_password(click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)))
        return
    from agent.web.server import run_web  # noqa: PLC0415

    config = load_config(config_path, os.environ)
    logs.setup(config.log)
    sys.exit(run_web(config))
