"""What is remembered of a slot's models, and what is told of them.

The slot's file in the store decides; the ledger has the history; `event/model` and `state/model` tell the others. A
model becomes active in the slot's file first, so that it is the one after a power cut; the ledger catches up at the
next start. A refusal is told first: after a power cut it is found again and told twice rather than not at all.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.ledger import Changes, ModelRecord
from agent.logs import event
from agent.messages import model_event_topic
from agent.models import slot_state
from agent.models.message import Event, make_event, make_state, trial_summary
from agent.models.slot_state import Accepted, Refusal, SlotState, file_key
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.config import Config
    from agent.contract.manifest import Manifest
    from agent.errors import Reject
    from agent.ledger import Ledger
    from agent.messages import ModelState
    from agent.models.inbox import InboxFile
    from agent.models.probation import Counted, Failing
    from agent.models.store import Store
    from agent.wire import Loaded

log = logging.getLogger(__name__)

MAX_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is to be tried."""

    sha256: str
    file: InboxFile | None = None  # None: it is in the store already
    manifest: Manifest | None = None

    @property
    def size_bytes(self) -> int:
        """Size of its file in the inbox; 0 when it does not come from there."""
        return self.file.identity.size_bytes if self.file is not None and self.file.identity is not None else 0


class SlotRecord:
    """What is on record of one slot. `state` is replaced as a whole: any thread may read it."""

    def __init__(
        self,
        slot: str,
        config: Config,
        ledger: Ledger,
        store: Store,
        publish_state: Callable[[str, ModelState], None],
    ) -> None:
        self.slot = slot
        self.state = SlotState()
        self.problem = ""  # what was wrong with the slot's file at the start
        self._is_behind = True  # the ledger, perhaps
        self._config = config
        self._ledger = ledger
        self._store = store
        self._publish_state = publish_state

    def recall(self) -> None:
        """Read the slot's file at the start; it and the ledger make up for what the other lacks. Raises Retry."""
        loaded = self._store.load(self.slot)
        self.state, self.problem = loaded.state, loaded.problem
        if loaded.problem:
            log.critical("slot %s: %s; it is made anew out of the ledger", self.slot, loaded.problem)
            self._save(slot_state.rebuild(self._ledger.models.rows(self.slot)))
        self.catch_up()
        self.announce()

    def catch_up(self) -> None:
        """Bring the ledger up to the slot's file, if a power cut or a full disk came between the two. Raises Retry."""
        if self._is_behind:
            self._catch_up(self._ledger.models.rows(self.slot))
            self._is_behind = False

    def announce(self) -> None:
        """Publish the state of the slot."""
        self._publish_state(self.slot, make_state(self.slot, self.state))

    # -- a model comes in ----------------------------------------------------------------------------------------------

    def accept(self, candidate: Candidate, loaded: Loaded, left: Failing | None, counted: Counted) -> None:
        """Make a candidate the active model. `left`: why the active one is given up; `counted`: what that one did."""
        sha256, file, manifest = candidate.sha256, candidate.file, candidate.manifest
        before = self.state
        state = replace(before, accepted=_with_serving_time(before, counted))
        name = show_name(file.name) if file else before.file_of(sha256)
        model_id, version = loaded.model_id, loaded.version
        if manifest is not None and not loaded.labelled:
            model_id, version = manifest.model_id, manifest.version
        accepted = Accepted(
            model_id,
            version,
            loaded.height,
            loaded.width,
            loaded.golden,
            loaded.run_ms,
            loaded.cpu_ms,
            since_ms=now_ms(),
            file=name,
        )
        on_probation = self._config.models.probation.strips > 0 and before.active not in ("", sha256) and not left
        if left is not None and before.active not in ("", sha256):
            state = _withdrawn(state, before.active, left)
        state = slot_state.activate(state, sha256, accepted, on_probation=on_probation, keep=self._config.models.keep)
        if file is not None:
            state = replace(state, seen=state.seen | {file.name: file.key})
        self._store.accept(self.slot, sha256, state, is_candidate=file is not None)
        self.state = state
        if left is not None and before.active in state.refused:
            self._tell_return(before.active, left)
        else:
            self._tell("activated", self._record(sha256, "active", loaded=loaded), detail=trial_summary(loaded))
        self._store.sweep()

    def refuse(self, candidate: Candidate, refusal: Reject, *, bytes_are_to_blame: bool) -> None:
        """Leave the reason, the sentence and the numbers; the same bytes, or the same file, are not tried again."""
        sha256, file = candidate.sha256, candidate.file
        name = show_name(file.name) if file else self.state.file_of(sha256)
        detail = refusal.detail[:MAX_DETAIL_CHARACTERS]
        refused = Refusal("rejected", sha256, refusal.reason, detail, name, now_ms())
        key = sha256 if bytes_are_to_blame and sha256 else file_key(name)
        if key in self.state.accepted:  # an operator asked for it, and it fails now
            key = file_key(name)
        record = ModelRecord(key, sha256, "rejected", name, reason=refusal.reason, detail=detail)
        state = slot_state.refuse(self.state, key, refused)
        self._tell("rejected", record, reason=refusal.reason, detail=detail, state=state)
        self._save(replace(state, seen=state.seen | ({file.name: file.key} if file else {})))
        self._store.drop_candidate(self.slot)

    def note_unchanged(self, file: InboxFile, sha256: str) -> None:
        """Note that a file brought nothing new: its bytes are active, or were refused before."""
        known = self.state.refused.get(sha256)
        state, name = self.state, show_name(file.name)
        if known is None:
            record, detail = replace(self._record(sha256, ""), file=name), "is the active model"
        else:  # whoever pushed it finds the old reason as the last one
            record, detail = _record_of(sha256, replace(known, file=name)), f"was {known.kind} before: {known.detail}"
            state = slot_state.refuse(state, sha256, replace(known, file=name, ts_ms=now_ms()))
        reason = known.reason if known else ""
        self._tell("unchanged", record, reason=reason, detail=detail, write=False, state=state)
        self._save(replace(state, seen=state.seen | {file.name: file.key}))
        self._store.drop_candidate(self.slot)

    def supersede(self, files: list[InboxFile]) -> None:
        """Note files that were there together with the accepted one and stand behind it."""
        active = self.state.accepted[self.state.active]
        for file in files:
            name = show_name(file.name)
            detail = f"{active.file} was there with it and goes before it"
            self._tell("superseded", ModelRecord(file_key(name), "", "superseded", name, detail=detail), detail=detail)
        self._save(replace(self.state, seen=self.state.seen | {file.name: file.key for file in files}))

    def forget_files(self, there: frozenset[str]) -> None:
        """Forget what was seen in the inbox and is no longer there."""
        if self.state.seen.keys() - there:
            self._save(replace(self.state, seen={n: k for n, k in self.state.seen.items() if n in there}))

    # -- a model goes --------------------------------------------------------------------------------------------------

    def go_back(self, sha256: str, why: Failing) -> None:
        """Make an earlier model active, whose worker is ready; what failed is withdrawn, or its copy was damaged."""
        bad = self.state.active
        left = None if why.file_is_good else _refusal(self.state, bad, why)
        self._save(slot_state.go_back(self.state, sha256, now_ms(), why.reason, left))
        self._tell_return(bad, why)
        self._store.sweep()

    def note_failed_return(self, why: Failing, return_detail: str) -> None:
        """Note that the active model should go and nothing can take its place: both reasons are recorded."""
        record = replace(self._record(self.state.active, "active"), reason=why.reason, detail=why.detail)
        self._tell("rolled_back", record, reason=why.reason, detail=why.detail, return_detail=return_detail)

    def end_probation(self, *, passed: bool) -> None:
        """Watch the active model no longer."""
        self._save(replace(self.state, on_probation=False, probation_counts={}))
        if passed:
            self._tell("probation_passed", self._record(self.state.active, "active"), write=False)

    def save_counts(self, counted: Counted) -> None:
        """Remember how far probation has come, so that a restart does not begin it anew."""
        self._save(replace(self.state, probation_counts=counted.to_counts()))

    def look_again(self, sha256: str) -> None:
        """Let the inbox's file of a model whose copy is damaged be taken again."""
        self._save(slot_state.look_again(self.state, sha256))

    def may_score(self, sha256: str) -> None:
        """Record, before a worker gets strips, that results may be this model's."""
        self._ledger.models.may_score(self.slot, sha256)

    def scores_alone(self, sha256: str) -> None:
        """Record that the other models' workers have ended."""
        self._ledger.models.scores_alone(self.slot, sha256)

    # -- how it is kept ------------------------------------------------------------------------------------------------

    def _save(self, state: SlotState) -> None:
        self._store.save(self.slot, state)
        self.state = state

    def _tell_return(self, bad: str, why: Failing) -> None:
        judged = self._ledger.models.count_judged(bad)
        again = f"model {self.state.active[:12]} scores again"
        if judged:
            again += f"; {judged} strips were judged by the other: strip-agent strips retry --model {bad[:12]}"
        left = self.state.refused.get(bad) or Refusal("withdrawn", bad, why.reason, why.detail, "", now_ms())
        record = replace(_record_of(bad, left), facts={"return_detail": again})
        self._tell("rolled_back", record, reason=why.reason, detail=why.detail, return_detail=again)

    def _tell(self, what: Event, record: ModelRecord, *, write: bool = True, **more: Any) -> None:
        state: SlotState = more.pop("state", self.state)
        places = _places(state)
        changes = Changes(self.slot, places, (record,) if write else ())

        def payload(msg_id: str, ts_ms: int) -> bytes:
            return make_event(
                self._config.agent.name, self.slot, what, record, state, msg_id=msg_id, ts_ms=ts_ms, **more
            )

        self._is_behind = True
        self._ledger.models.record(changes, model_event_topic(self.slot), payload, self._config.outbox.max_messages)
        self._is_behind = False
        level = logging.ERROR if what in ("rejected", "rolled_back") else logging.WARNING
        said = " ".join(str(more[key]) for key in ("reason", "detail", "return_detail") if more.get(key))
        event(log, level, "model", f"slot {self.slot}: model {record.file or record.sha256[:12]} {what}: {said}",
              slot=self.slot, event=what, sha256=record.sha256)  # fmt: skip
        self._publish_state(self.slot, make_state(self.slot, state))

    def _record(self, sha256: str, place: str, loaded: Loaded | None = None) -> ModelRecord:
        known = self.state.accepted[sha256]
        facts = {name: getattr(known, name) for name in ("height", "width", "golden", "run_ms", "cpu_ms")}
        if loaded is not None:
            facts |= {"load_ms": loaded.load_ms, "golden_difference": loaded.golden_difference}
        return ModelRecord(sha256, sha256, place, known.file, known.model_id, known.version, facts=facts)

    def _catch_up(self, rows: dict[str, dict[str, Any]]) -> None:
        state = self.state
        told = next((key for key, row in rows.items() if row["state"] == "active"), "")
        missing = [self._record(sha256, "accepted") for sha256 in state.accepted if sha256 not in rows]
        missing += [
            _record_of(key, refusal)
            for key, refusal in state.refused.items()
            if key != told and rows.get(key, {}).get("state") != refusal.kind
        ]
        if missing:
            places = _places(state) if told in ("", state.active) else _places(state) | {told: "active"}
            self._ledger.models.write(Changes(self.slot, places, tuple(missing)))
        if not state.active or told == state.active:
            return
        left = state.refused.get(told)
        if left is not None and left.kind == "withdrawn":
            again = f"model {state.active[:12]} scores again; the service ended before it could tell"
            record = _record_of(told, left)
            self._tell("rolled_back", record, reason=left.reason, detail=left.detail, return_detail=again)
        else:
            self._tell("activated", self._record(state.active, "active"), detail="recorded after a restart")


def _places(state: SlotState) -> dict[str, str]:
    places = dict.fromkeys(state.accepted, "accepted")
    return places | {sha: place for sha, place in ((state.previous, "previous"), (state.active, "active")) if sha}


def _with_serving_time(state: SlotState, counted: Counted) -> dict[str, Accepted]:
    if state.active not in state.accepted:
        return state.accepted
    facts = replace(state.accepted[state.active], serving_ms=counted.median_ms)
    return {sha256: facts if sha256 == state.active else other for sha256, other in state.accepted.items()}


def _refusal(state: SlotState, sha256: str, why: Failing) -> Refusal:
    return Refusal("withdrawn", sha256, why.reason, why.detail, state.file_of(sha256), now_ms())


def _withdrawn(state: SlotState, sha256: str, why: Failing) -> SlotState:
    refusal = _refusal(state, sha256, why)
    accepted = {name: facts for name, facts in state.accepted.items() if name != sha256}
    return slot_state.refuse(replace(state, accepted=accepted), sha256, refusal)


def _record_of(key: str, refusal: Refusal) -> ModelRecord:
    return ModelRecord(key, refusal.sha256, refusal.kind, refusal.file, reason=refusal.reason, detail=refusal.detail)
