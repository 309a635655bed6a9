"""Why the installer refuses; each code is explained in docs/install.md, which a test checks."""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """What is in the way."""

    NOT_ROOT = "not_root"
    DAMAGED_BUNDLE = "damaged_bundle"
    WRONG_PROCESSOR = "wrong_processor"
    OLD_PROCESSOR = "old_processor"
    OLD_GLIBC = "old_glibc"
    PYTHON_UNSUPPORTED = "python_unsupported"
    NO_SYSTEMD = "no_systemd"
    LITTLE_MEMORY = "little_memory"
    NO_SPACE = "no_space"
    CLOCK_WRONG = "clock_wrong"
    ANOTHER_INSTALLER = "another_installer"
    TOOL_FAILED = "tool_failed"
    CONFIG_UNUSABLE = "config_unusable"
    MODEL_REFUSED = "model_refused"
    NEW_VERSION_FAILED = "new_version_failed"
    NOTHING_TO_GO_BACK_TO = "nothing_to_go_back_to"
    NOT_INSTALLED = "not_installed"


class Refused(Exception):
    """It is not done; what was there is as it was, unless the sentence says otherwise."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
