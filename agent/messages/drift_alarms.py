"""The alarms about how strips look, against those that the model was calibrated with (docs/trust.md)."""

from __future__ import annotations

from agent.messages.alarms_of_the_broker import AlarmKind

DRIFT_ALARMS: dict[str, AlarmKind] = {
    "camera_drift_light": AlarmKind(
        "medium",
        "The light has changed: strips are brighter or darker, flatter or noisier than the model knows them.",
        "Lamp, aperture, exposure, gain, dirt on the lens; what is meant to be so needs a model that was calibrated "
        "with it.",
    ),
    "camera_drift_focus": AlarmKind(
        "medium",
        "The sharpness has changed: strips are more or less blurred than the model knows them.",
        "Focus, distance, dirt on the lens, speed and exposure time.",
    ),
    "camera_drift_alignment": AlarmKind(
        "medium",
        "The target and a reference lie on each other otherwise than the model knows it.",
        "Where and when the references are taken: trigger, encoder, guides of the material.",
    ),
    "camera_drift_references": AlarmKind(
        "medium",
        "The references do not fit the target: it looks as it always did, and they show something else.",
        "Take new references of the part that runs.",
    ),
    "camera_drift_product": AlarmKind(
        "medium",
        "Scores have moved, while strips are lit, sharp and aligned as ever: the product itself looks otherwise.",
        "Look at the named strips: a new material or process, or many defects. What is good now has to be trained.",
    ),
}
