"""The page of `replay`: what changes, all scores before and now, and the strips where most changes."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from agent.comparing import change_rows
from agent.page import page, png_url, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.hindsight.replay import Replay, Rescored

SIDE_PX, LEFT_PX = 360, 50
SAME_COLOUR, FLIP_COLOUR = "#37a", "#c33"
WHY = {
    "gone": "the file is not there any more",
    "replaced": "another file has its name now",
    "unreadable": "the file cannot be read",
    "never_read": "the file was never read",
    "camera_gone": "its camera is not configured any more",
}


def replay_page(found: Replay, shown: Sequence[Rescored], limit: str, *, too_much: bool) -> str:
    """Write the page; `shown` are the strips with pictures, `limit` what was allowed, "" where nothing was asked."""
    name = model_name(found)
    verdict = f"More changes than is allowed ({limit})." if too_much else f"Within what is allowed ({limit})."
    parts = [
        f"<h1>{html.escape(name)} against what was published</h1>",
        f"<p{' class=bad' if too_much else ''}>{html.escape(verdict)}</p>" if limit else "",
        table(("", ""), [*change_rows(found.change), *left_out_rows(found)]),
        "<p>Times are not compared: this was done with one thread, by what the live service left over.</p>",
        "<h2>Scores</h2><p>Across: as published; upwards: now. Red: the verdict changes.</p>",
        _scatter(found.strips),
        "<h2>Where most changes</h2>",
    ]
    for one in shown:
        pictures = [
            f'<p>{when}:<br><img src="{png_url(png)}" alt="{when}"></p>' if png else f"<p>{when}: no picture</p>"
            for when, png in zip(("as published", "now"), one.pictures, strict=True)
        ]
        parts.append(f"<figure><figcaption>{html.escape(describe(one))}</figcaption>{''.join(pictures)}</figure>")
    return page(f"{name} against what was published", filter(None, parts))


def model_name(found: Replay) -> str:
    """Name the model for people."""
    return f"{found.model.model_id or 'unlabelled model'} version {found.model.version} ({found.sha256[:12]})"


def left_out_rows(found: Replay) -> list[tuple[str, str]]:
    """Give as rows of text how many strips could not be judged again, and why."""
    return [(f"left out: {WHY[why]}", str(len(files))) for why, files in sorted(found.left_out.items())]


def describe(one: Rescored) -> str:
    """Say in one line what changes for a strip."""
    before, now = (
        verdict if score is None else f"{verdict} {score:.4f} (threshold {threshold:g})"
        for verdict, score, threshold in zip(
            one.pair.verdicts, one.pair.scores, (one.said.threshold, one.threshold), strict=True
        )
    )
    why = f", {one.why}" if one.why else ""
    return f"{one.said.camera}/{one.said.file} ({one.said.strip_id}): {before} -> {now}{why}"


def _scatter(strips: Sequence[Rescored]) -> str:
    both = [(one, *scores) for one in strips if None not in (scores := one.pair.scores)]
    top = max([1.0, *(score for _, *scores in both for score in scores if score is not None)])
    dots = []
    for one, before, now in both:
        assert before is not None  # noqa: S101 - both are scores
        assert now is not None  # noqa: S101
        x, y = LEFT_PX + before / top * SIDE_PX, SIDE_PX - now / top * SIDE_PX
        colour = FLIP_COLOUR if one.pair.flips else SAME_COLOUR
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}" fill-opacity=".6">'
            f"<title>{html.escape(one.said.file)}</title></circle>"
        )
    frame = f'<rect x="{LEFT_PX}" y="0" width="{SIDE_PX}" height="{SIDE_PX}" fill="none" stroke="#bbb"/>'
    same = f'<path d="M{LEFT_PX} {SIDE_PX}L{LEFT_PX + SIDE_PX} 0" stroke="#bbb"/>'
    words = f'<text x="{LEFT_PX}" y="{SIDE_PX + 16}" font-size="13">0</text>'
    words += f'<text x="{LEFT_PX + SIDE_PX}" y="{SIDE_PX + 16}" font-size="13" text-anchor="end">{top:g}</text>'
    words += f'<text x="{LEFT_PX - 4}" y="12" font-size="13" text-anchor="end">{top:g}</text>'
    size = f'width="{LEFT_PX + SIDE_PX + 4}" height="{SIDE_PX + 20}"'
    return f"<svg {size}>{frame}{same}{''.join(dots)}{words}</svg>"
