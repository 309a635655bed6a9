#!/usr/bin/env python
"""Turn a trained torch model into the one file that the line runs, prove it, and put it on the box."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.printable import printable
from tools.evaluating.commands import add_commands
from tools.exporter.errors import ExportError
from tools.exporter.expected import TARGETS, choose_precision, tell_expected

if TYPE_CHECKING:
    from tools.exporter.approval import Exported

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
SIZE = click.Tuple([click.IntRange(min=1), click.IntRange(min=1)])


Command = TypeVar("Command", bound=Callable[..., Any])


def _signing(command: Command) -> Command:
    """Add the options that say how the manifest is signed."""
    for option in (
        click.option("--rollback", is_flag=True, help="Sign as a return to a lower version."),
        click.option("--slot", default="default", show_default=True, help="Slot of the boxes it is for."),
        click.option("--sign", type=FILE, metavar="KEY", help="Write a manifest beside the model, signed with it."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Export a trained network to ONNX and push it to the boxes."""


@main.command()
@click.argument("checkpoint", type=FILE)
@click.option("--out", type=FILE, required=True, help="The model file to write.")
@click.option("--model-id", help="Name of the model; default: the checkpoint's file name.")
@click.option("--version", type=click.IntRange(min=1), help="Rising number; default: the time of the export.")
@click.option("--created", help="Time to record, UTC; default: that of the export.")
@click.option("--opset", type=int, default=17, show_default=True, help="ONNX opset, 11 or newer.")
@click.option("--input-scale", type=click.Choice(["unit", "gray8"]), default="unit", show_default=True)
@click.option("--image-size", type=SIZE, metavar="HEIGHT WIDTH", help="Strip size; default: by the checkpoint.")
@click.option("--patch", "patch_size", type=SIZE, metavar="HEIGHT WIDTH", help="Patch size; default: the checkpoint's.")
@click.option("--grid", type=SIZE, metavar="ROWS COLUMNS", help="Number of patches; default: derived.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Threshold to record; default: found on the strips.")
@click.option("--precision", type=click.Choice(["fp32", "int8", "auto"]), default="fp32", show_default=True)
@click.option("--target", type=click.Choice(TARGETS), help="The boxes' processor: for auto, and the time to expect.")
@click.option(
    "--calibration", type=FOLDER, help="Folder with strips of the line: for int8, the guard, the golden strip."
)
@click.option("--float-layers", type=click.Choice(["auto", "none"]), default="auto", show_default=True)
@click.option("--window", type=click.Choice(["exact", "whole"]), default="exact", show_default=True)
@click.option("--golden", type=FILE, help="Golden strip; default: the most telling of the calibration strips.")
@click.option("--network", metavar="FILE.py:Class", help="Your own network: (B, 3, h, w) -> (B, 2, h, w) logits.")
@click.option("--network-args", metavar="JSON", help="Arguments for its constructor.")
@click.option(
    "--input-channels",
    metavar="NAMES",
    help="What the network takes, e.g. target,diff1,diff2; default: the checkpoint's.",
)
@click.option("--weights", metavar="ema|plain|PREFIX", help="Which weights, where the file holds several.")
@click.option("--max-score-change", type=click.FloatRange(0, 1), help="Limit of the guard.")
@click.option("--max-heat-change", type=click.FloatRange(0, 1), help="Limit of the guard, any pixel.")
@click.option("--allow-blind", is_flag=True, help="Also a network that tells no defect from none: for tests.")
@click.option("--report", type=FILE, help="HTML page to write about the export.")
@_signing
def export(
    checkpoint: Path,
    out: Path,
    report: Path | None,
    target: str | None,
    sign: Path | None,
    slot: str,
    rollback: bool,
    **asked: Any,
) -> None:
    """Export CHECKPOINT and prove that the file scores as torch does."""
    from tools.exporter.approval import Refused  # noqa: PLC0415 - torch takes seconds to load
    from tools.exporter.exporting import export_model  # noqa: PLC0415
    from tools.exporter.files import check_writable, kept_when_stopped  # noqa: PLC0415
    from tools.exporter.options import Options  # noqa: PLC0415
    from tools.exporter.report import write_report  # noqa: PLC0415

    if sign:
        from tools.exporter.keys import read_secret_key  # noqa: PLC0415

        read_secret_key(sign)  # before the work, so that a wrong key leaves nothing behind
    if report:
        check_writable(report)
    if asked["precision"] == "auto":
        asked["precision"], why = choose_precision(target)
        print(f"precision: {why}")
    options = Options(**asked)
    with kept_when_stopped(out):
        try:
            exported = export_model(checkpoint, out, options)
        except Refused as refused:
            if report:
                write_report(report, refused.exported, options)
                print(f"report: {report}")
            raise
        _tell(exported)
        if report:
            write_report(report, exported, options)
            print(f"report: {report}")
        print(f"{out}: {exported.size_bytes / 1e6:.1f} MB")
        size = exported.facts.height, exported.facts.width
        print(f"expected: {tell_expected(out.read_bytes(), size, target)}")
        if sign:
            _sign(out, sign, slot, rollback=rollback)


