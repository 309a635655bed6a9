#!/usr/bin/env python
"""Reproduce the figures that the documentation states. Nothing here is asserted in tests: machines differ.

bench.py all --quick          everything, in about 3 minutes; `make bench` takes 20, on a slow machine more
bench.py models               every variant of a network against the plain export, and the limit of this processor;
                              --processor: of smaller ones, --checkpoint: with your own weights
bench.py agent                from a closed file to the message, beside the script that people write today
bench.py idle                 what a box costs that nothing arrives at
bench.py scale                what grows with ledger, folders, cameras and outbox
bench.py reload               what a switch of models costs the line
bench.py shadow               what a shadow costs the line

What is compared runs in turn, so that whatever else the machine does meets both. `all` writes docs/benchmarks.md.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from tools.benching.page import Part

DEMO_MODEL = Path(__file__).resolve().parents[1] / "agent" / "demo" / "model.onnx"

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
# What repeats does so less often where it would take longer: `all` is to end after 20 minutes or not much more.
ROUNDS_SECONDS, SWITCHES_SECONDS, SHADOW_SECONDS = 90.0, 200.0, 160.0
KINDS = ("all", "vnni", "avx2")  # of processors; hiding.py says what they are

_file = click.Path(path_type=Path, exists=True, dir_okay=False)
_strip_folder = click.Path(path_type=Path, exists=True, file_okay=False)

_quick = click.option("--quick", is_flag=True, help="Fewer rounds and smaller networks: an impression.")
_folder = click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="On the disk that is to be measured."
)
_model = click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=DEMO_MODEL,
    help="Default: the one of the demo.",
)
_strips = click.argument("strips", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure strip-agent's parts on this machine."""


@main.command()
@click.option("--width", type=int, help="Channels of the network's first block; default: 64, with --quick 16.")
@click.option("--family", type=click.Choice(["first", "second"]), help="Default: first.")
@click.option("--checkpoint", type=_file, help="Measure what becomes of its weights instead of random ones.")
@click.option(
    "--calibration", type=_strip_folder, help="Strips of the line for int8: quantised as an export is, in minutes."
)
@click.option(
    "--processor",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=KINDS[:1],
    show_default=True,
    help="Hide from the process what others have not got; given several times: side by side.",
)
@click.option("--rounds", type=int, help="Interleaved rounds; default: 7, fewer where they are slow, with --quick 3.")
@click.option("--threads", default=0, help="Threads; default: the cores this process may use.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the models in this folder.")
@_quick
def models(
    width: int | None,
    family: str | None,
    checkpoint: Path | None,
    calibration: Path | None,
    kinds: tuple[str, ...],
    rounds: int | None,
    threads: int,
    keep: Path | None,
    *,
    quick: bool,
) -> list[Part]:
    """Time, memory and file size of every variant against the plain export, with random weights or trained ones."""
    if checkpoint and (width or family):
        raise click.UsageError("A checkpoint has its own width and family: leave --width and --family away.")
    if calibration and not checkpoint:
        raise click.UsageError("--calibration belongs to --checkpoint: give both or neither.")
    from tools.benching.models import check_kind, models_parts, others_part  # noqa: PLC0415 - torch takes seconds
    from tools.exporter.variants import make_trained_variants, make_variants  # noqa: PLC0415

    for kind in kinds:
        check_kind(kind)  # before the work
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        variants = (
            make_trained_variants(folder, checkpoint, calibration)
            if checkpoint
            else make_variants(folder, width or (16 if quick else 64), second_family=family == "second")
        )
        parts = models_parts(
            Path(temporary),
            variants,
            rounds=rounds or (3 if quick else 7),
            threads=threads,
            kinds=kinds,
            most_seconds=math.inf if rounds else ROUNDS_SECONDS,
        )
        if not (width or family or checkpoint or quick):
            (narrow_folder := folder / "width-16").mkdir(exist_ok=True)
            narrow = make_variants(narrow_folder, 16, second_family=False)
            parts.append(others_part(folder, [(variants, 1), (narrow, 2), (narrow, 1)]))
    return _show(parts)


