"""Options that many commands take."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_CONFIG = Path("/etc/strip-agent/agent.yaml")

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="Configuration file.",
)
box_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Do it with this box's settings; else the defaults.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
