"""`strip-agent replay` and `collect`: look at strips again that have been judged; what was said of them stays."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli import show
from agent.cli.asking import become_the_owner, facts_of
from agent.cli.options import config_option, json_option
from agent.cli.terminal import fail, say
from agent.config.file import load_config
from agent.errors import ExitCode
from agent.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config import Config

SAY_EVERY_SECONDS = 10.0
MOST_COLLECTED = 20_000  # strips that are looked at, newest first
USUALLY_NEAR = 0.1  # of scores that are probabilities


def _flips(_: click.Context, param: click.Parameter, value: str | None) -> tuple[int | None, float | None]:
    """Read a number of strips, `3`, or a share of them, `0.5%`; return (number, share), None where it is not said."""
    if value is None:
        return None, None
    number = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d{1,6})?)%", value)
    if number is None:
        raise click.BadParameter(f"{value!r} is neither a number of strips nor a share such as 0.5%", param=param)
    return (int(number[1]), None) if number[1] else (None, float(number[2]) / 100)


camera_option = click.option("--camera", "cameras", multiple=True, help="Only this camera; may be given repeatedly.")
since_option = click.option(
    "--since", metavar="TIME", help="Only strips seen since: 2026-11-22T08:00, or an age such as 8h or 3d."
)


@click.command("replay")
@click.option("--model", required=True, metavar="DIGEST|FILE", help="A model of the store, or a file.")
@since_option
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="The newest so many strips.")
@camera_option
@click.option("--slot", default="default", show_default=True, help="Without --camera: the cameras of this slot.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="HTML page to write, with pictures.")
@click.option(
    "--max-flips",
    callback=_flips,
    metavar="N|N%",
    help="Exit 1 if more verdicts change.",
)
@click.option("--min-strips", type=click.IntRange(1), default=1, show_default=True, help="Exit 1 if it were fewer.")
@config_option
@json_option
def replay_command(
    model: str, since: str | None, limit: int, cameras: tuple[str, ...], slot: str, out: Path | None,
    max_flips: tuple[int | None, float | None], min_strips: int, config_path: Path, *, as_json: bool,
) -> None:  # fmt: skip
    """Judge strips again whose files are still there, and say what would change of what was published.

    Nothing that was published changes, and a running service goes first. Exit 1 where the model is refused, more
    verdicts change than --max-flips, or fewer strips than --min-strips could be judged.
    """
    from agent.hindsight.asking import Wanted  # noqa: PLC0415 - starts faster without
    from agent.hindsight.replay import choose_model, replay, summary, with_pictures  # noqa: PLC0415
    from agent.hindsight.report import replay_page  # noqa: PLC0415

    config = load_config(config_path, os.environ)
    wanted = Wanted(_cameras(config, cameras, slot), show.parse_since(since, time.time()), limit)
    _act_as_the_owner(config)
    if out is not None:
        _check_writable(out)
    try:
        chosen = choose_model(model, config)
        found = replay(chosen, wanted, config, partial(facts_of, config_path), _Progress())
        if not found.strips:
            left_out = {why: len(files) for why, files in found.left_out.items()}
            fail(f"no strip could be judged again (left out: {left_out})" if left_out else "there are no such strips")
        few = len(found.strips) < min_strips
        too_much = found.too_much(*max_flips)
        if out is not None:
            page = replay_page(found, with_pictures(found, chosen, config), _allowed(*max_flips), too_much=too_much)
            write_atomically(out, page.encode())
    except (LookupError, OSError) as error:
        fail(str(error))
    facts = summary(found, too_much=too_much) | {"too_few": few, "report": str(out or "")}
    say(facts, as_json, show_replay)
    sys.exit(ExitCode.FAILED if too_much or few else ExitCode.OK)


def show_replay(facts: dict[str, Any]) -> str:
    """Show what would change."""
    model, change = facts["model"], facts["change"]
    name = f"{model['model_id'] or 'unlabelled model'} version {model['version']} ({model['sha256'][:12]})"
    lines = [f"{name} against what was published of {change['strips']} strips"]
    kinds = ", ".join(f"{number} from {kind}" for kind, number in change["kinds"].items())
    lines.append(
        f"  verdicts that change  {change['flips']} ({change['flipped_share']:.2%})" + (kinds and f": {kinds}")
    )
    if change["median_shift"] is not None:
        lines.append(
            f"  change of the score   {change['median_shift']:+.4f} median, {change['largest_shift']:+.4f} largest"
        )
    for why, number in facts["left_out"].items():
        lines.append(f"  left out, {why}: {number}")
    for one in facts["strips"][: show.SHOWN_AT_MOST]:
        if one["verdict"] == one["verdict_before"]:
            break
        scores = " -> ".join("-" if score is None else f"{score:.4f}" for score in (one["score_before"], one["score"]))
        lines.append(
            f"  {one['strip_id']}  {one['verdict_before']} -> {one['verdict']}  {scores}  {one['camera']}/{one['file']}"
        )
    lines += ["  TOO MANY VERDICTS CHANGE"] if facts["too_much"] else []
    lines += ["  TOO FEW STRIPS COULD BE JUDGED AGAIN"] if facts["too_few"] else []
    lines += ["  there are more strips: --limit takes more of them"] if facts["more_strips"] else []
    return "\n".join([*lines, *([f"report: {facts['report']}"] if facts["report"] else [])])


def _allowed(number: int | None, share: float | None) -> str:
    if number is not None:
        return f"{number} verdicts may change"
    return "" if share is None else f"{100 * share:g}% of the verdicts may change"


def _cameras(config: Config, named: Sequence[str], slot: str | None) -> list[str]:
    """Return the cameras that are meant; where none is named those of the slot, without one all of them."""
    known = {camera.name for camera in config.cameras}
    if unknown := [name for name in named if name not in known]:
        raise click.UsageError(f"there is no camera {unknown[0]!r}; known are {', '.join(sorted(known))}")
    found = [*named] or [camera.name for camera in config.cameras if slot in (None, camera.slot)]
    if not found:
        raise click.UsageError(f"no camera is of slot {slot!r}")
    return found


def _act_as_the_owner(config: Config) -> None:
    """As root be the service's user from here on: files from strangers are read, and its own folders are used."""
    if config.agent.state_folder.is_dir():
        become_the_owner(config.agent.state_folder)


