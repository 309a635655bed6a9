"""The configuration: its keys and limits (`sections.py`, `types.py`), and how it is read and checked."""

from agent.config.sections import (
    Camera,
    ChecksSection,
    Config,
    HeatmapsSection,
    LogSection,
    ModelsSection,
    MqttSection,
    Probation,
    ScoringSection,
    Tls,
)

__all__ = [
    "Camera",
    "ChecksSection",
    "Config",
    "HeatmapsSection",
    "LogSection",
    "ModelsSection",
    "MqttSection",
    "Probation",
    "ScoringSection",
    "Tls",
]
