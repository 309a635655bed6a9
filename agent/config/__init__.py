"""The configuration: its keys and limits (`sections.py`, `judging.py`, `types.py`), and how it is read and checked."""

from agent.config.judging import ChecksSection, DetectionsSection, HeatmapsSection, ScoringSection
from agent.config.sections import (
    Camera,
    Config,
    LogSection,
    ModelsSection,
    MqttSection,
    Probation,
    Tls,
)

__all__ = [
    "Camera",
    "ChecksSection",
    "Config",
    "DetectionsSection",
    "HeatmapsSection",
    "LogSection",
    "ModelsSection",
    "MqttSection",
    "Probation",
    "ScoringSection",
    "Tls",
]
