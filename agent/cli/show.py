"""Facts as text for people: one function for each command."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import click

from agent.cli.show_reviews import of_model, reviews_of_strip
from agent.printable import model_name

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LINKS_SHOWN = 5
SHOWN_AT_MOST = 50


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
    spoilt = [f"config    NOT USABLE: {problem}" for problem in facts.get("config_problems", [])]
    runs_on = ["config    the service runs on with what it read before; it would not start again with this one"]
    lines += spoilt + runs_on if spoilt else _configuration(facts)
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
    again = f", {outbox['replays']} to be sent again" if outbox.get("replays") else ""  # an older service has none
    lines.append(f"outbox    {outbox['outbox_pending']} messages wait{oldest}{again}; last seq {outbox['last_seq']}")
    for slot, model in facts["models"].items():
        name = f"{model['active_model_id'] or 'unlabelled'} version {model['active_version']}"
        shown = f"{name} ({model['active_sha256'][:12]}), golden strip {model['golden']}"
        probation = ", on probation" if model["on_probation"] else ""
        probation += f", because a later one had to go ({model['returned']})" if model["returned"] else ""
        said = of_model(facts.get("reviews", {}).get(model["active_sha256"]))  # an older service tells less
        probation += f"; {said}" if said else ""
        held = facts.get("workers", {}).get(slot, {}).get("held", "")
        hold = f"; HELD: {held}" if held else ""
        hold += _provider(facts.get("workers", {}).get(slot, {}))
        shadow = model.get("shadow_sha256", "")  # an older service has none
        off = f", SWITCHED OFF: {model['shadow_off']}" if shadow and model["shadow_off"] else ""
        probation += f"; shadow {shadow[:12]}{off}" if shadow else ""
        lines.append(f"model     {slot}: {shown + probation + hold if model['active_sha256'] else 'none: strips wait'}")
    return "\n".join([*lines, *_cameras(facts), *_drift(facts), *_operators(facts)])


def _provider(worker: dict[str, Any]) -> str:
    """Say what computes where it is not simply the cpu; an older service does not tell."""
    if refused := worker.get("provider_refused"):
        return f"; ON THE CPU, as it cannot be computed by {refused}"
    provider = worker.get("provider", "cpu")
    return f"; computed by {provider}" if provider not in ("", "cpu") else ""


def _configuration(facts: dict[str, Any]) -> list[str]:
    """Show how the configuration's file differs from what runs."""
    found = facts.get("configuration", {})  # an older service, or none, tells nothing
    restart = found.get("needs_restart", [])
    lines = [f"config    NOT USABLE: {found['file']}: {problem}" for problem in found.get("problems", [])]
    if found.get("state") != "differs":
        return lines
    lines += [f"config    not applied: {change}" for change in found["changes"]]
    needs = f"a restart is needed for {', '.join(change.partition(':')[0] for change in restart)}"
    return [*lines, f"config    {needs if restart else '`systemctl reload strip-agent` applies it'}"]


def _cameras(facts: dict[str, Any]) -> list[str]:
    """Show each camera's folder, and the files in it that need somebody."""
    lines = []
    for camera, watching in facts.get("watching", {}).items():
        detail = f": {watching['detail'] or watching['error']}" if watching["detail"] or watching["error"] else ""
        passed_over = watching.get("ignored", 0)  # a service that was not restarted after an upgrade tells less
        ignored = f"; {passed_over} names are passed over (ignore)" if passed_over else ""
        lines.append(f"camera    {camera}: {watching['state']}{detail}{ignored}")
        if linked := watching.get("linked_folders", []):
            more = f" and {len(linked) - _LINKS_SHOWN} more" if len(linked) > _LINKS_SHOWN else ""
            named = ", ".join(linked[:_LINKS_SHOWN]) + more
            lines.append(f"camera    {camera}: NOT FOLLOWED, as they are links to folders: {named}")
    if detail := facts.get("heatmaps", {}).get("detail"):
        lines.append(f"heatmaps  none are written: {detail}")
    for camera, error in facts.get("files", {}).items():
        lines += [f"camera    {camera}: {error}"] if error else []
    for camera, files in facts["staying"].items():
        lines += [f"camera    {camera}: stays where it is: {file}" for file in files]
    if facts["seen_again"]:
        lines.append(f"seen again {facts['seen_again']} times with other times but the same content: not judged again")
    for camera, waiting in facts["abandoned"].items():
        lines.append(f"camera    {camera}: not configured any more; {waiting} of its strips wait for ever")
    return lines