def _check_writable(path: Path) -> None:
    """Say before the work that the result could not be written."""
    folder = path.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        fail(f"{folder} is no folder that this user (the service's, where root asks) may write to: name another --out")


@click.command("collect")
@click.option("--reviewed", is_flag=True, help="Strips that people have reviewed; their last word is the label.")
@click.option("--uncertain", is_flag=True, help="Scores near their threshold, and what a shadow model sees otherwise.")
@click.option("--near", type=click.FloatRange(0), help="How near; 0.1 where scores are probabilities.")
@click.option("--verdict", "verdicts", multiple=True, type=click.Choice(["ok", "anomalous", "invalid"]))
@since_option
@camera_option
@click.option("--limit", type=click.IntRange(1, MOST_COLLECTED), default=500, show_default=True, help="So many strips.")
@click.option("--max-mib", type=click.IntRange(1), default=1024, show_default=True, help="Before it is packed.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder, or a new .zip file.")
@config_option
@json_option
def collect_command(
    verdicts: tuple[str, ...], since: str | None, cameras: tuple[str, ...], limit: int, max_mib: int, out: Path,
    near: float | None, config_path: Path, *, reviewed: bool, uncertain: bool, as_json: bool,
) -> None:  # fmt: skip
    """Gather strips, heatmaps and labels for the next training; what belongs to the line is only read.

    Strips are copies of the camera's files, with the regions that a review confirmed as a mask in the fourth channel.
    `tools/export.py evaluate` reads the result as it is.
    """
    from agent.hindsight.asking import Wanted  # noqa: PLC0415 - starts faster without
    from agent.hindsight.collecting import Bounds, collect  # noqa: PLC0415
    from agent.ledger import Choice  # noqa: PLC0415

    config = load_config(config_path, os.environ)
    choice = Choice(verdicts, reviewed, _near(near, config) if uncertain else None, uncertain)
    if choice == Choice():
        raise click.UsageError("say which strips: --reviewed, --uncertain, --verdict; or several of them")
    named = _cameras(config, cameras, None)
    wanted = Wanted(named, show.parse_since(since, time.time()), MOST_COLLECTED, choice)
    _act_as_the_owner(config)
    _check_writable(out)
    try:
        found = collect(out, wanted, Bounds(limit, max_mib << 20), config, partial(facts_of, config_path))
    except (LookupError, OSError) as error:
        fail(str(error))
    facts = {
        "out": str(out), "strips": len(found.rows), "size_bytes": found.size_bytes, "stopped": found.stopped,
        "labels": dict(Counter(row["label"] for row in found.rows)), "left_out": dict(found.left_out),
        "masks": sum(row["mask"] != "" for row in found.rows), "without_mask": found.without_mask,
    }  # fmt: skip
    say(facts, as_json, show_collected)


def show_collected(facts: dict[str, Any]) -> str:
    """Show what was gathered."""
    labels = ", ".join(f"{number} {label or 'without a label'}" for label, number in sorted(facts["labels"].items()))
    lines = [
        f"{facts['strips']} strips, {facts['size_bytes'] / (1 << 20):.1f} MiB: {labels}; {facts['masks']} with a mask"
    ]
    lines += [f"  left out, {why}: {number}" for why, number in sorted(facts["left_out"].items())]
    lines += [f"  confirmed, but without a mask: {why}" for why in facts["without_mask"][: show.SHOWN_AT_MOST]]
    lines += [f"  not all of them: {facts['stopped']}"] if facts["stopped"] else []
    return "\n".join([*lines, facts["out"]])


def _near(near: float | None, config: Config) -> float:
    if near is None and config.scoring.method == "area":
        raise click.UsageError("say with --near how near to the threshold, in pixels: scoring.method is area")
    return USUALLY_NEAR if near is None else near


class _Progress:
    """Says on a terminal now and then how far it is."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, strips: int) -> None:
        if sys.stderr.isatty() and time.monotonic() - self._said >= SAY_EVERY_SECONDS:
            self._said = time.monotonic()
            print(f"{strips} strips so far", file=sys.stderr)
