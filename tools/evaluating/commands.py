"""The commands of tools/export.py that say whether a model can be trusted."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.evaluating.judging import Judged
    from tools.evaluating.subject import AboutCheckpoint, Subject
    from tools.evaluating.truth import Labels

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
SIZE = click.Tuple([click.IntRange(min=1), click.IntRange(min=1)])

Command = Any


def _truth_options(command: Command) -> Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs."),
        click.option("--report", type=FILE, help="HTML page to write, with pictures of the worst strips."),
        click.option("--pixel-threshold", type=click.FloatRange(0, 1, min_open=True), default=0.5, show_default=True),
        click.option(
            "--method", type=click.Choice(["max", "top_k_mean", "detections"]), default="max", show_default=True,
            help="How a heatmap becomes a score; as scoring.method of the boxes.",
        ),
        click.option("--channel-4", is_flag=True, help="The fourth channel of the files is a mask of the defects."),
        click.option("--truth", type=FILE, help="CSV (file, label) or JSON (COCO, boxes); default: what is found."),
    ):  # fmt: skip
        command = option(command)
    return command


def _checkpoint_options(command: Command) -> Command:
    """Add what `export` may be told of a checkpoint; they say the same here, and belong to a checkpoint alone."""
    for option in (
        click.option("--grid", type=SIZE, metavar="ROWS COLUMNS", help="Number of patches."),
        click.option("--image-size", type=SIZE, metavar="HEIGHT WIDTH", help="Strip size."),
        click.option("--patch", "patch_size", type=SIZE, metavar="HEIGHT WIDTH", help="Patch size."),
        click.option("--weights", metavar="ema|plain|PREFIX", help="Which weights, where the file holds several."),
        click.option("--input-channels", metavar="NAMES", help="What the network takes, e.g. target,diff1,diff2."),
        click.option("--network-args", metavar="JSON", help="Arguments for its constructor."),
        click.option("--network", metavar="FILE.py:Class", help="Your own network, as in export."),
    ):
        command = option(command)
    return command


def _about_checkpoint(how: dict[str, Any], *models: Path) -> AboutCheckpoint:
    """Take those options out of the others."""
    from tools.evaluating.subject import AboutCheckpoint, is_checkpoint  # noqa: PLC0415

    about = AboutCheckpoint(**{one.name: how.pop(one.name) for one in fields(AboutCheckpoint)})
    if about != AboutCheckpoint() and not any(map(is_checkpoint, models)):
        raise click.UsageError("--network, --patch and the like are about a checkpoint: a model file says it itself.")
    return about


def add_commands(group: click.Group) -> None:
    """Add evaluate, threshold and compare."""
    for command in (evaluate, threshold, compare):
        group.add_command(command)


@click.command()
@click.argument("model", type=FILE)
@click.argument("folder", type=FOLDER)
@click.option("--threshold", "asked", type=click.FloatRange(0, 1), help="Of the score; default: the model's own.")
@_truth_options
@_checkpoint_options
def evaluate(model: Path, folder: Path, asked: float | None, report: Path | None, *, as_json: bool, **how: Any) -> None:
    """Judge the strips in FOLDER, whose truth is known, with MODEL: a file of the line, or a checkpoint."""
    from tools.evaluating.figures import evaluate as evaluate_outcomes  # noqa: PLC0415 - scikit-learn takes a second
    from tools.evaluating.pages import evaluation_page, figure_rows  # noqa: PLC0415
    from tools.evaluating.subject import open_subject  # noqa: PLC0415
    from tools.exporter.files import check_writable, write_file  # noqa: PLC0415

    if report:
        check_writable(report)
    subject = open_subject(model, asked, _about_checkpoint(how, model))
    labels, judged = _judge(subject, folder, how)
    figures = evaluate_outcomes(judged.outcomes, judged.pixels, subject.threshold)
    if report:
        truths = {str(truth.path): truth for truth in labels.strips}
        page = evaluation_page(subject, figures, judged.outcomes, truths, _notes(labels, judged))
        write_file(report, page.encode())
    if as_json:
        confusion = asdict(figures.confusion) | {
            "recall": asdict(figures.confusion.recall),
            "false_alarms_per_1000": asdict(figures.confusion.false_alarms_per_1000),
        }
        strips = [
            {"file": str(one.path), "defective": one.defective, "score": one.score, "seconds": one.seconds}
            for one in judged.outcomes
        ]
        facts = asdict(figures) | {"confusion": confusion, "model": subject.name, "truth": labels.kind}
        print(json.dumps(facts | {"passed_over": judged.passed_over, "by_strip": strips}))
        return
    _say(f"{subject.name} on {figures.strips} strips of {folder}", figure_rows(figures))
    for line in (*figures.warnings, *_notes(labels, judged), *([f"report: {report}"] if report else [])):
        print(printable(line))


@click.command()
@click.argument("model", type=FILE)
@click.argument("folder", type=FOLDER)
@click.option("--false-alarms", "per_1000", type=click.FloatRange(0, 1000, min_open=True, max_open=True), metavar="N",
              help="At most so many in 1,000 good strips.")  # fmt: skip
@click.option("--recall", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE", help="At least so many defects.")
@click.option("--out", type=FILE, help="Write MODEL with this threshold, as a new version.")
@click.option("--version", type=click.IntRange(min=1), help="Of the new file; default: the time.")
@_truth_options
def threshold(
    model: Path, folder: Path, per_1000: float | None, recall: float | None, out: Path | None, version: int | None,
    report: Path | None, *, as_json: bool, **how: Any,
) -> None:  # fmt: skip
    """Propose a threshold for MODEL from strips in FOLDER: good ones, or such whose truth is known."""
    from tools.evaluating.figures import confusion_of  # noqa: PLC0415
    from tools.evaluating.pages import threshold_page  # noqa: PLC0415
    from tools.evaluating.subject import open_subject  # noqa: PLC0415
    from tools.evaluating.thresholds import for_false_alarms, for_recall  # noqa: PLC0415
    from tools.evaluating.writing import with_threshold  # noqa: PLC0415
    from tools.exporter.files import check_writable, write_file  # noqa: PLC0415

    if (per_1000 is None) == (recall is None):
        raise click.UsageError("Say either --false-alarms N (in 1,000 good strips) or --recall SHARE.")
    for path in filter(None, (out, report)):
        check_writable(path)
    subject = open_subject(model)
    labels, judged = _judge(subject, folder, how, good_alone=per_1000 is not None)
    scores = {kind: [one.score for one in judged.outcomes if one.defective is kind] for kind in (False, True)}
    found = for_recall(scores[True], recall) if recall is not None else for_false_alarms(scores[False], per_1000 or 0.0)
    at = confusion_of(judged.outcomes, found.threshold)
    if out:
        write_file(out, with_threshold(model, found.threshold, version))
    if report:
        write_file(report, threshold_page(subject, found, judged.outcomes).encode())
    if as_json:
        print(json.dumps({"model": subject.name} | asdict(found) | {"confusion": asdict(at)}))
        return
    shown = f"{found.threshold:.4g}"
    rows = [
        ("threshold", f"{shown} ({found.low:.4g} to {found.high:.4g})", ""),
        ("how", found.how, ""),
        ("on these strips", f"{at.false_alarms} of {len(scores[False])} good ones reach it", ""),
        ("", f"{at.missed} of {len(scores[True])} defective ones do not", ""),
    ]
    _say(f"{subject.name} on {len(judged.outcomes)} strips of {folder}", rows)
    for line in (*found.warnings, *_notes(labels, judged)):
        print(printable(line))
    print(f"wrote {out}" if out else f"for a box, without a new file: strip-agent threshold {shown}")


@click.command()
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.argument("folder", type=FOLDER)
@_truth_options
@_checkpoint_options
def compare(first: Path, second: Path, folder: Path, report: Path | None, *, as_json: bool, **how: Any) -> None:
    """Judge the strips in FOLDER with the models FIRST and SECOND, and say what the second one says otherwise."""
    from tools.evaluating.comparing import change_rows  # noqa: PLC0415
    from tools.evaluating.comparing import compare as compare_outcomes  # noqa: PLC0415
    from tools.evaluating.pages import comparison_page  # noqa: PLC0415
    from tools.evaluating.subject import check_same_size, open_subject  # noqa: PLC0415
    from tools.exporter.files import check_writable, write_file  # noqa: PLC0415

    if report:
        check_writable(report)
    about = _about_checkpoint(how, first, second)
    subjects = open_subject(first, about=about), open_subject(second, about=about)
    check_same_size(*subjects)
    labels, judged = _judge(subjects[0], folder, how)
    _, other = _judge(subjects[1], folder, how)
    found = compare_outcomes(judged.outcomes, other.outcomes, (subjects[0].threshold, subjects[1].threshold))
    if report:
        truths = {str(truth.path): truth for truth in labels.strips}
        write_file(report, comparison_page(subjects, found, truths).encode())
    if as_json:
        pairs = [
            {"file": pair.name, "before": pair.scores[0], "after": pair.scores[1],
             "mends": pair.mends, "breaks": pair.breaks}
            for pair in found.pairs
        ]  # fmt: skip
        numbers = dict(change_rows(found))
        print(json.dumps({"first": subjects[0].name, "second": subjects[1].name, "change": numbers, "pairs": pairs}))
        return
    _say(f"{subjects[1].name} against {subjects[0].name}", [(*row, "") for row in change_rows(found)])
    for line in (*_notes(labels, judged), *([f"report: {report}"] if report else [])):
        print(printable(line))


def _judge(subject: Subject, folder: Path, how: dict[str, Any], *, good_alone: bool = False) -> tuple[Labels, Judged]:
    from agent.config import ScoringSection  # noqa: PLC0415
    from tools.evaluating.judging import judge_strips  # noqa: PLC0415
    from tools.evaluating.truth import all_good, read_truth  # noqa: PLC0415
    from tools.exporter.errors import ExportError  # noqa: PLC0415

    scoring = ScoringSection(method=how["method"], pixel_threshold=how["pixel_threshold"])
    try:
        labels = read_truth(folder, how["truth"], channel_4=how["channel_4"])
    except ExportError:
        if not good_alone or how["truth"]:
            raise
        labels = all_good(folder)
    return labels, judge_strips(subject, labels.strips, scoring)


def _notes(labels: Labels, judged: Judged) -> list[str]:
    passed = (
        [f"{len(judged.passed_over)} files were passed over, no box would judge them"] if judged.passed_over else []
    )
    return [f"truth: {labels.kind}", *labels.left_out, *passed]


def _say(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    print(printable(title))
    wide = max(len(name) for name, _, _ in rows)
    for name, value, count in rows:
        print(printable(f"  {name:<{wide}}  {value}" + (f"  of {count}" if count else "")))