def _tell(exported: Exported) -> None:
    """Say what was measured."""
    print(exported.layout.describe())
    if exported.separation and exported.separation.seen:
        print(f"stamped: threshold {exported.facts.threshold:g}; found: {exported.separation.describe()}")
    worst = exported.worst
    print(
        f"{len(exported.comparisons)} strips compared with torch; worst {worst.name}: score {worst.score_torch:.4f} -> "
        f"{worst.score_onnx:.4f}, largest change of a pixel {worst.heat_change:.1e}, IoU {worst.worst_iou:.2f}"
    )
    if exported.calibration:
        kept = ", ".join(sorted(exported.calibration.plan.float_layers)) or "none"
        print(f"quantised by {exported.calibration.method}; layers left in float: {kept}")


def _sign(model: Path, key: Path | None, slot: str, *, rollback: bool, shadow: bool = False) -> None:
    from tools.exporter.keys import sign_model  # noqa: PLC0415 - only signing needs the cryptography library

    signed = sign_model(model, key, slot=slot, rollback=rollback, shadow=shadow)
    what = f"{model.name}: version {signed.manifest.version} for slot {slot}{', as a shadow' if shadow else ''}"
    print(f"{what}, {f'signed with key {signed.key_id}' if signed.key_id else 'not signed'}")


@main.command()
@click.argument("model", type=FILE)
@click.option("--out", type=FILE, required=True, help="The model file to write.")
@click.option("--model-id", help="Name of the model; default: the file's name.")
@click.option("--version", type=click.IntRange(min=1), help="Rising number; default: the time of the adoption.")
@click.option("--created", help="Time to record, UTC; default: that of the adoption.")
@click.option("--input-scale", type=click.Choice(["unit", "gray8"]), help="Default: found out as a box does.")
@click.option("--image-size", type=SIZE, metavar="HEIGHT WIDTH", help="Where the file leaves it open; default 976 176.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Suggested threshold; default: found on the strips.")
@click.option("--calibration", type=FOLDER, help="Folder with strips of the line: for threshold, proof, golden strip.")
@_signing
def adopt(model: Path, out: Path, sign: Path | None, slot: str, rollback: bool, **asked: Any) -> None:
    """Make a model of the contract out of an ONNX file MODEL that another script exported."""
    from tools.exporter.adopting import Wishes, adopt_model  # noqa: PLC0415
    from tools.exporter.files import kept_when_stopped  # noqa: PLC0415

    if sign:
        from tools.exporter.keys import read_secret_key  # noqa: PLC0415

        read_secret_key(sign)
    with kept_when_stopped(out):
        adopted = adopt_model(model, out, Wishes(**asked))
        for change in adopted.changes:
            print(change)
        print(
            f"{adopted.strips} strips compared before and after: largest change of a pixel {adopted.largest_change:.1e}"
        )
        facts = adopted.facts
        print(f"it takes {facts.input_scale}; {adopted.sight.describe()}; threshold {facts.threshold:g}")
        print(f"{out}: {facts.model_id} version {facts.version}, {adopted.size_bytes / 1e6:.1f} MB")
        if sign:
            _sign(out, sign, slot, rollback=rollback)