@main.command()
@_strips
@_model
@click.option("--rounds", type=int, help="Default: 25, with --quick 5.")
@click.option("--burst", "at_once", type=int, help="Strips at once; default: 1000, with --quick 200.")
@_folder
@_quick
def agent(
    strips: tuple[Path, ...], model: Path, rounds: int | None, at_once: int | None, folder: Path | None, *, quick: bool
) -> list[Part]:
    """From a closed file to its message at a subscriber, beside the plain script; STRIPS default to drawn ones."""
    from tools.benching import journey  # noqa: PLC0415
    from tools.benching.parts import agent_parts  # noqa: PLC0415

    contents = {path.name: path.read_bytes() for path in strips} or journey.drawn_strips(4)
    return _show(
        agent_parts(
            folder,
            contents,
            model,
            rounds=rounds or (5 if quick else 25),
            at_once=at_once or (200 if quick else 1000),
        )
    )


@main.command()
@click.option("--cameras", default=4, show_default=True)
@click.option("--seconds", type=float, help="Default: 60, with --quick 10.")
@_folder
@_quick
def idle(cameras: int, seconds: float | None, folder: Path | None, *, quick: bool) -> list[Part]:
    """Processor time, wakeups and memory of a box that nothing arrives at, with a trivial model."""
    from tools.benching.parts import idle_part  # noqa: PLC0415

    return _show([idle_part(folder, number=cameras, seconds=seconds or (10 if quick else 60))])


@main.command()
@_folder
@_quick
def scale(folder: Path | None, *, quick: bool) -> list[Part]:
    """Cost of a step by the ledger's rows, a folder's files, the cameras, and what waits for the broker."""
    from tools.benching.parts import scale_part  # noqa: PLC0415

    return _show([scale_part(folder, quick=quick)])


@main.command("reload")
@click.option("--switches", type=int, help="Default: 100, fewer where they are slow, with --quick 5.")
@_folder
@_quick
def reloading(switches: int | None, folder: Path | None, *, quick: bool) -> list[Part]:
    """Gap between results at a switch of models, time to active, memory over many switches."""
    from tools.benching.parts import reload_part  # noqa: PLC0415

    most_seconds = math.inf if switches else SWITCHES_SECONDS
    return _show([reload_part(folder, switches=switches or (5 if quick else 100), most_seconds=most_seconds)])


@main.command()
@_strips
@_model
@click.option("--rounds", type=int, help="Default: 5, with --quick 2.")
@click.option(
    "--each", type=int, help="Strips in a round; default: 60, with --quick 20, fewer with a model that is slow here."
)
@_folder
@_quick
def shadow(
    strips: tuple[Path, ...], model: Path, rounds: int | None, each: int | None, folder: Path | None, *, quick: bool
) -> list[Part]:
    """Live latency without and with a shadow, in turn, and its memory; STRIPS default to drawn ones."""
    from tools.benching import journey  # noqa: PLC0415
    from tools.benching.parts import shadow_part  # noqa: PLC0415

    contents = {path.name: path.read_bytes() for path in strips} or journey.drawn_strips(4)
    most_seconds = math.inf if each else SHADOW_SECONDS
    each = each or (20 if quick else 60)
    rounds = rounds or (2 if quick else 5)
    return _show([shadow_part(folder, contents, model, rounds=rounds, each=each, most_seconds=most_seconds)])


@main.command("all")
@_folder
@_quick
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), default=PAGE, help="Where it is written.")
@click.pass_context
def everything(context: click.Context, folder: Path | None, page: Path, *, quick: bool) -> None:
    """Run all of them, one after the other, and write docs/benchmarks.md."""
    from tools.benching.elsewhere import by_hand  # noqa: PLC0415
    from tools.benching.models import kinds_here  # noqa: PLC0415
    from tools.benching.page import write_page  # noqa: PLC0415

    every: list[Part] = []
    kinds = kinds_here(KINDS[:1] if quick else KINDS)
    on_disk: dict[str, Any] = {"folder": folder}
    for number, (command, options) in enumerate(
        (
            (models, {"kinds": tuple(kinds)}),
            (agent, on_disk),
            (idle, on_disk),
            (scale, on_disk),
            (reloading, on_disk),
            (shadow, on_disk),
        ),
        start=1,
    ):
        click.echo(f"\n{number} of 6: {command.name}")
        began = time.monotonic()
        every += context.invoke(command, quick=quick, **options)
        click.echo(f"{command.name} took {time.monotonic() - began:.0f} s")
        write_page(
            page, [*every, *by_hand(kinds_measured=KINDS[-1] in kinds)]
        )  # what there is, should a later one fail
    click.echo(f"written to {page}")


def _show(parts: list[Part]) -> list[Part]:
    from tools.benching.page import as_text  # noqa: PLC0415

    for part in parts:
        click.echo(as_text(part))
    return parts


if __name__ == "__main__":
    try:
        main()
    except ExportError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
