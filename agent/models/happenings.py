"""What can happen to a slot's models: pure functions of its state.

Each gives what is remembered afterwards and what has to be told of it; `models/slot_record.py` saves that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.errors import Reason
from agent.ledger import ModelRecord
from agent.models import slot_state
from agent.models.message import trial_summary
from agent.models.slot_state import Accepted, Dealt, Fate, Refusal, Shadow, file_key
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.contract.manifest import Manifest
    from agent.errors import Reject
    from agent.models.inbox_folder import InboxFile
    from agent.models.message import Event
    from agent.models.probation import Counted, Failing
    from agent.models.slot_state import SlotState
    from agent.wire import Loaded

MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is to be tried."""

    sha256: str
    file: InboxFile | None = None  # None: it is in the store already
    manifest: Manifest | None = None
    push: str = ""  # digest of the model and its manifest together; "" when it does not come from the inbox

    @property
    def is_for_shadow(self) -> bool:
        """Whether its manifest wants it to score beside the active model."""
        return self.manifest is not None and self.manifest.shadow

    @property
    def size_bytes(self) -> int:
        """Size of its file in the inbox; 0 when it does not come from there."""
        return self.file.identity.size_bytes if self.file is not None and self.file.identity is not None else 0


# -- a model comes in --------------------------------------------------------------------------------------------------


def accepted(
    before: SlotState,
    candidate: Candidate,
    loaded: Loaded,
    left: Failing | None,
    counted: Counted,
    behind: Sequence[InboxFile],
    *,
    probation: bool,
    keep: int,
) -> SlotState:
    """Make a candidate the active model.

    `left`: why the active one is given up; `counted`: what that one did; `behind`: files that the candidate goes
    before; `probation`: whether new models are watched; `keep`: the number of models that stay in the store.
    """
    sha256 = candidate.sha256
    state = replace(before, accepted=_with_serving_time(before, counted))
    facts = _facts(before, candidate, loaded)
    on_probation = probation and before.active not in ("", sha256) and not left
    withdraws = left is not None and before.active not in ("", sha256)
    if left is not None and withdraws:
        rest = {name: other for name, other in state.accepted.items() if name != before.active}
        state = slot_state.refuse(replace(state, accepted=rest), before.active, _refusal(state, before.active, left))
        state = slot_state.dealt(state, Dealt("", "", before.active, "", Fate.WITHDRAWN))
    state = slot_state.activate(state, sha256, facts, on_probation=on_probation, keep=keep)
    note = f"{facts.file} was there with it and goes before it"
    state = slot_state.dealt(
        state,
        _dealt(candidate, Fate.ACCEPTED),
        *(Dealt(other.name, other.key, "", "", Fate.BEHIND, note) for other in behind),
    )
    if left is not None and withdraws:
        return _returned(state, before, left)
    return _tell(state, "activated", _record(state, sha256, "active", loaded), detail=trial_summary(loaded))


def _facts(state: SlotState, candidate: Candidate, loaded: Loaded) -> Accepted:
    """Give what is remembered of a candidate that passed its trial."""
    file, manifest = candidate.file, candidate.manifest
    model_id, version = loaded.model_id, loaded.version
    if manifest is not None and not loaded.labelled:
        model_id, version = manifest.model_id, manifest.version
    return Accepted(
        model_id,
        version,
        loaded.height,
        loaded.width,
        loaded.golden,
        loaded.run_ms,
        loaded.cpu_ms,
        since_ms=now_ms(),
        file=show_name(file.name) if file else state.file_of(candidate.sha256),
    )


def superseded(state: SlotState, file: InboxFile, sha256: str, note: str) -> SlotState:
    """Note that a file stands behind an accepted one, once it has been read; `note` says behind which."""
    name = show_name(file.name)
    record = ModelRecord(file_key(name), sha256, "superseded", name, detail=note)
    kind = Fate.SUPERSEDED if sha256 else Fate.UNREAD
    state = slot_state.dealt(state, Dealt(file.name, file.key, sha256, "", kind))
    return _tell(state, "superseded", record, detail=note)


