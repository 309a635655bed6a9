"""Facts as text for people: one function for each command."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import click

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LINKS_SHOWN = 5
_SHOWN_AT_MOST = 50


def parse_since(text: str | None, now_seconds: float) -> int:
    """Turn `8h`, `3d` or an ISO time (local, or with its zone) into Unix milliseconds; None is 0: from the beginning.

    Raises click.BadParameter for anything else.
    """
    if text is None:
        return 0
    age = re.fullmatch(r"(\d+)([smhd])", text)
    if age:
        return int((now_seconds - int(age[1]) * _AGES[age[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1000)
    except ValueError as error:
        raise click.BadParameter(f"--since {text}: write 8h, 3d or 2026-11-22T08:00") from error


def status(facts: dict[str, Any]) -> str:
    """Show the status."""
    strips, outbox = facts["strips"], facts["outbox"]
    lines = [f"strip-agent {facts['version']} on {facts['agent']}: {'running' if facts['running'] else 'not running'}"]
    health = facts.get("health")
    if health:
        alarms = f" ({health['alarms'].replace(',', ', ')})" if health["alarms"] else ""
        lines.append(f"health    {health['status']}{alarms}")
        broker = f"connected, MQTT {health['broker_protocol']}" if health["broker_connected"] else "not connected"
        error = f": {health['broker_error']}" if health["broker_error"] and not health["broker_connected"] else ""
        lines.append(f"broker    {broker}{error}; delivery {health['delivery']}")
    lines.append(
        f"strips    {strips['seen']} seen = {strips['pending']} pending + {strips['acknowledged']} acknowledged "
        f"({strips['ok']} ok, {strips['anomalous']} anomalous, {strips['invalid']} invalid) "
        f"+ {strips['skipped']} skipped + {strips['dropped']} dropped"
    )
    oldest = f", the oldest for {health['outbox_oldest_s']:.0f} s" if health and outbox["outbox_pending"] else ""
    lines.append(f"outbox    {outbox['outbox_pending']} messages wait{oldest}; last seq {outbox['last_seq']}")
    for slot, model in facts["models"].items():
        name = f"{model['active_model_id'] or 'unlabelled'} version {model['active_version']}"
        shown = f"{name} ({model['active_sha256'][:12]}), golden strip {model['golden']}"
        probation = ", on probation" if model["on_probation"] else ""
        probation += f", because a later one had to go ({model['returned']})" if model["returned"] else ""
        held = facts.get("workers", {}).get(slot, {}).get("held", "")
        hold = f"; HELD: {held}" if held else ""
        lines.append(f"model     {slot}: {shown + probation + hold if model['active_sha256'] else 'none: strips wait'}")
    for camera, watching in facts.get("watching", {}).items():
        detail = f": {watching['detail'] or watching['error']}" if watching["detail"] or watching["error"] else ""
        passed_over = watching.get("ignored", 0)  # a service that was not restarted after an upgrade tells less
        ignored = f"; {passed_over} names are passed over (ignore)" if passed_over else ""
        lines.append(f"camera    {camera}: {watching['state']}{detail}{ignored}")
        if linked := watching.get("linked_folders", []):
            more = f" and {len(linked) - _LINKS_SHOWN} more" if len(linked) > _LINKS_SHOWN else ""
            named = ", ".join(linked[:_LINKS_SHOWN]) + more
            lines.append(f"camera    {camera}: NOT FOLLOWED, as they are links to folders: {named}")
    for camera, error in facts.get("files", {}).items():
        lines += [f"camera    {camera}: {error}"] if error else []
    for camera, files in facts["staying"].items():
        lines += [f"camera    {camera}: stays where it is: {file}" for file in files]
    if facts["seen_again"]:
        lines.append(f"seen again {facts['seen_again']} times with other times but the same content: not judged again")
    for camera, waiting in facts["abandoned"].items():
        lines.append(f"camera    {camera}: not configured any more; {waiting} of its strips wait for ever")
    return "\n".join(lines)


def audit(facts: dict[str, Any]) -> str:
    """Show the audit."""
    columns = ("seen", "pending", "acknowledged", "ok", "anomalous", "invalid", "skipped", "dropped")
    width = max([len("camera"), *(len(camera) for camera in facts["cameras"])])
    lines = [f"{'camera':<{width}}  " + "  ".join(f"{column:>12}" for column in columns)]
    rows = [*facts["cameras"].items(), ("all", facts["strips"])]
    lines += [f"{camera:<{width}}  " + "  ".join(f"{row[column]:>12}" for column in columns) for camera, row in rows]
    shown = facts["unpublished"][:_SHOWN_AT_MOST]
    if shown:
        lines += ["", "not published:"]
        lines += [f"  {item['strip_id']}  {item['camera']}/{item['file']}  {item['why']}" for item in shown]
        more = len(facts["unpublished"]) - len(shown) + facts["unpublished_not_named"]
        lines += [f"  and {more} more (--json names them)"] if more else []
    lines.append("")
    if facts["balanced"]:
        lines.append("balanced: seen = pending + acknowledged + skipped + dropped, and every row agrees")
    else:
        lines += ["NOT BALANCED:", *(f"  {problem}" for problem in facts["problems"])]
    return "\n".join(lines)


def strips(facts: dict[str, Any]) -> str:
    """Show a list of strips."""
    lines = []
    for item in facts["strips"]:
        score = "" if item["score"] is None or item["score"] < 0 else f"score {item['score']:.4f}"
        name = f"{item['camera']}/{item['file']}"
        lines.append(f"{item['strip_id']}  {item['state']:<10} {item['reason'] or score:<22} {name}")
    if facts["cut"]:
        lines.append(f"only the newest {len(lines)}; --limit shows more")
    return "\n".join(lines) or "no strips"


def strip(facts: dict[str, Any]) -> str:
    """Show one strip and its results."""
    shown = dict(facts["strip"])
    results = shown.pop("results")
    lines = [f"{key:<12} {value}" for key, value in shown.items() if key != "row"]
    for result in results:
        lines += ["", f"result {result['seq']}, revision {result['revision']}"]
        lines += [f"  {key:<18} {value}" for key, value in result.items() if value != ""]
    return "\n".join(lines)


def retried(facts: dict[str, Any]) -> str:
    """Show which strips are judged again."""
    lines = [f"{strip_id}  is judged again" for strip_id in facts["retried"]]
    lines += [f"{strip_id}  {why}" for strip_id, why in facts["refused"].items()]
    return "\n".join(lines) or "no strips"


def models(facts: dict[str, Any]) -> str:
    """Show the models of all slots."""
    lines = []
    for slot, model in facts["slots"].items():
        active = model["active_sha256"][:12] or "none"
        lines.append(f"slot {slot}: active {active}, previous {model['previous_sha256'][:12] or 'none'}")
        for file, waits_for in facts["postponed"].get(slot, {}).items():
            lines.append(f"  {file} could not be tried and will be tried again: {waits_for}")
    for row in facts["models"]:
        name = f"{row['model_id'] or '(no id)'} version {row['version']}"
        why = f"  {row['reason']}: {row['detail']}" if row["reason"] else ""
        why += f"; {row['facts']['return_detail']}" if "return_detail" in row["facts"] else ""
        lines.append(
            f"  {row['sha256'][:12] or '-':<12}  {row['slot']:<8} {row['state']:<10} {name}  {row['file']}{why}"
        )
    return "\n".join(lines)


def requested(facts: dict[str, Any]) -> str:
    """Show that a model has been asked for."""
    return (
        f"slot {facts['slot']}: model {facts['sha256'][:12]} goes through its trial now; see `strip-agent models list`"
    )


def verified(facts: dict[str, Any]) -> str:
    """Show how the trial of a model file ended."""
    if not facts["good"]:
        return f"{facts['file']}: refused: {facts['reason']}: {facts['detail']}"
    return f"{facts['file']}: good: {facts['model_id'] or '(no id)'} version {facts['version']}; {facts['detail']}"


def scored(facts: dict[str, Any]) -> str:
    """Show one scored strip."""
    if facts["verdict"] == "invalid":
        return f"invalid    {facts['file']}  {facts['reason']}: {facts['detail']}"
    found = f"score {facts['score']:.6f}  threshold {facts['threshold']:g}  {facts['defect_count']} regions"
    return f"{facts['verdict']:<10} {facts['file']}  {found}  {facts['inference_ms']:.0f} ms"


def findings(facts: dict[str, Any]) -> str:
    """Show what the doctor found."""
    return "\n".join(f"{item['level']:<5} {item['what']}: {item['detail']}" for item in facts["findings"])
