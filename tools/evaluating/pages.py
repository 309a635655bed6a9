"""The pages of `evaluate` and `compare`: figures, the scores, and the strips on which the model is most wrong."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.page import page, table
from tools.evaluating.comparing import change_rows
from tools.evaluating.figures import confusion_of
from tools.evaluating.judging import read_with_mask, shown_name, to_grey
from tools.exporter.page import data_url
from tools.exporter.pictures import GAP_PX, coloured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tools.evaluating.comparing import Comparison
    from tools.evaluating.figures import Figures
    from tools.evaluating.judging import Outcome
    from tools.evaluating.subject import Subject
    from tools.evaluating.thresholds import Proposal
    from tools.evaluating.truth import Truth
    from tools.exporter.graph import Array

WORST_SHOWN = 6
BINS = 40
HEIGHT_PX, WIDTH_PX = 160, 640
GOOD_COLOUR, BAD_COLOUR, TRUTH_COLOUR = "#37a", "#c33", (80, 80, 255)  # the last one is BGR
ABOUT_HISTOGRAM = "Good strips above the line, defective ones below it; the upright line is the threshold."
LEGEND = "From left: target with what is known of its defects, the heatmap over it."
STRONG = 0.35  # of the heatmap over the target


def evaluation_page(
    subject: Subject, figures: Figures, outcomes: Sequence[Outcome], truths: dict[str, Truth], notes: Sequence[str]
) -> str:
    """Write the page about one model."""
    threshold = figures.confusion.threshold
    misses = sorted((one for one in outcomes if one.defective), key=lambda one: one.score)[:WORST_SHOWN]
    alarms = sorted((one for one in outcomes if not one.defective), key=lambda one: -one.score)[:WORST_SHOWN]
    parts = [
        f"<h1>{html.escape(subject.name)} on {figures.strips} strips</h1>",
        *(f'<p class="bad">{html.escape(warning)}</p>' for warning in figures.warnings),
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        "<h2>Figures</h2><p>In brackets: the interval of 95 %, which says how much so few strips can tell.</p>",
        table(("", "value", "strips or defects"), figure_rows(figures)),
        f"<h2>Scores</h2><p>{ABOUT_HISTOGRAM}</p>",
        histogram(outcomes, threshold),
        f"<h2>Defective strips with the lowest scores</h2><p>Missed below {threshold:.3f}. {LEGEND}</p>",
        *_pictures(subject, misses, truths, threshold),
        f"<h2>Good strips with the highest scores</h2><p>False alarms from {threshold:.3f} on. {LEGEND}</p>",
        *_pictures(subject, alarms, truths, threshold),
    ]
    return page(subject.name, parts)


def comparison_page(subjects: tuple[Subject, Subject], found: Comparison, truths: dict[str, Truth]) -> str:
    """Write the page about two models: what changes, and the strips where most does, by the first and the second."""
    first, second = subjects
    parts = [
        f"<h1>{html.escape(second.name)} against {html.escape(first.name)}</h1>",
        table(("", ""), change_rows(found)),
        f"<h2>Where most changes</h2><p>From left: target, {html.escape(first.name)}, {html.escape(second.name)}.</p>",
    ]
    for pair in found.pairs[:WORST_SHOWN]:
        truth = truths[pair.name]
        strip, mask = read_with_mask(truth, first)
        drawn = [to_bgr(to_grey(strip)), *(overlay(to_grey(strip), one.heatmap_of(strip)) for one in subjects)]
        _draw_truth(drawn[0], truth, mask)
        what = "verdict becomes wrong" if pair.breaks else "verdict becomes right" if pair.mends else "same verdict"
        scores = ", ".join(f"{score:.3f}" for score in pair.scores if score is not None)
        parts.append(_figure(drawn, f"{shown_name(truth.path)}: {scores}; {what}"))
    return page(f"{second.name} against {first.name}", parts)


def threshold_page(subject: Subject, found: Proposal, outcomes: Sequence[Outcome]) -> str:
    """Write the page about a proposed threshold."""
    parts = [
        f"<h1>A threshold for {html.escape(subject.name)}</h1>",
        *(f'<p class="bad">{html.escape(warning)}</p>' for warning in found.warnings),
        f"<p>{found.threshold:.4g}; it might as well lie from {found.low:.4g} to {found.high:.4g}: {found.how}.</p>",
        f"<p>{ABOUT_HISTOGRAM}</p>",
        histogram(outcomes, found.threshold),
        "<h2>What other thresholds would do</h2>",
        table(
            ("threshold", "false alarms in 1,000 good strips", "recall"),
            [
                (f"{at.threshold:.4g}", at.false_alarms_per_1000.describe(1), at.recall.describe())
                for at in (confusion_of(outcomes, value) for value in _steps(outcomes, found.threshold))
            ],
        ),
    ]
    return page(f"A threshold for {subject.name}", parts)


def _steps(outcomes: Sequence[Outcome], proposed: float) -> list[float]:
    """Choose thresholds that matter: quantiles of the scores, and the proposed one."""
    quantiles = np.quantile([one.score for one in outcomes], np.linspace(0, 1, 11)).tolist()
    return sorted({*quantiles, proposed})


def figure_rows(figures: Figures) -> list[tuple[str, str, str]]:
    """Give the figures as rows of text: name, value with interval, of how many."""
    confusion = figures.confusion
    at = f"threshold {confusion.threshold:.4g}"
    rows = [
        ("strips, with a defect", f"{figures.strips}, {figures.defective}", ""),
        (f"recall at {at}", confusion.recall.describe(), str(confusion.recall.count)),
        (
            f"false alarms in 1,000 at {at}",
            confusion.false_alarms_per_1000.describe(1),
            str(confusion.false_alarms_per_1000.count),
        ),
        (
            "found, missed, passed, false alarms",
            f"{confusion.found}, {confusion.missed}, {confusion.passed}, {confusion.false_alarms}",
            "",
        ),
    ]
    for name, figure in (("AUROC", figures.auroc), ("average precision", figures.average_precision)):
        if figure:
            rows.append((name, figure.describe(), str(figure.count)))
    if figures.pixel_auroc is not None:
        rows.append(("AUROC of pixels", f"{figures.pixel_auroc:.4f}", ""))
        rows.append(("average precision of pixels", f"{figures.pixel_average_precision:.4f}", ""))
    rows += [(f"defects found, {name}", found.describe(), str(found.count)) for name, found in figures.defects.items()]
    for kept, found in figures.recall_at.items():
        rows.append((f"points found by the best {kept} detections", found.describe(), str(found.count)))
    return rows


def histogram(outcomes: Sequence[Outcome], threshold: float) -> str:
    """Draw how many good and defective strips have which score."""
    top = max(1.0, *(one.score for one in outcomes))
    counts = [
        np.histogram([one.score for one in outcomes if one.defective is kind], BINS, (0.0, top))[0]
        for kind in (False, True)
    ]
    most = max(1, *(int(count.max()) for count in counts))
    bars, wide = [], WIDTH_PX / BINS
    for kind, (count, colour) in enumerate(zip(counts, (GOOD_COLOUR, BAD_COLOUR), strict=True)):
        for place, value in enumerate(count.tolist()):
            high = value / most * HEIGHT_PX / 2
            y = HEIGHT_PX / 2 - (0 if kind else high)
            bars.append(
                f'<rect x="{place * wide:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{high:.1f}" '
                f'fill="{colour}"><title>{value} strips</title></rect>'
            )
    at = threshold / top * WIDTH_PX
    line = f'<path d="M0 {HEIGHT_PX / 2}H{WIDTH_PX}M{at:.1f} 0V{HEIGHT_PX}" stroke="#222"/>'
    words = f'<text x="0" y="{HEIGHT_PX + 16}" font-size="13">0</text>'
    words += f'<text x="{WIDTH_PX}" y="{HEIGHT_PX + 16}" font-size="13" text-anchor="end">{top:g}</text>'
    return f'<svg width="{WIDTH_PX}" height="{HEIGHT_PX + 20}">{"".join(bars)}{line}{words}</svg>'


def _pictures(subject: Subject, chosen: Iterable[Outcome], truths: dict[str, Truth], threshold: float) -> Iterator[str]:
    for one in chosen:
        truth = truths[str(one.path)]
        strip, mask = read_with_mask(truth, subject)
        drawn = [to_bgr(to_grey(strip)), overlay(to_grey(strip), subject.heatmap_of(strip))]
        _draw_truth(drawn[0], truth, mask)
        verdict = "anomalous" if one.score >= threshold else "ok"
        yield _figure(drawn, f"{shown_name(one.path)}: {one.score:.3f}, {verdict}")


def to_bgr(grey: Array) -> Array:
    """Give a grey picture, (height, width) uint8, in colours."""
    colours: Array = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    return colours


def overlay(grey: Array, heat: Array) -> Array:
    """Lay a heatmap, (height, width) in 0..1, over a grey picture."""
    mixed: Array = cv2.addWeighted(to_bgr(grey), 1 - STRONG, coloured(heat), STRONG, 0)
    return mixed


def _draw_truth(picture: Array, truth: Truth, mask: Array | None) -> None:
    if mask is not None and mask.any():
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, TRUTH_COLOUR, 1)
    for box in truth.boxes:
        cv2.rectangle(picture, (box.left, box.top), (box.right, box.bottom), TRUTH_COLOUR, 1)
    for row, column in truth.points:
        cv2.circle(picture, (column, row), 9, TRUTH_COLOUR, 1)


def _figure(panels: Sequence[Array], caption: str) -> str:
    gap = np.full((panels[0].shape[0], GAP_PX, 3), 255, np.uint8)
    joined = np.hstack([part for panel in panels for part in (panel, gap)][:-1])
    return f'<figure><img src="{data_url(joined)}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