def refused(
    state: SlotState,
    candidate: Candidate,
    refusal: Reject,
    *,
    bytes_are_to_blame: bool,
    stated: tuple[str, int] = ("", 0),
) -> SlotState:
    """Leave the reason, the sentence and the numbers; the same bytes, or the same file, are not tried again.

    `stated`: id and version that it, or its manifest, says it has; "" and 0 where that is not known.
    """
    sha256, file = candidate.sha256, candidate.file
    name = show_name(file.name) if file else state.file_of(sha256)
    detail = refusal.detail[:MAX_DETAIL_CHARACTERS]
    key = sha256 if bytes_are_to_blame and sha256 else file_key(name)
    if key in state.kept:  # an operator asked for it, and it fails now
        key = file_key(name)
    state = slot_state.refuse(state, key, Refusal("rejected", sha256, refusal.reason, detail, name, now_ms()))
    state = slot_state.dealt(state, _dealt(candidate, _fate(refusal, sha256, by_bytes=key == sha256)))
    record = ModelRecord(key, sha256, "rejected", name, *stated, reason=refusal.reason, detail=detail)
    return _tell(state, "rejected", record, reason=refusal.reason, detail=detail)


def _fate(refusal: Reject, sha256: str, *, by_bytes: bool) -> Fate:
    if not sha256:
        return Fate.UNREAD
    if by_bytes:
        return Fate.REJECTED
    return Fate.OUTDATED if refusal.reason is Reason.VERSION_TOO_LOW else Fate.PAPERS


def unchanged(state: SlotState, candidate: Candidate, kind: str, *, quiet: bool) -> SlotState:
    """Note that a file brought nothing new: its bytes are active, or have been dealt with in another way, a Fate.

    `quiet`: that has been told of this file before.
    """
    sha256, file = candidate.sha256, candidate.file
    name = show_name(file.name) if file is not None else ""
    state = slot_state.dealt(state, _dealt(candidate, kind))
    known = [(key, refusal) for key, refusal in state.refused.items() if sha256 in (key, refusal.sha256)]
    if quiet:
        return state
    if sha256 == state.active:
        record = replace(_record(state, sha256, ""), file=name)
        return _tell(state, "unchanged", record, writes_row=False, detail="is the active model")
    if not known:
        record = ModelRecord(sha256, sha256, "", name)
        why = {"reason": Reason.SEEN_BEFORE, "detail": f"was {kind} before; `strip-agent models activate` takes it"}
        return _tell(state, "unchanged", record, writes_row=False, **why)
    key, refusal = known[-1]  # whoever pushed it finds the old reason as the last one
    state = slot_state.refuse(state, key, replace(refusal, file=name, ts_ms=now_ms()))
    why = {"reason": refusal.reason, "detail": f"was {refusal.kind} before: {refusal.detail}"}
    return _tell(state, "unchanged", _record_of(sha256, replace(refusal, file=name)), writes_row=False, **why)


def _dealt(candidate: Candidate, kind: str) -> Dealt:
    file = candidate.file
    name, key = (file.name, file.key) if file is not None else ("", "")
    return Dealt(name, key, candidate.sha256, candidate.push, kind)


# -- a model scores beside the active one ------------------------------------------------------------------------------


def shadow_came(state: SlotState, candidate: Candidate, loaded: Loaded) -> SlotState:
    """Make a candidate whose manifest asks for that the slot's shadow."""
    facts = _facts(state, candidate, loaded)
    state = replace(state, shadow=Shadow(candidate.sha256, now_ms(), facts))
    state = slot_state.dealt(state, _dealt(candidate, Fate.SHADOW))
    place = "accepted" if candidate.sha256 in state.accepted else "shadow"
    return _tell(state, "shadowed", _record(state, candidate.sha256, place, loaded), detail=trial_summary(loaded))


def shadow_chosen(state: SlotState, sha256: str, *, events: bool) -> SlotState:
    """Make a model that is kept, and is not the active one, the slot's shadow, from now on."""
    state = replace(state, shadow=Shadow(sha256, now_ms(), state.kept[sha256], events=events))
    why = {"reason": Reason.OPERATOR, "detail": "chosen by an operator"}
    return _tell(state, "shadowed", _record(state, sha256, ""), writes_row=False, **why)


def shadow_failed(state: SlotState, reason: str, detail: str) -> SlotState:
    """Switch the shadow off, and remember why."""
    assert state.shadow is not None  # noqa: S101 - see SlotRecord.end_shadow
    detail = detail[:MAX_DETAIL_CHARACTERS]
    record = _record(state, state.shadow.sha256, "")
    state = replace(state, shadow=replace(state.shadow, reason=reason, detail=detail))
    return _tell(state, "shadow_ended", record, writes_row=False, reason=reason, detail=detail)


