"""`strip-agent models shadow`: a model beside the active one, and how the two compare."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - click reads it
from typing import Any

import click

from agent.cli.asking import facts_of
from agent.cli.options import config_option, json_option
from agent.cli.terminal import say
from agent.printable import model_name


@click.command("shadow")
@click.argument("digest", required=False, metavar="[DIGEST|off]")
@click.option("--slot", default="default", show_default=True)
@click.option("--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="The worst so many pairs.")
@click.option("--events", is_flag=True, help="Publish what it says of each strip, on event/shadow/<slot>.")
@config_option
@json_option
def models_shadow(digest: str | None, slot: str, limit: int, config_path: Path, *, events: bool, as_json: bool) -> None:
    """Score beside the active model with one of the store, or with none; without an argument: how they compare."""
    if digest is None:
        say(facts_of(config_path, {"command": "shadow", "slot": slot, "limit": limit}), as_json, shown)
        return
    request = {"command": "set_shadow", "slot": slot, "digest": "" if digest == "off" else digest, "events": events}
    say(facts_of(config_path, request), as_json, changed)


def changed(facts: dict[str, Any]) -> str:
    """Show what scores beside the active model from now on."""
    name = f"slot {facts['slot']}: model {facts['sha256'][:12]}"
    if not facts["on"]:
        return f"{name} is no shadow any more"
    return (
        f"{name} scores the strips that come from now on as well, and decides nothing; see `strip-agent models shadow`"
    )


def shown(facts: dict[str, Any]) -> str:
    """Show how a shadow compares with the active model."""
    shadow, active, found = facts["shadow"], facts["active"], facts["comparison"]
    if not shadow["sha256"]:
        return f"slot {facts['slot']}: no shadow; `strip-agent models shadow DIGEST` makes a model of the store one"
    lines = [f"slot {facts['slot']}: shadow {_named(shadow)}, active {_named(active)}"]
    if shadow["reason"]:
        lines.append(f"SWITCHED OFF: {shadow['reason']}: {shadow['detail']}")
    if shadow.get("provider_refused"):  # an older service does not tell
        lines.append(f"ON THE CPU, as it cannot be computed by {shadow['provider_refused']}")
    behind = ""
    if "behind" in found and not shadow["reason"]:  # an older service does not tell
        behind = f"; {found['behind']} more wait for its turn"
    if not found["compared"]:
        missed = f"; {found['missed']} strips were gone before it came to them" if found["missed"] else ""
        loading = "; its model is not loaded" if shadow.get("provider") == "" and not shadow["reason"] else ""
        return "\n".join([*lines, f"nothing compared yet{loading}{missed}{behind}"])
    lines += [
        f"compared     {found['compared']} strips, {found['missed']} were gone before it came to them{behind}",
        f"agree        {found['agreed']} ({found['agreement']:.2%})",
        (
            f"flips        {found['to_anomalous']} ok -> anomalous, {found['to_ok']} anomalous -> ok, "
            f"{found['invalid']} not judged by the shadow"
        ),
        f"score        {found['mean_shift']:+.4f} on average, {found['mean_abs_shift']:.4f} without the sign",
        (
            f"time         {shadow['run_ms']:.0f} ms a strip in its trial, the active model {active['run_ms']:.0f} ms; "
            f"{found['mean_inference_ms']:.0f} ms as a shadow, with one thread"
        ),
    ]
    if facts["worst"]:
        lines += ["", "seen most differently:", f"{'published':<20}{'shadow':<32}strip"]
    for pair in facts["worst"]:
        published = f"{pair['verdict']} {pair['score']:.4f}"
        said = pair["shadow_reason"] or f"{pair['shadow_score']:.4f}"
        name = f"{pair['strip_id']}  {pair['camera']}/{pair['file']}"
        lines.append(f"{published:<20}{pair['shadow_verdict'] + ' ' + said:<32}{name}")
    return "\n".join(
        [*lines, "", f"`strip-agent models activate {shadow['sha256'][:12]}` tries it and makes it active"]
    )


def _named(model: dict[str, Any]) -> str:
    if not model["sha256"]:
        return "none"
    return f"{model_name(model['model_id'], model['version'])} ({model['sha256'][:12]})"
