"""`strip-agent strips review`: what a person says about a strip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.cli.asking import facts_of
from agent.cli.options import config_option, json_option
from agent.cli.show_reviews import reviewed
from agent.cli.terminal import say
from agent.ledger.reviews import FINDINGS

if TYPE_CHECKING:
    from pathlib import Path


@click.command("review")
@click.argument("strip_id")
@click.argument("finding", type=click.Choice(FINDINGS))
@click.option("--by", required=True, metavar="NAME", help="Who says so.")
@click.option("--remark", default="", help="A remark, at most 500 characters.")
@click.option("--revision", type=click.IntRange(1), help="The result that it is about; else the newest one.")
@config_option
@json_option
def review_command(
    strip_id: str, finding: str, by: str, remark: str, revision: int | None, config_path: Path, *, as_json: bool
) -> None:
    """Say whether there is a defect on a strip; published as `event/review`, and no result changes."""
    request = {"command": "review", "strip_id": strip_id, "finding": finding, "by": by, "remark": remark}
    say(facts_of(config_path, request | {"revision": revision}), as_json, reviewed)