def _drift(facts: dict[str, Any]) -> list[str]:
    """Show what has changed on each camera's line, and what that is compared with."""
    lines = []
    for camera, drift in facts.get("drift", {}).items():
        apart = f"; {drift['not_compared']} strips could not be compared" if drift["not_compared"] else ""
        lines += [f"drift     {camera}: {cause.upper()}: {text}" for cause, text in drift["changed"].items()]
        if drift["reference"] == "none":
            lines.append(
                f"drift     {camera}: no reference: the model's file has none; {drift['learned']} of the "
                f"{drift['learns']} strips have come that will be one{apart}"
            )
        elif not drift["changed"]:
            source = "the calibration" if drift["reference"] == "calibration" else "the camera's first strips"
            lines.append(f"drift     {camera}: the last {drift['strips']} strips look like {source}{apart}")
    return lines


def _operators(facts: dict[str, Any]) -> list[str]:
    """Show what operators have set, and what was not done of what they asked."""
    lines = [
        f"camera    {camera}: PAUSED by {pause['sender']}: its strips wait for `strip-agent resume`"
        for camera, pause in facts.get("paused", {}).items()  # an older service tells less
    ]
    for camera, told in facts.get("thresholds", {}).items():
        lines.append(f"camera    {camera}: threshold {told['value']:g}, set by {told['sender']}")
    ignored = ", ".join(f"{number} {why}" for why, number in facts.get("commands_ignored", {}).items())
    return [*lines, f"commands  ignored over MQTT: {ignored}"] if ignored else lines


def problems(file: str, facts: dict[str, Any]) -> str:
    """Show what is wrong with the configuration file."""
    lines = []
    for problem in facts["problems"]:
        place = f"line {problem['line']}" if problem["line"] else ""
        level = "warning" if problem["warning"] else ""
        where = "" if problem["where"] == file else problem["where"]
        lines.append(": ".join(filter(None, [file, level, place, where, problem["message"]])))
    return "\n".join([*lines, f"{file}: {'good' if facts['ok'] else 'not usable'}"])


def audit(facts: dict[str, Any]) -> str:
    """Show the audit."""
    columns = ("seen", "pending", "acknowledged", "ok", "anomalous", "invalid", "skipped", "dropped")
    width = max([len("camera"), *(len(camera) for camera in facts["cameras"])])
    lines = [f"{'camera':<{width}}  " + "  ".join(f"{column:>12}" for column in columns)]
    rows = [*facts["cameras"].items(), ("all", facts["strips"])]
    lines += [f"{camera:<{width}}  " + "  ".join(f"{row[column]:>12}" for column in columns) for camera, row in rows]
    shown = facts["unpublished"][:SHOWN_AT_MOST]
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
    results, reviews = shown.pop("results"), shown.pop("reviews", [])
    lines = [f"{key:<12} {value}" for key, value in shown.items() if key != "row"]
    for result in results:
        lines += ["", f"result {result['seq']}, revision {result['revision']}"]
        lines += [f"  {key:<18} {value}" for key, value in result.items() if value != ""]
    lines += ["", *reviews_of_strip(reviews)] if reviews else []
    return "\n".join(lines)


def retried(facts: dict[str, Any]) -> str:
    """Show which strips are judged again."""
    lines = [f"{strip_id}  is judged again" for strip_id in facts["retried"]]
    lines += [f"{strip_id}  {why}" for strip_id, why in facts["refused"].items()]
    return "\n".join(lines) or "no strips"


def resent(facts: dict[str, Any]) -> str:
    """Show what is sent again, and what cannot be."""
    lines = [f"{facts['queued']} results of stream {facts['stream']} are sent again on replay/strip/<camera>"]
    if facts["waiting"]:
        lines.append(f"{facts['waiting']} wait for the broker and arrive by themselves")
    if facts["to_seq"] > facts["last_seq"]:
        lines.append(f"numbers above {facts['last_seq']} have not been given yet")
    if facts["purged"]:
        named = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in facts["purged"])
        lines.append(f"not in this ledger any more: {named}")
    return "\n".join(lines)


def paused(facts: dict[str, Any]) -> str:
    """Show that a camera is paused."""
    since = datetime.fromtimestamp(facts["since_ms"] / 1000).astimezone().isoformat(timespec="seconds")
    if not facts["changed"]:
        return f"camera {facts['camera']}: is paused since {since}, by {facts['sender']}"
    return f"camera {facts['camera']}: paused; its strips wait until `strip-agent resume {facts['camera']}`"