@main.command()
@click.argument("model", type=FILE)
@click.argument("targets", nargs=-1)
@click.option("--inventory", type=FILE, help="Text file with more targets, one a line.")
@_signing
@click.option("--shadow", is_flag=True, help="It scores beside the active model and decides nothing (docs/trust.md).")
@click.option("--identity", type=FILE, help="SSH key; default: what ssh would take.")
@click.option("--known-hosts", type=FILE, help="Host keys; default: ~/.ssh/known_hosts.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait until the boxes have decided.")
@click.option("--base-topic", multiple=True, help="Where a box reports, e.g. strip-agent/insp1; one for each box.")
@click.option("--broker", default="localhost:1883", show_default=True, metavar="HOST:PORT")
@click.option("--mqtt-user")
@click.option("--mqtt-password-file", type=FILE)
@click.option("--mqtt-ca", type=FILE, help="Certificate authority; switches TLS on.")
def push(
    model: Path, targets: tuple[str, ...], inventory: Path | None, sign: Path | None, slot: str, **asked: Any
) -> None:
    """Push MODEL to TARGETs: folders, or ssh://user@host/path. Needs no checkpoint and no torch."""
    from tools.exporter.keys import read_facts, read_manifest, read_model  # noqa: PLC0415
    from tools.exporter.push import SshOptions, push_model, read_inventory  # noqa: PLC0415
    from tools.exporter.waiting import following, make_broker  # noqa: PLC0415

    wanted = [*targets, *(read_inventory(inventory) if inventory else [])]
    if not wanted:
        raise click.UsageError("Name at least one TARGET, or an --inventory that has some.")
    if (asked["wait"] is None) != (not asked["base_topic"]):
        raise click.UsageError("--wait and --base-topic go together: give both or neither.")
    read_facts(read_model(model))  # what no box would take is said here and now
    there = read_manifest(model)
    if there is not None and there.manifest.shadow and there.signature and not (sign or asked["shadow"]):
        raise ExportError(
            f"The manifest of {model.name} asks for a shadow and is signed: give --sign KEY, or --shadow."
        )
    if sign or asked["shadow"] or (there is not None and there.manifest.shadow):
        _sign(model, sign, slot, rollback=asked["rollback"], shadow=asked["shadow"])
    ssh = SshOptions(asked["identity"], asked["known_hosts"])
    if asked["wait"] is None:
        push_model(model, wanted, ssh)
        return
    broker = make_broker(asked["broker"], asked["mqtt_user"], asked["mqtt_password_file"], asked["mqtt_ca"])
    with following(broker, asked["base_topic"], slot) as decisions:
        digest = push_model(model, wanted, ssh)
        refusals = []
        for topic in asked["base_topic"]:
            try:
                print(printable(decisions.wait_for(topic, model.name, digest, asked["wait"])))
            except ExportError as error:  # the other boxes are heard as well
                refusals.append(f"{topic}: {error}")
    if refusals:
        raise ExportError("\n".join(refusals))


@main.command()
@click.argument("model", type=FILE)
def inspect(model: Path) -> None:
    """Tell what any ONNX file is, whether a box would take it, and why not."""
    from tools.exporter.inspecting import inspect_model  # noqa: PLC0415
    from tools.exporter.keys import read_model  # noqa: PLC0415

    for line in inspect_model(read_model(model)):
        print(printable(line))


@main.command()
@click.argument("model", type=FILE)
@click.option("--key", "keys", type=FILE, multiple=True, help="Public key that must have signed the manifest.")
def verify(model: Path, keys: tuple[Path, ...]) -> None:
    """Check MODEL as a box does: digest, signature, contract, golden strip, an obvious defect."""
    from tools.exporter.keys import verify_model  # noqa: PLC0415

    for line in verify_model(model, keys):
        print(printable(line))


@main.command()
@click.argument("name", type=FILE)
def keygen(name: Path) -> None:
    """Make a key pair: NAME.key (keep it secret) and NAME.pub (for the boxes)."""
    from tools.exporter.keys import make_keys  # noqa: PLC0415

    print(f"{name}.key and {name}.pub, key {make_keys(name)}")


add_commands(main)


def run() -> None:
    """Run the command line; a refusal is one sentence and exit code 1."""
    try:
        main()
    except ExportError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