def shadow_taken_away(state: SlotState) -> SlotState:
    """Have no shadow any more, as an operator wishes."""
    assert state.shadow is not None  # noqa: S101 - see SlotRecord.end_shadow
    record = _record(state, state.shadow.sha256, "")
    state = replace(state, shadow=None)
    why = {"reason": Reason.OPERATOR, "detail": "switched off by an operator"}
    return _tell(state, "shadow_ended", record, writes_row=False, **why)


# -- a model goes, or stays --------------------------------------------------------------------------------------------


def went_back(state: SlotState, sha256: str, why: Failing) -> SlotState:
    """Make an earlier model active; the one that failed is withdrawn, or its copy was damaged."""
    bad = state.active
    left = None if why.file_is_good else _refusal(state, bad, why)
    return _returned(slot_state.go_back(state, sha256, now_ms(), why.reason, left), state, why)


def _returned(state: SlotState, before: SlotState, why: Failing) -> SlotState:
    bad = before.active
    left = state.refused.get(bad) or Refusal("withdrawn", bad, why.reason, why.detail, "", now_ms())
    again = f"model {state.active[:12]} scores again"
    because = {"reason": why.reason, "detail": why.detail, "return_detail": again}
    record, known = _record_of(bad, left), before.kept.get(bad)
    if known is not None:
        record = replace(record, model_id=known.model_id, version=known.version)
    return _tell(state, "rolled_back", record, counts_judged=True, **because)


def stayed(state: SlotState, why: Failing, return_detail: str) -> SlotState:
    """Note that the active model should go and nothing can take its place: both reasons are recorded."""
    record = replace(_record(state, state.active, "active"), reason=why.reason, detail=why.detail)
    because = {"reason": why.reason, "detail": why.detail, "return_detail": return_detail}
    return _tell(replace(state, on_probation=False, probation_counts={}), "rolled_back", record, **because)


def passed_probation(state: SlotState) -> SlotState:
    """Watch the active model no longer."""
    record = _record(state, state.active, "active")
    return _tell(replace(state, on_probation=False, probation_counts={}), "probation_passed", record, writes_row=False)


# -- the ledger is another one -----------------------------------------------------------------------------------------


def missing_in(rows: dict[str, dict[str, Any]], state: SlotState, told: str) -> tuple[ModelRecord, ...]:
    """Give the records that the ledger's rows (key -> row) lack; `told` is the model that is active by them."""
    places = dict.fromkeys(state.kept, "shadow") | dict.fromkeys(state.accepted, "accepted")
    kept = [_record(state, sha256, place) for sha256, place in places.items() if sha256 not in rows]
    return (
        *kept,
        *(
            _record_of(key, refusal)
            for key, refusal in state.refused.items()
            if key != told and rows.get(key, {}).get("state") != refusal.kind
        ),
    )


def told_late(state: SlotState, told: str) -> SlotState:
    """Have the ledger told of the active model, where `told` is active by what it knows."""
    left = state.refused.get(told)
    if left is not None and left.kind == "withdrawn":
        again = f"model {state.active[:12]} scores again; the service ended before it could tell"
        because = {"reason": left.reason, "detail": left.detail, "return_detail": again}
        return _tell(state, "rolled_back", _record_of(told, left), **because)
    return _tell(state, "activated", _record(state, state.active, "active"), detail="recorded after a restart")


def _tell(state: SlotState, what: Event, record: ModelRecord, **more: Any) -> SlotState:
    return slot_state.tell(state, what, asdict(record), now_ms(), **more)


def _record(state: SlotState, sha256: str, place: str, loaded: Loaded | None = None) -> ModelRecord:
    known = state.kept[sha256]
    facts = {name: getattr(known, name) for name in ("height", "width", "golden", "run_ms", "cpu_ms")}
    if loaded is not None:
        facts |= {"load_ms": loaded.load_ms, "golden_difference": loaded.golden_difference}
    return ModelRecord(sha256, sha256, place, known.file, known.model_id, known.version, facts=facts)


def _record_of(key: str, refusal: Refusal) -> ModelRecord:
    return ModelRecord(key, refusal.sha256, refusal.kind, refusal.file, reason=refusal.reason, detail=refusal.detail)


def _refusal(state: SlotState, sha256: str, why: Failing) -> Refusal:
    return Refusal("withdrawn", sha256, why.reason, why.detail, state.file_of(sha256), now_ms())


def _with_serving_time(state: SlotState, counted: Counted) -> dict[str, Accepted]:
    if state.active not in state.accepted:
        return state.accepted
    facts = replace(state.accepted[state.active], serving_ms=counted.median_ms)
    return {sha256: facts if sha256 == state.active else other for sha256, other in state.accepted.items()}
