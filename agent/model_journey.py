"""The model's journey: from a file in the inbox to the worker that strips go to, and back when it turns bad.

    1     `_choose`           a settled file that has not been dealt with
    2, 3  `_begin_trial`      its papers checked, copied into the store while it is hashed
    4     `_follow_trial`     a candidate worker: load, contract, golden strip, time
    5     `_accept`           recorded as active, then offered to the slot, which swaps between two strips
    6     `_watch_probation`  withdrawn for faults, latency or too many anomalies; the previous model comes back
    7     `_refuse`           every refusal leaves a reason, a sentence and the numbers
    8     `_keep_a_worker`    at start and after a loss: the active model, else the previous one, else none

The active model goes on scoring through all of it: a step is short and waits for no worker.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent import store
from agent.errors import Blame, Reason, Reject, Retry
from agent.inbox import Inbox, InboxFile, copy_into_store, list_inbox, read_manifest, stated_version
from agent.ledger.strips import now_ms
from agent.model_news import model_state, proof_of, tell
from agent.model_rules import BYTES_ARE_TO_BLAME, check_facts, check_papers
from agent.probation import Counted, Failing, judge_probation
from agent.records import show_name
from agent.store import Accepted, Refusal
from agent.wire import Failed, Judged, Loaded, Setup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.config import Config
    from agent.ledger import Ledger
    from agent.manifest import Manifest
    from agent.messages import ModelState
    from agent.model_news import Event
    from agent.workers import Slot, WorkerHandle

log = logging.getLogger(__name__)

MANIFEST_GRACE_SECONDS = 10.0  # how long a model may wait for its manifest, where one is required
BOX_PAUSE_SECONDS = 10.0  # after a fault of the box
SHORTEST_HOLD_SECONDS, LONGEST_HOLD_SECONDS = 30.0, 900.0


@dataclass(frozen=True, slots=True)
class _Trial:
    """A worker that is loading a model."""

    worker: WorkerHandle
    sha256: str
    file: InboxFile | None = None  # None: it comes out of the store
    manifest: Manifest | None = None
    failing: Failing | None = None  # why the active model is being left for this one
    wanted: bool = False  # an operator asked for it


class ModelJourney:
    """The journey of one slot's models."""

    def __init__(
        self,
        slot: Slot,
        config: Config,
        ledger: Ledger,
        trusted_keys: Mapping[str, bytes],
        *,
        start_worker: Callable[[Setup], WorkerHandle],
        publish_state: Callable[[str, ModelState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.slot = slot
        folder = config.models.inbox if slot.name == "default" else config.models.inbox / slot.name
        self.inbox = Inbox(folder, config.models.settle_seconds)
        self._config = config
        self._ledger = ledger
        self._store = config.agent.state_folder / "store"
        self._trusted_keys = trusted_keys
        self._start_worker = start_worker
        self._publish_state = publish_state
        self._clock = clock
        self._trial: _Trial | None = None  # a candidate
        self._loading: _Trial | None = None  # the active or the previous model, at start and after a loss
        self._unusable: dict[str, str] = {}  # accepted models that would not load again, and why
        self._pause_until = 0.0  # nothing is tried before, after a fault of the box
        self._load_at = 0.0
        self._hold_seconds = SHORTEST_HOLD_SECONDS
        self._held_until = 0.0
        self._counted = Counted()
        self._lock = threading.Lock()
        self._wishes: list[tuple[str, Failing | None]] = []  # models of the store that an operator asked for
        self.state, problem = store.load_slot(self._store, slot.name)
        if problem:
            log.error("slot %s: %s", slot.name, problem)

    def step(self, timeout_seconds: float) -> None:
        """Do what can be done now; wait up to `timeout_seconds` when there is nothing."""
        self.slot.changed.clear()
        try:
            self._watch_hold()
            self._watch_probation()
            self._keep_a_worker()
            if self._trial is not None:
                self._follow_trial(self._trial)
            else:
                self._choose()
        except Retry as error:  # the box is to blame: nothing has been decided, everything is tried again
            log.error("slot %s: %s", self.slot.name, error)  # noqa: TRY400 - the stack tells nothing
            self._pause_until = self._clock() + BOX_PAUSE_SECONDS
        at_work = self._trial is not None or self._loading is not None
        self.slot.changed.wait(0.02 if at_work else min(timeout_seconds, self._config.models.settle_seconds))

    def announce(self) -> None:
        """Publish the state of the slot."""
        self._publish_state(self.slot.name, model_state(self.slot.name, self.state))

    def activate(self, digest: str) -> str:
        """Ask for a model of the store or the inbox, by the beginning of its digest; it goes through the trial.

        Whatever was said against it does not count. Raises LookupError where there is no such model.
        """
        sha256 = self._find(digest)
        self._wish(sha256, None)
        return sha256

    def roll_back(self) -> str:
        """Ask for the previous model, and withdraw the active one. Raises LookupError where there is none."""
        if not self.state.previous:
            raise LookupError(f"slot {self.slot.name} has no previous model to go back to")
        self._wish(self.state.previous, Failing(Reason.OPERATOR, "rolled back by an operator"))
        return self.state.previous

    def _wish(self, sha256: str, failing: Failing | None) -> None:
        with self._lock:
            self._wishes.append((sha256, failing))
        self.slot.changed.set()

    def _find(self, digest: str) -> str:
        kept = {sha256 for sha256 in self.state.accepted if sha256.startswith(digest)}
        if len(kept) == 1:
            return kept.pop()
        for file in list_inbox(self.inbox.folder):
            try:
                sha256 = copy_into_store(self.inbox.folder, file, self._store, self._config.models.max_mib << 20)
            except (Reject, Retry) as error:
                log.info("slot %s: %s is not it: %s", self.slot.name, show_name(file.name), error)
                continue
            if sha256.startswith(digest):
                return sha256
        what = "more than one model has" if kept else "no model in the store or the inbox has"
        raise LookupError(f"{what} a digest that begins with {digest!r}")

    # -- 1, 2, 3: which file, and may it be tried ----------------------------------------------------------------------

    def _choose(self) -> None:
        now = self._clock()
        with self._lock:
            wish = self._wishes.pop(0) if self._wishes else None
        if wish is not None:
            sha256, failing = wish
            self._trial = _Trial(self._load(sha256, "candidate"), sha256, failing=failing, wanted=True)
            return
        if now < self._pause_until:
            return
        ready = [
            (file, stated_version(self.inbox.folder, file))
            for file, waited in self.inbox.ready(self.state.seen, now)
            if file.manifest is not None
            or not self._config.models.require_signature
            or waited >= MANIFEST_GRACE_SECONDS
        ]
        # The highest version, else the newest; the others are not forgotten: if this one is refused they are next.
        for file, _ in sorted(ready, key=lambda pair: (pair[1], pair[0].identity.mtime_ns, pair[0].name), reverse=True):
            if self._begin_trial(file):
                return

    def _begin_trial(self, file: InboxFile) -> bool:
        sha256 = ""
        try:
            required = self._config.models.require_signature
            signed = read_manifest(self.inbox.folder, file.name, self._trusted_keys, required=required)
            sha256 = copy_into_store(self.inbox.folder, file, self._store, self._config.models.max_mib << 20)
            if sha256 == self.state.active or sha256 in self.state.refused:
                self._note_unchanged(file, sha256)
                return False
            manifest = signed.manifest if signed is not None else None
            check_papers(
                manifest,
                sha256=sha256,
                size=file.identity.size_bytes,
                slot=self.slot.name,
                highest_version=self.state.highest_version,
                rollback_is_signed=signed is not None and signed.key_id in self._trusted_keys,
            )
            if self._config.models.switch == "stop_first":
                self.slot.stop_current()
            self._trial = _Trial(self._load(sha256, "candidate"), sha256, file, manifest)
        except Reject as refusal:
            self._refuse(file, sha256, refusal)
            return False
        except Retry as error:
            if error.blame is Blame.BOX:
                raise
            log.info("slot %s: %s: %s", self.slot.name, show_name(file.name), error)
            self.inbox.look_again(file)
            return False
        return True

    def _load(self, sha256: str, role: str) -> WorkerHandle:
        config = self._config
        return self._start_worker(
            Setup(
                model_file=str(store.model_path(self._store, sha256)),
                model_sha256=sha256,
                lock_file=str(config.agent.state_folder / "workers.lock"),
                heatmap_folder=str(config.heatmap_folder),
                role="candidate" if role == "candidate" else "worker",
                threads=None if config.inference.threads == "auto" else config.inference.threads,
                memory_mib=config.models.trial.memory_mib,
                unlabelled_input_scale=config.models.unlabelled_input_scale,
                checks=config.checks.model_dump(),
                scoring=config.scoring.model_dump(),
                heatmaps=config.heatmaps.model_dump(mode="json"),
            )
        )

    # -- 4, 5: the trial -----------------------------------------------------------------------------------------------

    def _follow_trial(self, trial: _Trial) -> None:
        try:
            loaded = trial.worker.poll_loaded(0.0, self._config.models.trial.seconds)
            if loaded is None:
                return
            current = self.slot.current
            active_ms = current.facts.run_ms if current is not None and current.facts is not None else 0.0
            if not trial.wanted:
                check_facts(loaded, trial.manifest, self.state.highest_version, self._config.models, active_ms)
        except (Reject, Retry) as error:
            self._trial = None
            trial.worker.close(0.0)
            if isinstance(error, Retry):
                raise
            self._refuse(trial.file, trial.sha256, error)
            return
        self._trial = None
        self._accept(trial, loaded)

    def _accept(self, trial: _Trial, loaded: Loaded) -> None:
        """Record first, then swap: after a crash in between the recorded model is loaded."""
        file = show_name(trial.file.name) if trial.file else self._file_of(trial.sha256)
        accepted = Accepted(loaded.model_id, loaded.version, loaded.golden, loaded.run_ms, now_ms(), file)
        probation = self._config.models.probation.strips > 0 and self.state.active not in ("", trial.sha256)
        seen = self.state.seen | ({trial.file.name: trial.file.key} if trial.file else {})
        keep = self._config.models.keep
        left = self.state.active
        state = store.activate(
            replace(self.state, seen=seen), trial.sha256, accepted, on_probation=probation, keep=keep
        )
        if trial.manifest is not None and trial.manifest.rollback:
            state = replace(state, highest_version=loaded.version)
        if trial.failing is not None:
            state = store.withdraw(state, left, self._file_of(left), trial.failing.reason, trial.failing.detail)
        self._save(state)
        self._counted = Counted()
        self.slot.offer(trial.worker)
        facts = {"run_ms": loaded.run_ms, "load_ms": loaded.load_ms, "golden_difference": loaded.golden_difference}
        self._tell("activated", trial.sha256, file, detail=proof_of(loaded), facts=facts)
        store.sweep(self._store, self._wanted())

    def _refuse(self, file: InboxFile | None, sha256: str, refusal: Reject) -> None:
        """Leave the reason, the sentence and the numbers; the same bytes, or the same file, are not tried again."""
        name = show_name(file.name) if file else self._file_of(sha256)
        if file is not None:
            refused = Refusal("rejected", refusal.reason, refusal.detail, name, now_ms())
            bytes_are_to_blame = bool(sha256) and refusal.reason in BYTES_ARE_TO_BLAME
            key = sha256 if bytes_are_to_blame else f"unread:{name}"
            self._save(store.refuse(self.state, key, refused, file.name, file.key))
        self._tell("rejected", sha256, name, reason=refusal.reason, detail=refusal.detail)
        store.sweep(self._store, self._wanted())

    def _note_unchanged(self, file: InboxFile, sha256: str) -> None:
        known = self.state.refused.get(sha256)
        detail = f"was {known.kind} before: {known.reason}" if known else "is the active model"
        self._save(replace(self.state, seen=self.state.seen | {file.name: file.key}))
        self._tell("unchanged", sha256, show_name(file.name), reason=known.reason if known else "", detail=detail)
        store.sweep(self._store, self._wanted())

    # -- 6: probation, and the way back --------------------------------------------------------------------------------

    def count(self, worker: WorkerHandle, answer: Judged | Failed | None) -> None:
        """Count what a worker answered (None: it was lost); called by the strip's journey."""
        if worker.setup.model_sha256 != self.state.active:
            return
        with self._lock:
            self._counted = self._counted.with_answer(answer)
        if isinstance(answer, Judged):
            self._hold_seconds = SHORTEST_HOLD_SECONDS
        if self.state.on_probation:
            self.slot.changed.set()

    def _watch_probation(self) -> None:
        if not self.state.on_probation or self._trial is not None:
            return
        previous = self.state.accepted.get(self.state.previous)
        limits = self._config.models.probation
        verdict = judge_probation(self._counted, limits, previous.run_ms if previous else 0.0)
        if isinstance(verdict, Failing):
            self._go_back(verdict)
        elif verdict:
            self._save(replace(self.state, on_probation=False))
            self._tell("probation_passed", self.state.active, self._file_of(self.state.active))

    def _watch_hold(self) -> None:
        """Three strips in a row cost a worker each: back to the previous model, or wait and try again."""
        if not self.slot.held:
            return
        now = self._clock()
        if self._held_until == 0.0:
            self._held_until = now + self._hold_seconds
            self._hold_seconds = min(2 * self._hold_seconds, LONGEST_HOLD_SECONDS)
            log.critical("slot %s holds its strips: %s", self.slot.name, self.slot.held)
            if self.state.previous and self._loading is None and self._trial is None:
                self._go_back(Failing(Reason.LOST_WORKERS, self.slot.held))
        elif now >= self._held_until:
            self._held_until = 0.0
            self.slot.hold_is_over()

    def _go_back(self, failing: Failing) -> None:
        """Load the previous model; the failing one goes on until that has worked."""
        active, previous = self.state.active, self.state.previous
        self._save(replace(self.state, on_probation=False))
        log.error("slot %s: model %s is withdrawn: %s", self.slot.name, active[:12], failing.detail)
        if self._loading is not None:
            self._loading.worker.close(0.0)
        if previous and store.is_intact(self._store, previous):
            self._loading = _Trial(self._load(previous, "worker"), previous, failing=failing)
        else:
            self._tell("rolled_back", active, self._file_of(active), reason=failing.reason, detail=failing.detail,
                       return_detail="there is no previous model to return to: it stays active")  # fmt: skip

    # -- 8: a worker for the active model ------------------------------------------------------------------------------

    def _keep_a_worker(self) -> None:
        if self._loading is not None:
            self._follow_loading(self._loading)
            return
        has_worker = self.slot.current is not None or self.slot.incoming is not None
        stopped_for_trial = self._trial is not None and self._config.models.switch == "stop_first"
        if has_worker or stopped_for_trial or self._clock() < self._load_at:
            return
        for sha256 in (self.state.active, self.state.previous):
            if not sha256 or sha256 in self._unusable:
                continue
            if store.is_intact(self._store, sha256):
                failing = None
                if sha256 != self.state.active:
                    failing = Failing(Reason.STORE_DAMAGED, self._unusable[self.state.active])
                self._loading = _Trial(self._load(sha256, "worker"), sha256, failing=failing)
                return
            self._unusable[sha256] = f"model {sha256[:12]} is damaged or missing in the store"
            log.critical("slot %s: %s", self.slot.name, self._unusable[sha256])
        self._unusable.clear()
        self._load_at = self._clock() + BOX_PAUSE_SECONDS

    def _follow_loading(self, loading: _Trial) -> None:
        try:
            loaded = loading.worker.poll_loaded(0.0, self._config.models.trial.seconds)
        except (Reject, Retry) as error:
            self._loading = None
            loading.worker.close(0.0)
            if isinstance(error, Retry):
                self._load_at = self._clock() + BOX_PAUSE_SECONDS
                raise
            log.critical("slot %s: model %s does not load: %s", self.slot.name, loading.sha256[:12], error)
            self._unusable[loading.sha256] = f"model {loading.sha256[:12]} does not load: {error.detail}"
            if loading.failing is not None:
                active = self.state.active
                self._tell("rolled_back", active, self._file_of(active), reason=loading.failing.reason,
                           detail=loading.failing.detail, return_detail=self._unusable[loading.sha256])  # fmt: skip
            return
        if loaded is None:
            return
        self._loading = None
        self._unusable.clear()
        if loading.failing is not None:
            self._return_to(loading, loading.failing)
        self.slot.offer(loading.worker)
        self._held_until = 0.0

    def _return_to(self, loading: _Trial, failing: Failing) -> None:
        bad = self.state.active
        facts = self.state.accepted.get(bad)
        state = store.withdraw(self.state, bad, self._file_of(bad), failing.reason, failing.detail)
        self._save(store.step_back(state, loading.sha256, now_ms()))
        self._tell("rolled_back", bad, facts.file if facts else "", reason=failing.reason, detail=failing.detail,
                   return_detail=f"model {loading.sha256[:12]} scores again")  # fmt: skip
        store.sweep(self._store, self._wanted())

    def close(self) -> None:
        """End the workers that are being tried or loaded."""
        for trial in (self._trial, self._loading):
            if trial is not None:
                trial.worker.close(0.0)

    # -- what is remembered and told -----------------------------------------------------------------------------------

    def _save(self, state: store.SlotState) -> None:
        store.save_slot(self._store, self.slot.name, state)
        self.state = state

    def _tell(self, what: Event, sha256: str, file: str, **more: Any) -> None:
        facts = self.state.accepted.get(sha256)
        log.warning("slot %s: model %s %s %s", self.slot.name, file or sha256[:12], what, more.get("detail", ""))
        tell(self._config, self._ledger, self.slot.name, self.state, what, sha256=sha256, file=file,
             model_id=facts.model_id if facts else "", version=facts.version if facts else 0, **more)  # fmt: skip
        self.announce()

    def _file_of(self, sha256: str) -> str:
        facts = self.state.accepted.get(sha256) or self.state.refused.get(sha256)
        return facts.file if facts else ""

    def _wanted(self) -> set[str]:
        with self._lock:
            wished = {sha256 for sha256, _ in self._wishes}
        return store.wanted_by_all_slots(self._store) | {t.sha256 for t in (self._trial, self._loading) if t} | wished
