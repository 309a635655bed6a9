"""What is remembered of a slot's models, and how it changes. Pure functions; `models/store.py` keeps it on the disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_PLAUSIBLE_VERSION = 1 << 52  # a version above it would leave no room for later ones
REFUSALS_KEPT = 100  # of each kind; what may not become active again is remembered without limit, see `Dealt`


class Fate(StrEnum):
    """How a file of the inbox was dealt with."""

    ACCEPTED = "accepted"  # it became active
    WITHDRAWN = "withdrawn"  # and turned bad
    SUPERSEDED = "superseded"  # it stood behind another one
    OUTDATED = "outdated"  # its version was too low
    REJECTED = "rejected"  # its bytes are to blame
    PAPERS = "papers"  # refused together with its manifest; with another one it may be good
    UNREAD = "unread"  # refused before it was read
    BEHIND = "behind"  # superseded, and not read yet
    SHADOW = "shadow"  # its manifest asks for a shadow, and it became that
    SEEN = "seen"  # dealt with by an earlier release, which did not remember digests
    FORGOTTEN = "forgotten"  # everything that was said of these bytes is taken back


NEVER_AGAIN = (Fate.ACCEPTED, Fate.WITHDRAWN)  # was good once, so nothing but the memory of it stands in its way
_BY_DIGEST = (*NEVER_AGAIN, Fate.SUPERSEDED, Fate.OUTDATED, Fate.REJECTED, Fate.SHADOW)


@dataclass(frozen=True, slots=True)
class Dealt:
    """A file of the inbox that has been dealt with. It has no name when it is about a model's bytes alone."""

    file: str
    key: str  # InboxFile.key
    sha256: str  # "" where it was not read
    push: str  # digest of the model and its manifest together; "" where it was not read
    kind: str  # a Fate
    note: str = ""  # of BEHIND: what is to be told of it; of SEEN: the Fate that it had unless its digest tells another

    @property
    def digests(self) -> tuple[str, ...]:
        """What may not become active by itself any more."""
        found = (self.sha256 if self.kind in _BY_DIGEST else "", self.push if self.kind in _WITH_MANIFEST else "")
        return tuple(digest for digest in found if digest)


_WITH_MANIFEST = (Fate.PAPERS, Fate.ACCEPTED, Fate.SHADOW)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A model that passed its trial. Times are milliseconds for one strip; the date is Unix milliseconds."""

    model_id: str
    version: int
    height: int  # pixels
    width: int
    golden: str  # passed | none
    run_ms: float  # in its trial
    cpu_ms: float  # in its trial, of all threads together
    since_ms: int  # when it became active last
    file: str  # its name in the inbox, for people only
    serving_ms: float = 0.0  # the median on strips of the line, known when it is replaced
    counts: bool = True  # its version holds older ones off


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model that scores the same strips when nothing waits, and decides nothing."""

    sha256: str
    since_ms: int  # when it became the shadow
    facts: Accepted
    reason: str = ""  # why it was switched off; "" while it is to score
    detail: str = ""
    events: bool = False  # what it says of each strip is published as well


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file, or the bytes of a model, that are not taken again from the inbox."""

    kind: str  # rejected | withdrawn
    sha256: str  # "" when the file could not be read
    reason: str
    detail: str
    file: str
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Telling:
    """Something that happened to a model and has to be told once: its row in the ledger and its event."""

    number: int  # rises within a slot; the ledger knows up to which one it has been told
    event: str
    row: dict[str, Any]  # the fields of the ledger's ModelRecord
    writes_row: bool
    ts_ms: int  # when it happened
    reason: str
    detail: str
    return_detail: str
    counts_judged: bool  # says how many strips the model has judged; counted as late as it is told
    active_model_id: str  # of the model that was active afterwards
    active_sha256: str
    previous_sha256: str


@dataclass(frozen=True, slots=True)
class SlotState:
    """Everything that has to be remembered of a slot. Models are named by their sha256."""

    active: str = ""
    previous: str = ""
    version_floor: int = 0  # the highest version of accepted models that are not kept any more
    on_probation: bool = False
    probation_counts: dict[str, int] = field(default_factory=dict)  # judged, anomalous, faults: survive a restart
    returned: str = ""  # why the active model is not the one that was accepted last; "" when it is
    accepted: dict[str, Accepted] = field(default_factory=dict)  # in the order in which they became active
    refused: dict[str, Refusal] = field(default_factory=dict)  # oldest first; by sha256 or by `file_key`
    tellings: int = 0  # the number of the newest one
    untold: tuple[Telling, ...] = ()  # oldest first
    unwritten: tuple[Dealt, ...] = ()  # dealt with, and not in `<slot>.dealt` yet
    shadow: Shadow | None = None  # never the active model

    @property
    def kept(self) -> dict[str, Accepted]:
        """All models whose files stay in the store."""
        return ({self.shadow.sha256: self.shadow.facts} if self.shadow else {}) | self.accepted

    @property
    def highest_version(self) -> int:
        """The highest version that was accepted and not withdrawn; a model below it is refused."""
        kept = (facts.version for facts in self.accepted.values() if facts.counts)
        return max([self.version_floor, *(version for version in kept if version <= MAX_PLAUSIBLE_VERSION)])

    def file_of(self, sha256: str) -> str:
        """Return the name that a known model had in the inbox."""
        facts = self.kept.get(sha256) or self.refused.get(sha256)
        return facts.file if facts else ""


def file_key(name: str) -> str:
    """Name a refusal that holds for a file, not for the bytes of a model."""
    return f"file:{name}"


def tell(
    state: SlotState,
    event: str,
    row: dict[str, Any],
    ts_ms: int,
    *,
    writes_row: bool = True,
    reason: str = "",
    detail: str = "",
    return_detail: str = "",
    counts_judged: bool = False,
) -> SlotState:
    """Add something that has to be told; `state` is the slot's afterwards."""
    active = state.accepted.get(state.active)
    telling = Telling(
        state.tellings + 1,
        event,
        row,
        writes_row,
        ts_ms,
        reason,
        detail,
        return_detail,
        counts_judged,
        active.model_id if active else "",
        state.active,
        state.previous,
    )
    return replace(state, tellings=telling.number, untold=(*state.untold, telling))


