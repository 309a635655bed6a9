"""Alarms: every code with its priority, what it means and what to do.

`state/health` names them with their source in the middle (`camera_top_missing`); `explain` takes that apart again. The
table becomes the alarms' part of docs/messages.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import Reason
from agent.messages.alarms_of_the_broker import OF_THE_BROKER, AlarmKind
from agent.messages.drift_alarms import DRIFT_ALARMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.messages.about_alarms import Priority


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm of this box."""

    code: str
    source: str
    priority: Priority
    text: str


ROLLED_BACK = "slot_rolled_back"
_UNKNOWN = AlarmKind("medium", "No explanation is known.", "")

ALARMS: dict[str, AlarmKind] = {
    "metrics_not_served": AlarmKind(
        "low",
        "Nothing listens on metrics.listen: the address is taken, or is none of this machine.",
        "The log says why; it is tried again each second. Nothing else is touched by it.",
    ),
    # The configuration
    "configuration_invalid": AlarmKind(
        "medium",
        "The configuration's file is not usable. The service runs on with what it read before; it would not start "
        "again with this one.",
        "`strip-agent check-config` names the lines; mend them, then `systemctl reload strip-agent`.",
    ),
    "configuration_not_applied": AlarmKind(
        "low",
        "The configuration's file says something else than what the service runs with.",
        "`systemctl reload strip-agent` applies it, or says what needs a restart; `strip-agent status` names each key.",
    ),
    **OF_THE_BROKER,
    # Cameras
    "camera_paused": AlarmKind(
        "medium", "An operator has paused the camera; its strips wait.", "`strip-agent resume CAMERA` ends it."
    ),
    "camera_missing": AlarmKind(
        "high",
        "The camera's folder is not there, or nothing is mounted where it was; its strips wait.",
        "Bring the folder or the share back; nothing is lost meanwhile.",
    ),
    "camera_unreadable": AlarmKind(
        "high",
        "The camera's folder cannot be read; its strips wait.",
        "Give the service's user the right to read it; `strip-agent status` has the system's words.",
    ),
    "camera_unreachable": AlarmKind(
        "high",
        "Reading the camera's folder has not come back for three rescan_seconds: a share that hangs.",
        "Look at the network and at the machine that shares it.",
    ),
    "camera_partly_unreadable": AlarmKind(
        "high",
        "The last full scan could not read a folder or a file of the camera.",
        "`strip-agent status` names the first one; give the service's user the right to read it.",
    ),
    "camera_clock_ahead": AlarmKind(
        "medium",
        "The camera's last strip, or one of the last hour, has a time more than a minute ahead of this box's.",
        "Set both clocks by NTP. `captured_ts_ms` and the folders of heatmaps go by it, nothing else does.",
    ),
    "camera_linked_folder": AlarmKind(
        "medium",
        "A link in the camera's folder leads to a folder elsewhere, which is not followed: nothing behind it is "
        "judged.",
        "Mount the folder there, or give it a camera of its own. Seen by full scans, so at most `rescan_seconds` "
        "after it came or went.",
    ),
    "camera_files_cannot_be_disposed_of": AlarmKind(
        "medium",
        "For a minute files of the camera could not be moved or removed (when_done).",
        "Read-only, forbidden, no room: `strip-agent status` says which; it is tried again every ten seconds.",
    ),
    "camera_files_stay": AlarmKind(
        "medium",
        "In the place of files that were to be moved or removed is something that nothing may touch.",
        "A link, a pipe, a folder, or content that was never read: `strip-agent status` names them. Ends within a "
        "minute after they are taken away, or with `when_done: keep`.",
    ),
    **DRIFT_ALARMS,
    # Models and workers
    "slot_no_model": AlarmKind(
        "critical",
        "No process scores for this slot: its strips wait.",
        "Push a model; where there is one, `strip-agent models list` and the log say why it does not load.",
    ),
    "slot_held": AlarmKind(
        "critical",
        "Three strips in a row cost a process each: strips wait, with growing pauses between attempts.",
        "`strip-agent status` says why: too little memory, or a model that crashes, which a push replaces.",
    ),
    "slot_strips_wait_for_the_box": AlarmKind(
        "high",
        "Strips wait because the box cannot judge them now: no memory, no room, an error of a disk.",
        "The log says what is missing.",
    ),
    "slot_provider_not_used": AlarmKind(
        "medium",
        "The cpu computes, and not what `inference.provider` names, or CUDA, which the installed onnxruntime has.",
        "`strip-agent status` says why: not installed, no device, or the golden strip is not reproduced. Scores are "
        "right, and may come slower. `inference.provider: cpu` where that is meant to be so; see install.md.",
    ),
    ROLLED_BACK: AlarmKind(
        "medium",
        "The model that was accepted last had to go; an earlier one scores.",
        "The reason stands in the text ([reasons.md](reasons.md)), the numbers in `event/model`. In `state/health` "
        "the alarm is `slot_<slot>_<reason>`. Goes when the next model is accepted.",
    ),
    "slot_store_damaged": AlarmKind(
        "medium",
        "A copy of a model in the store is damaged and is not used.",
        "Push the same file again.",
    ),
    "slot_postponed": AlarmKind(
        "medium",
        "A pushed model waits because the box cannot try it now.",
        "`strip-agent models list` says why.",
    ),
    "slot_inbox_missing": AlarmKind(
        "medium",
        "The inbox is not there: no pushed model is taken; scoring goes on.",
        "Bring the folder or the share back (`models.inbox`). What has been dealt with is not taken again.",
    ),
    "slot_inbox_unreadable": AlarmKind(
        "medium",
        "The inbox cannot be read: no pushed model is taken; scoring goes on.",
        "Give the service's user the right to read it; `strip-agent models list` has the system's words.",
    ),
    "slot_inbox_unreachable": AlarmKind(
        "medium",
        "The inbox has not answered for half a minute: a share that hangs; no pushed model is taken; scoring goes on.",
        "Look at the network and at the machine that shares it. Pushes are taken again by themselves.",
    ),
    "trusted_keys_missing": AlarmKind(
        "medium",
        "A file of `models.trusted_keys` cannot be read: models that may be signed with its key wait; scoring goes on.",
        "Bring the file or its share back; the log and `strip-agent check-config` name it. What waits is then tried.",
    ),
    "slot_state_damaged": AlarmKind(
        "medium",
        "The slot's own file was damaged and was made anew out of the ledger.",
        "See with `strip-agent models list` that the right model is active; look at the state disk.",
    ),
    "slot_shadow_off": AlarmKind(
        "low", "The slot's shadow failed too often and was switched off.", "`strip-agent models shadow` says why."
    ),
    "slot_worker_hangs": AlarmKind(
        "medium",
        "A worker was killed and does not end: it hangs in the kernel, on a share or a disk that does not answer.",
        "Another one has taken over; what it costs is its memory. `dmesg` says what it waits for.",
    ),
    "old_workers_hang": AlarmKind(
        "medium",
        "A worker of the service that ran before this one was killed and does not end.",
        "What it costs is its memory. `dmesg` says what it waits for.",
    ),
    # The ledger and the disks
    "ledger_no_space": AlarmKind(
        "critical",
        "The state disk is full: the ledger cannot be written, strips wait.",
        "Make room. Strips are counted in `strips_pending` meanwhile, and are judged once it can be written.",
    ),
    "ledger_io_error": AlarmKind(
        "critical",
        "The ledger cannot be written: strips wait.",
        "Look at the state disk (`dmesg`, the log). Strips are judged once it can be written.",
    ),
    "ledger_was_damaged": AlarmKind(
        "medium",
        "A damaged ledger was set aside, and a new stream has begun.",
        "Look at the disk, then remove `ledger.db.corrupt.*` in the state folder.",
    ),
    "heatmaps_no_space": AlarmKind(
        "medium",
        "No heatmaps are written for lack of space (heatmaps.min_free_gib); scoring goes on.",
        "Make room, or keep less (`heatmaps.keep_gib`, `heatmaps.keep_days`).",
    ),
    "heatmaps_failed": AlarmKind(
        "medium",
        "The last heatmaps could not be written, or not in time; scoring goes on.",
        "The log says why: read-only, forbidden, a broken disk.",
    ),
    "heatmaps_unreachable": AlarmKind(
        "medium",
        "The heatmap folder is missing and cannot be made, or takes no files; scoring goes on.",
        "`strip-agent status` says why. Heatmaps are written again by themselves; those of the meantime have the "
        "`heatmap_state` `failed`.",
    ),
    "heatmaps_hang": AlarmKind(
        "medium",
        "The heatmap folder has not answered for ten seconds: a share that hangs; scoring goes on.",
        "Look at the network and at the machine that shares it. Heatmaps are written again by themselves.",
    ),
    "clock_jumped_ahead": AlarmKind(
        "medium",
        "The wall clock jumped forward by more than a day.",
        "Set it right. Until both clocks have agreed for a day of running, heatmaps and rows become old by the "
        "monotonic clock only; the limits of space hold all the time.",
    ),
}
"""By code, in the order of the documentation. Those of a camera or a slot begin with `camera_` or `slot_`."""


def explain(name: str, cameras: Iterable[str], slots: Iterable[str]) -> Alarm:
    """Take apart an alarm as `state/health` names it (`camera_top_missing`). One that is in no table is told, too."""
    if name in ALARMS and not name.startswith(("camera_", "slot_")):
        return _alarm(name, "agent", ALARMS[name])
    for what, sources in (("camera", cameras), ("slot", slots)):
        for source in sorted(sources, key=len, reverse=True):
            rest = name.removeprefix(f"{what}_{source}_")
            if rest != name and f"{what}_{rest}" in ALARMS:
                return _alarm(f"{what}_{rest}", f"{what}/{source}", ALARMS[f"{what}_{rest}"])
            if rest != name and what == "slot" and rest in set(Reason):
                return _alarm(ROLLED_BACK, f"slot/{source}", ALARMS[ROLLED_BACK], f" The reason: {rest}.")
    return _alarm(name, "agent", _UNKNOWN)


def _alarm(code: str, source: str, kind: AlarmKind, more: str = "") -> Alarm:
    return Alarm(code, source, kind.priority, kind.text + more)
