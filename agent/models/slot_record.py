"""What is on record of a slot's models: its file in the store, which decides, and what is told of it.

Whatever happens (`models/happenings.py`) is written to the slot's file first, together with what has to be told of it.
From there on nothing raises: what the ledger cannot take now is worked off later (`models/teller.py`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.contract.stated import stated_model
from agent.errors import Retry
from agent.ledger import Changes
from agent.models import happenings, slot_state
from agent.models.dealt_with import DealtWith
from agent.models.message import make_state
from agent.models.rebuilding import dealt_before, rebuild
from agent.models.slot_state import Dealt, Fate, SlotState
from agent.models.teller import places, tell
from agent.records import show_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from agent.config import Config
    from agent.errors import Reject
    from agent.ledger import Ledger
    from agent.messages import ModelState
    from agent.models.happenings import Candidate
    from agent.models.inbox_folder import InboxFile
    from agent.models.probation import Counted, Failing
    from agent.models.store import Store
    from agent.wire import Loaded

log = logging.getLogger(__name__)

TELL_AGAIN_SECONDS = 1.0
UNTOLD_AT_MOST = 100  # beyond it nothing more is taken from the inbox


class SlotRecord:
    """What is on record of one slot. `state` is replaced as a whole: any thread may read it.

    What changes it raises Retry where the slot's file cannot be written; nothing has changed then.
    """

    def __init__(
        self,
        slot: str,
        config: Config,
        ledger: Ledger,
        store: Store,
        publish_state: Callable[[str, ModelState], None],
        there: Callable[[], Collection[str] | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slot = slot
        self.state = SlotState()
        self.dealt = DealtWith(store.dealt_path(slot))
        self.problem = ""  # what was wrong with the slot's file at the start
        self._reconciled = False  # the ledger knows all that the slot's file knows
        self._tell_at = 0.0
        self._config = config
        self._ledger = ledger
        self._store = store
        self._publish_state = publish_state
        self._there = there  # the names that are in the inbox, None when that is not known
        self._clock = clock

    def recall(self) -> None:
        """Read the slot's file at the start; it and the ledger make up for what the other lacks.

        Raises Retry where the ledger cannot be read.
        """
        loaded = self._store.load(self.slot)
        state, self.problem = loaded.state, loaded.problem
        if loaded.problem:
            log.critical("slot %s: %s; it is made anew out of the ledger", self.slot, loaded.problem)
            state = rebuild(self._ledger.models.rows(self.slot))
        self.state = slot_state.forget_told(state, self._ledger.models.told_up_to(self.slot))
        self._recall_dealt(loaded.seen)
        if loaded.problem:
            self._save_if_possible()
        self.catch_up()
        self.announce()

    def _recall_dealt(self, seen: Mapping[str, str]) -> None:
        """Read what has been dealt with; the slot's file and the ledger make up for what is missing."""
        self.dealt.load()
        if self.dealt.problem:
            log.critical("slot %s: %s", self.slot, self.dealt.problem)
        if self.dealt.is_new or self.dealt.problem:
            rows = self._ledger.models.rows(self.slot)
            refused = self.state.refused.keys() | {key for key, row in rows.items() if row["state"] == "rejected"}
            for name, key in seen.items():
                told = Fate.PAPERS if slot_state.file_key(show_name(name)) in refused else Fate.SUPERSEDED
                self.dealt.note([Dealt(name, key, "", "", Fate.SEEN, told)])
            self.dealt.note(dealt_before(rows))
        state = self.state
        kept = [Dealt("", "", sha256, "", Fate.ACCEPTED) for sha256 in state.accepted]
        kept += [
            Dealt("", "", key, "", Fate.REJECTED if refusal.kind == "rejected" else Fate.WITHDRAWN)
            for key, refusal in state.refused.items()
            if key == refusal.sha256
        ]
        if state.shadow is not None and not self.dealt.kind_of(state.shadow.sha256):
            kept.append(Dealt("", "", state.shadow.sha256, "", Fate.SHADOW))
        self.dealt.note(entry for entry in kept if self.dealt.kind_of(entry.sha256) != entry.kind)
        self.dealt.note(state.unwritten)

    def announce(self) -> None:
        """Publish the state of the slot."""
        self._publish_state(self.slot, make_state(self._config.agent.name, self.slot, self.state))

    # -- what happens --------------------------------------------------------------------------------------------------

    def accept(
        self,
        candidate: Candidate,
        loaded: Loaded,
        left: Failing | None,
        counted: Counted,
        behind: Sequence[InboxFile] = (),
    ) -> None:
        """Make a candidate the active model, see `happenings.accepted`."""
        models = self._config.models
        state = happenings.accepted(
            self.state,
            candidate,
            loaded,
            left,
            counted,
            behind,
            probation=models.probation.strips > 0,
            keep=models.keep,
        )
        self._store.accept(self.slot, candidate.sha256, state, is_candidate=candidate.file is not None)
        self._switch(state)
        self._store.sweep()

    def take_shadow(self, candidate: Candidate, loaded: Loaded) -> None:
        """Make a candidate the slot's shadow."""
        state = happenings.shadow_came(self.state, candidate, loaded)
        self._store.accept(self.slot, candidate.sha256, state, is_candidate=candidate.file is not None)
        self._switch(state)
        self._store.sweep()

    def choose_shadow(self, sha256: str, *, events: bool = False) -> None:
        """Make a model of the store the slot's shadow; what is active, or gone by now, cannot be that."""
        if sha256 in self.state.kept and sha256 != self.state.active:
            self._change(happenings.shadow_chosen(self.state, sha256, events=events))
            self._store.sweep()

    def end_shadow(self, sha256: str, reason: str = "", detail: str = "") -> None:
        """Switch the slot's shadow off, if it still is this one; without a reason it is taken away."""
        if self.state.shadow is None or self.state.shadow.sha256 != sha256:
            return
        if reason:
            self._change(happenings.shadow_failed(self.state, reason, detail))
        else:
            self._change(happenings.shadow_taken_away(self.state))
            self._store.sweep()

    def refuse(self, candidate: Candidate, refusal: Reject, *, bytes_are_to_blame: bool) -> None:
        """Leave the reason, the sentence and the numbers."""
        stated, blamed = self._stated(candidate), bytes_are_to_blame
        self._change(happenings.refused(self.state, candidate, refusal, bytes_are_to_blame=blamed, stated=stated))

    def _stated(self, candidate: Candidate) -> tuple[str, int]:
        """Return id and version of a candidate: its manifest's, else what its copy in the store says of itself."""
        if candidate.manifest is not None:
            return candidate.manifest.model_id, candidate.manifest.version
        if not candidate.sha256:  # nothing was copied
            return "", 0
        if candidate.file is not None:
            return stated_model(self._store.candidate_path(self.slot))
        return stated_model(self._store.model_path(candidate.sha256))

    def note_unchanged(self, candidate: Candidate, file: InboxFile, kind: str) -> None:
        """Note that the candidate's file brought nothing new, see `happenings.unchanged`."""
        before = self.dealt.of_name(file.name)
        told = before is not None and before.sha256 == candidate.sha256 and file.looks_like(before.key)
        self._change(happenings.unchanged(self.state, candidate, kind, quiet=told))

    def note_superseded(self, file: InboxFile, sha256: str, note: str) -> None:
        """Note that a file stands behind an accepted one."""
        self._change(happenings.superseded(self.state, file, sha256, note))

    def note_dealt(self, entry: Dealt) -> None:
        """Note what has been dealt with and told before."""
        self._change(slot_state.dealt(self.state, entry))

    def go_back(self, sha256: str, why: Failing) -> None:
        """Make an earlier model active, whose worker is ready."""
        self._change(happenings.went_back(self.state, sha256, why))
        self._store.sweep()

    def stay(self, why: Failing, return_detail: str) -> None:
        """Note that the active model should go and nothing can take its place."""
        self._change(happenings.stayed(self.state, why, return_detail))

    def pass_probation(self) -> None:
        """Watch the active model no longer."""
        self._change(happenings.passed_probation(self.state))

    def save_counts(self, counted: Counted) -> None:
        """Remember how far probation has come, so that a restart does not begin it anew."""
        self._save(replace(self.state, probation_counts=counted.to_counts()))

    def look_again(self, sha256: str) -> None:
        """Let the inbox's file of a model whose copy is damaged be taken again."""
        self._change(slot_state.look_again(self.state, sha256))

    def forget(self, sha256: str) -> None:
        """Take back what was said against a model: it may come from the inbox again."""
        self._ledger.models.forget(self.slot, sha256)
        self._change(slot_state.forget(self.state, sha256))
        log.warning("slot %s: what was said against model %s is taken back", self.slot, sha256[:12])

    def forget_highest_version(self) -> None:
        """Let only the active model's version hold older ones off."""
        self._change(slot_state.forget_highest_version(self.state))
        log.warning("slot %s: the highest version is %d now", self.slot, self.state.highest_version)

    def find_refused(self, beginning: str) -> str:
        """Return the sha256 of the model that is not taken from the inbox and whose digest begins so.

        Raises LookupError where there is none, or more than one, or where it is the active one.
        """
        known = {refusal.sha256 for refusal in self.state.refused.values()} | self.dealt.digests()
        found = {sha256 for sha256 in known if sha256 and sha256.startswith(beginning)}
        if len(found) != 1:
            what = "more than one model that was dealt with has" if found else "nothing was said against a model with"
            raise LookupError(f"{what} a digest that begins with {beginning!r}")
        if self.state.active in found:
            raise LookupError(f"model {self.state.active[:12]} is active: there is nothing to forget")
        return found.pop()

    def may_score(self, sha256: str) -> None:
        """Record, before a worker gets strips, that results may be this model's. Raises Retry."""
        self._ledger.models.may_score(self.slot, sha256)

    def scores_alone(self, sha256: str) -> None:
        """Record that the other models' workers have ended. Raises Retry."""
        self._ledger.models.scores_alone(self.slot, sha256)

    # -- how it is kept and told ---------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Tell what has not been told yet. Raises nothing: what the ledger does not take now waits."""
        is_behind = self.state.untold or self.state.unwritten or not self._reconciled
        if not is_behind or self._clock() < self._tell_at:
            return
        try:
            self.dealt.write(self._there())
            self._work_off()
            if not self._reconciled:
                self._reconcile()
                self._work_off()
        except Retry as error:
            self._tell_at = self._clock() + TELL_AGAIN_SECONDS
            log.error("slot %s: cannot tell yet what happened: %s", self.slot, error)  # noqa: TRY400 - the stack tells nothing

    @property
    def is_far_behind(self) -> bool:
        """Whether so much has not been told yet that no more should happen."""
        return len(self.state.untold) >= UNTOLD_AT_MOST

    def _change(self, state: SlotState) -> None:
        self._store.save(self.slot, state)
        self._switch(state)

    def _switch(self, state: SlotState) -> None:
        self.dealt.note(state.unwritten[len(self.state.unwritten) :])
        self.state = state
        self.catch_up()
        self.announce()

    def _save(self, state: SlotState) -> None:
        self._store.save(self.slot, state)
        self.state = state

    def _save_if_possible(self) -> None:
        try:
            self._save(self.state)
        except Retry as error:  # the next change carries it along
            log.error("slot %s: %s", self.slot, error)  # noqa: TRY400 - the stack tells nothing

    def _work_off(self) -> None:
        if not self.state.untold and not self.state.unwritten:
            return
        self.state = replace(self.state, unwritten=())
        while self.state.untold:
            tell(self.state.untold[0], self.state, self.slot, self._config, self._ledger)
            self.state = replace(self.state, untold=self.state.untold[1:])
        self._save_if_possible()  # if not, the ledger knows what it has been told

    def _reconcile(self) -> None:
        """Bring the ledger up to the slot's file, where it is another ledger than the one that was told."""
        state, rows = self.state, self._ledger.models.rows(self.slot)
        told = next((key for key, row in rows.items() if row["state"] == "active"), "")
        missing = happenings.missing_in(rows, state, told)
        if missing:
            kept = places(state) if told in ("", state.active) else places(state) | {told: "active"}
            self._ledger.models.write(Changes(self.slot, kept, missing))
        if state.active and told != state.active:
            self.state = happenings.told_late(state, told)
        self._reconciled = True