def forget_told(state: SlotState, told_up_to: int) -> SlotState:
    """Take out what the ledger has been told already, before the slot's file could be written."""
    untold = tuple(telling for telling in state.untold if telling.number > told_up_to)
    return replace(state, tellings=max(state.tellings, told_up_to), untold=untold)


def activate(state: SlotState, sha256: str, accepted: Accepted, *, on_probation: bool, keep: int) -> SlotState:
    """Make a model active, the active one previous, and forget the oldest accepted ones beyond `keep`."""
    others = {name: facts for name, facts in state.accepted.items() if name != sha256}
    kept = dict(list(others.items())[-(keep - 1) :])
    return replace(
        state,
        active=sha256,
        previous=_newest(kept),
        version_floor=_floor(state, others.keys() - kept.keys()),
        on_probation=on_probation,
        probation_counts={},
        returned="",
        accepted=kept | {sha256: accepted},
        refused={key: refusal for key, refusal in state.refused.items() if key != sha256},
        shadow=_unless(state.shadow, sha256),
    )


def go_back(state: SlotState, sha256: str, since_ms: int, why: str, left: Refusal | None) -> SlotState:
    """Make an earlier model active and give up the active one.

    With `left` that one is withdrawn: it is not taken from the inbox again. Without, it may come again.
    """
    bad = state.active
    rest = {name: facts for name, facts in state.accepted.items() if name not in (bad, sha256)}
    refused = {key: refusal for key, refusal in state.refused.items() if key != bad}
    state = replace(
        state,
        active=sha256,
        previous=_newest(rest),
        version_floor=state.version_floor if left is not None else _floor(state, {bad}),
        on_probation=False,
        probation_counts={},
        returned=why,
        accepted=rest | {sha256: replace(state.accepted[sha256], since_ms=since_ms)},
        refused=refused if left is None else newest_refusals(refused | {bad: left}),
        shadow=_unless(state.shadow, sha256),
    )
    return look_again(state, bad) if left is None else dealt(state, Dealt("", "", bad, "", Fate.WITHDRAWN))


def _unless(shadow: Shadow | None, sha256: str) -> Shadow | None:
    """Return the shadow, unless it is this model: what is active is no shadow any more."""
    return None if shadow is not None and shadow.sha256 == sha256 else shadow


def _floor(state: SlotState, leaving: Collection[str]) -> int:
    """Return the version floor once these models are not kept any more."""
    versions = (facts.version for sha256, facts in state.accepted.items() if sha256 in leaving and facts.counts)
    return max([state.version_floor, *(version for version in versions if version <= MAX_PLAUSIBLE_VERSION)])


def forget(state: SlotState, sha256: str) -> SlotState:
    """Take back every refusal of these bytes: they may come from the inbox again."""
    refused = {key: refusal for key, refusal in state.refused.items() if sha256 not in (key, refusal.sha256)}
    return look_again(replace(state, refused=refused), sha256)


def forget_highest_version(state: SlotState) -> SlotState:
    """Let only the active model's version hold older ones off; if that is not plausible, none does."""
    accepted = {
        sha256: replace(facts, counts=facts.counts and sha256 == state.active)
        for sha256, facts in state.accepted.items()
    }
    return replace(state, version_floor=0, accepted=accepted)


def look_again(state: SlotState, sha256: str) -> SlotState:
    """Let the file of a model be taken again, wherever it comes from."""
    return dealt(state, Dealt("", "", sha256, "", Fate.FORGOTTEN))


def dealt(state: SlotState, *entries: Dealt) -> SlotState:
    """Add what has been dealt with."""
    return replace(state, unwritten=(*state.unwritten, *entries))


def refuse(state: SlotState, key: str, refusal: Refusal) -> SlotState:
    """Remember a refusal; the newest hundred of each kind are kept."""
    return replace(
        state, refused=newest_refusals({k: r for k, r in state.refused.items() if k != key} | {key: refusal})
    )


def _newest(accepted: dict[str, Accepted]) -> str:
    return next(reversed(accepted), "")


def newest_refusals(refused: dict[str, Refusal]) -> dict[str, Refusal]:
    """Return the newest hundred of each kind."""
    kept: set[str] = set()
    for kind in ("rejected", "withdrawn"):
        kept.update([key for key, refusal in refused.items() if refusal.kind == kind][-REFUSALS_KEPT:])
    return {key: refusal for key, refusal in refused.items() if key in kept}
