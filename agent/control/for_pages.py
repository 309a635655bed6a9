"""Commands of the page on the box (`strip-agent web`): they only read, and each answers in a bounded time.

Over the control socket alone; a page that is open asks `page_news` several times a second.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from agent import __version__, messages
from agent.clock import now_ms
from agent.control.arguments import Arguments, Name, Number, digits
from agent.control.context import CommandError
from agent.control.on_reviews import by_model
from agent.control.on_reviews import shown as shown_review
from agent.control.on_shadows import shadows
from agent.control.reports import models_of_slots
from agent.ledger.pages import Filter
from agent.messages.alarms import ALARMS
from agent.models.store import Store

if TYPE_CHECKING:
    from agent.control.context import Context, Who
    from agent.models.slot_state import SlotState

WEB_USER = "strip-agent-web"
"""The system's user that the page's unit runs as. It may ask what the page needs, and nothing else."""

MODELS_LISTED = 50
ACTIVATIONS_LISTED = 50
RATE_SECONDS = 600.0
LARGEST_PAGE = 100
WORST_PAIRS = 6  # of a shadow

WholeStripId = Annotated[str, digits("a strip", 16, 16)]
Verdict = Literal["ok", "anomalous", "invalid"]
_Part = Annotated[str, Field(max_length=200)]
_Reason = Annotated[str, Field(pattern="^[a-z_]{1,64}$")]


class OfStrip(Arguments):
    """A strip by its whole id, and one of its revisions (None: the newest result)."""

    strip_id: WholeStripId
    revision: Annotated[int, Field(ge=1, le=1 << 31)] | None = None


class Newest(Arguments):
    """How many results of each camera."""

    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 50


class Listed(Arguments):
    """Which results to list, and from where on."""

    camera: Name | None = None
    verdict: Verdict | None = None
    reason: _Reason | None = None
    part: _Part | None = None
    until_ms: Number | None = None
    before_seq: Number | None = None
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = 50

    def filter(self) -> Filter:
        """Return what fits."""
        return Filter(self.camera, self.verdict, self.reason, self.part, self.until_ms)


class ShownStrip(OfStrip):
    """A strip, and the filter that its neighbours have to fit."""

    camera: Name | None = None
    verdict: Verdict | None = None
    reason: _Reason | None = None
    part: _Part | None = None

    def filter(self) -> Filter:
        """Return what neighbours have to be."""
        return Filter(self.camera, self.verdict, self.reason, self.part)


def news(context: Context, _: Arguments, __: Who) -> dict[str, Any]:
    """Tell in a few numbers whether anything has changed since the last time."""
    seq, left = context.ledger.pages.news()
    return {"stream": context.ledger.database.stream, "seq": seq, "left": left, "now_ms": now_ms()}


def line(context: Context, asked: Newest, _: Who) -> dict[str, Any]:
    """Tell of each camera what came last, how many wait, and how fast they come."""
    balances = {balance.camera: balance for balance in context.ledger.report.balances()}
    watching = context.live()["watching"] if context.live is not None else {}
    cameras = []
    for camera in context.config.cameras:
        newest = context.ledger.pages.newest(camera.name, asked.limit)
        last = context.ledger.pages.message(newest[0]["strip_id"], newest[0]["revision"]) if newest else None
        balance = balances.get(camera.name)
        cameras.append(
            {
                "name": camera.name,
                "slot": camera.slot,
                "state": watching.get(camera.name, {}).get("state", ""),
                "paused": camera.name in context.ledger.operators.paused,
                "waiting": balance.waiting if balance else 0,
                "seen": balance.seen if balance else 0,
                "rate_per_minute": rate_per_minute([result["ts_ms"] for result in newest], now_ms()),
                "last": last,
                "results": newest,
            }
        )
    return {"agent": context.config.agent.name, "cameras": cameras, **_now(context)}


def rate_per_minute(times_ms: list[int], now: int) -> float:
    """Say how many results come in a minute: those of the last ten, or fewer where more than that is not known of.

    `times_ms` are Unix milliseconds, the newest first; 0.0 where nothing came in ten minutes.
    """
    recent = [ms for ms in times_ms if now - ms <= RATE_SECONDS * 1000]
    if not recent:
        return 0.0
    seconds = RATE_SECONDS if len(recent) < len(times_ms) else max(1.0, (now - recent[-1]) / 1000)
    return len(recent) * 60 / seconds


def strips(context: Context, asked: Listed, _: Who) -> dict[str, Any]:
    """List results, the newest first; `next_before_seq` is where the next page begins, None at the end."""
    found = context.ledger.pages.older(asked.filter(), asked.before_seq, asked.limit)
    names = sorted(context.config.cameras, key=lambda camera: camera.name)
    return {"results": found.results, "next_before_seq": found.looked_to, "cameras": [one.name for one in names]} | (
        _now(context)
    )


def strip(context: Context, asked: ShownStrip, _: Who) -> dict[str, Any]:
    """Show everything known of one strip, and its neighbours."""
    shown = context.ledger.report.show_strip(asked.strip_id)
    if shown is None:
        raise CommandError(f"there is no strip {asked.strip_id}")
    shown["reviews"] = [shown_review(said) for said in context.ledger.reviews.of_strip(shown["row"])]
    neighbours: dict[str, Any] = {"older": None, "newer": None}
    revisions = {result["revision"]: result for result in shown["results"]}
    at = revisions.get(asked.revision or max(revisions, default=0))
    if at is not None:
        older = context.ledger.pages.older(asked.filter(), at["seq"], 1).results
        newer = context.ledger.pages.newer(asked.filter(), at["seq"], 1).results
        neighbours = {"older": older[0] if older else None, "newer": newer[0] if newer else None}
    return {"strip": shown, **neighbours, "may_retry": "retry" in context.config.mqtt.commands, **_now(context)}


def picture(context: Context, asked: OfStrip, _: Who) -> dict[str, Any]:
    """Say which files show a strip. Its path is relative to one of `folders`, the others to the heatmap folder."""
    file = context.ledger.pages.file_of(asked.strip_id)
    message = context.ledger.pages.message(asked.strip_id, asked.revision)
    if file is None or message is None:
        raise CommandError(f"there is no result of strip {asked.strip_id} with this revision")
    camera = next((camera for camera in context.config.cameras if camera.name == file["camera"]), None)
    facts = None if camera is None else _state(context, camera.slot).accepted.get(message["model_sha256"])
    folders = [] if camera is None else [camera.folder, camera.done_folder]
    keys = ("revision", "heatmap_path", "preview_path", "verdict", "threshold")
    return {
        **file,
        **{key: message[key] for key in keys},
        "folders": [str(folder) for folder in folders if folder is not None],
        "height": facts.height if facts else 0,
        "width": facts.width if facts else 0,
    }


def models(context: Context, _: Arguments, who: Who) -> dict[str, Any]:
    """Tell of each slot what is active, what was refused and why, how far probation is, its shadow, the history."""
    slots = models_of_slots(context)
    for name, slot in slots.items():
        counts = _state(context, name).probation_counts
        journey = context.models.get(name)
        if journey is not None:
            counts = journey.keeper.tally.counted.to_counts()
            slot["postponed"] = journey.postponed.describe()
            slot["inbox"] = journey.inbox.describe()
        slot["kept"] = list(_state(context, name).kept)
        slot["probation"] = {"strips": context.config.models.probation.strips, **counts}
    ledger = context.ledger.models
    return {
        "slots": slots,
        "models": ledger.list_models()[:MODELS_LISTED],
        "activations": ledger.activations()[:ACTIVATIONS_LISTED],
        "reviews": by_model(context),
        "shadows": shadows(context, who, WORST_PAIRS),
        "may_activate": "activate" in context.config.mqtt.commands,
        **_now(context),
    }


def health(context: Context, _: Arguments, __: Who) -> dict[str, Any]:
    """Tell how the agent is: its alarms in words, and the balance of its strips by the counters."""
    live = context.live() if context.live is not None else {}
    taken = live.get("health", {})
    cameras = [camera.name for camera in context.config.cameras]
    since = {alarm.name: alarm.since_ms for alarm in context.ledger.alarms.raised()}
    explained = []
    for name in filter(None, taken.get("alarms", "").split(",")):
        alarm = messages.explain(name, cameras, context.config.slots)
        kind = ALARMS.get(alarm.code)
        explained.append(
            {**asdict(alarm), "name": name, "advice": kind.advice if kind else "", "since_ms": since.get(name, 0)}
        )
    balances = context.ledger.report.balances()
    return {
        "version": __version__,
        "health": taken,
        "alarms": explained,
        "watching": live.get("watching", {}),
        "workers": live.get("workers", {}),
        "heatmaps": live.get("heatmaps", {}),
        "balances": [asdict(balance) | {"balanced": balance.balanced} for balance in balances],
        "depths": asdict(context.ledger.report.depths()),
        "slots": models_of_slots(context),
        **_now(context),
    }


def _now(context: Context) -> dict[str, Any]:
    """Say what every page shows at its edge: whose it is, and of when."""
    return {"agent": context.config.agent.name, "now_ms": now_ms()}


def _state(context: Context, slot: str) -> SlotState:
    return Store(context.config.agent.state_folder / "store").load(slot).state
