"""Reviews as text for people."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def reviewed(facts: dict[str, Any]) -> str:
    """Show the review that was recorded."""
    review = facts["review"]
    about = f", of revision {review['revision']} ({review['verdict']})" if review["revision"] else ""
    return f"strip {review['strip_id']}: {review['finding']}, says {review['person']}{about}"


def reviews_of_strip(listed: list[dict[str, Any]]) -> list[str]:
    """Show what was said about a strip, the earliest first."""
    lines = []
    for review in listed:
        when = datetime.fromtimestamp(review["reviewed_ms"] / 1000).astimezone().isoformat(timespec="seconds")
        about = f" of revision {review['revision']} ({review['verdict']})" if review["revision"] else ""
        later = ", who said something else later" if review["replaced"] else ""
        remark = f": {review['remark']}" if review["remark"] else ""
        lines.append(f"review {when}: {review['finding']}{about}, says {review['person']}{later}{remark}")
    return lines


def of_model(summary: dict[str, Any] | None) -> str:
    """Show what reviews say about a model: "" where there are none."""
    if summary is None:
        return ""
    sure = summary["confirmed"] + summary["false_alarms"]
    parts = [f"{summary['reviewed']} reviewed"]
    if sure:
        parts.append(f"{summary['false_alarms']} of {sure} alarms false ({summary['false_alarm_rate']:.0%})")
    if summary["misses"]:
        parts.append(f"{summary['misses']} missed")
    return ", ".join(parts)