def resumed(facts: dict[str, Any]) -> str:
    """Show that a camera's strips are judged again."""
    return f"camera {facts['camera']}: {'resumed' if facts['changed'] else 'was not paused'}"


def threshold(facts: dict[str, Any]) -> str:
    """Show which threshold decides, and whose it is."""
    value, source, told = facts["threshold"], facts["source"], facts["operator"]
    number = f"the model's, else {facts['without_one']:g}" if value is None else f"{value:g}"
    whose = {"camera": " (cameras[].threshold)", "configuration": " (scoring.threshold)"}.get(source, "")
    lines = [f"camera {facts['camera']}: {number}{whose}"]
    if told is not None:
        unused = "" if told["in_use"] else f"; NOT USED: it is no score of this scoring.method, but of {told['method']}"
        lines.append(f"{told['value']:g} was set by {told['sender']}{unused}; `threshold CAMERA clear` takes it back")
    return "\n".join(lines)


def rescanned(facts: dict[str, Any]) -> str:
    """Show which folders are read."""
    return f"the folders of {', '.join(facts['cameras'])} are read as a whole now"


def models(facts: dict[str, Any]) -> str:
    """Show the models of all slots."""
    lines = []
    for slot, model in facts["slots"].items():
        active = model["active_sha256"][:12] or "none"
        shadow = f", shadow {model['shadow_sha256'][:12]}" if model.get("shadow_sha256") else ""
        lines.append(f"slot {slot}: active {active}, previous {model['previous_sha256'][:12] or 'none'}{shadow}")
        inbox = facts.get("inboxes", {}).get(slot, {"state": "ok"})
        if inbox["state"] not in ("starting", "ok"):
            lines.append(f"  the inbox {inbox['folder']} is {inbox['state']}: {inbox['detail']}")
        for file, waits_for in facts["postponed"].get(slot, {}).items():
            lines.append(f"  {file} could not be tried and will be tried again: {waits_for}")
    for row in facts["models"]:
        name = f"{model_name(row['model_id'], row['version'])}  " if row["model_id"] or not row["file"] else ""
        why = f"  {row['reason']}: {row['detail']}" if row["reason"] else ""
        why += f"; {row['facts']['return_detail']}" if "return_detail" in row["facts"] else ""
        said = of_model(facts.get("reviews", {}).get(row["sha256"]))
        why += f"  ({said})" if said else ""
        lines.append(f"  {row['sha256'][:12] or '-':<12}  {row['slot']:<8} {row['state']:<10} {name}{row['file']}{why}")
    return "\n".join(lines)


def requested(facts: dict[str, Any]) -> str:
    """Show that a model has been asked for."""
    return (
        f"slot {facts['slot']}: model {facts['sha256'][:12]} goes through its trial now; see `strip-agent models list`"
    )


def forgotten(facts: dict[str, Any]) -> str:
    """Show what has been taken back."""
    if not facts["sha256"]:
        return f"slot {facts['slot']}: only the active model's version holds older ones off now"
    return f"slot {facts['slot']}: what was said against model {facts['sha256'][:12]} is taken back"


def verified(facts: dict[str, Any]) -> str:
    """Show how the trial of a model file ended, and what this box has said of it before."""
    name = model_name(facts.get("model_id", ""), facts.get("version", 0))
    found = f"good: {name}; {facts['detail']}" if facts["good"] else f"refused: {facts['reason']}: {facts['detail']}"
    lines = [f"{facts['file']}: {found}"]
    for before in facts["before"]:
        why = f" ({before['reason']}: {before['detail']})" if before["reason"] else ""
        lines.append(f"slot {before['slot']}: was {before['kind']} before{why}")
        if before["kind"] != "active":
            lines.append("  `strip-agent models forget` takes that back")
    return "\n".join(lines)


def scored(facts: dict[str, Any]) -> str:
    """Show one scored strip."""
    if facts["verdict"] == "invalid":
        return f"invalid    {facts['file']}  {facts['reason']}: {facts['detail']}"
    found = f"score {facts['score']:.6f}  threshold {facts['threshold']:g}  {facts['defect_count']} found"
    return f"{facts['verdict']:<10} {facts['file']}  {found}  {facts['inference_ms']:.0f} ms"


def findings(facts: dict[str, Any]) -> str:
    """Show what the doctor found."""
    return "\n".join(f"{item['level']:<5} {item['what']}: {item['detail']}" for item in facts["findings"])
