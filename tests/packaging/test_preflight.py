"""What a box must have: each lack is refused with its code before anything is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tools.packaging.installer.preflight import V2, Facts, Needs, check
from tools.packaging.installer.refusal import Code, Refused

GOOD = Facts(
    machine="x86_64",
    python="3.11",
    glibc=(2, 36),
    cpu=frozenset(V2 | {"avx2"}),
    memory_mib=3900,
    free_bytes=8 << 30,
    clock=1_800_000_000.0,
    systemd=252,
    has_cgroup2=True,
)
NEEDS = Needs("x86_64", ("3.11", "3.12", "3.13"), (2, 28), 450 << 20)


def test_a_good_box_is_taken_without_a_word() -> None:
    """Nothing to say of a Debian 12 with 4 GiB."""
    assert check(GOOD, NEEDS) == []


@pytest.mark.parametrize(
    ("lack", "code"),
    [
        ({"machine": "aarch64"}, Code.WRONG_PROCESSOR),
        ({"cpu": frozenset({"sse4_1"})}, Code.OLD_PROCESSOR),
        ({"glibc": (2, 27)}, Code.OLD_GLIBC),
        ({"glibc": ()}, Code.OLD_GLIBC),
        ({"python": "3.10"}, Code.PYTHON_UNSUPPORTED),
        ({"python": "3.14"}, Code.PYTHON_UNSUPPORTED),
        ({"systemd": 0}, Code.NO_SYSTEMD),
        ({"systemd": 246}, Code.NO_SYSTEMD),
        ({"memory_mib": 512}, Code.LITTLE_MEMORY),
        ({"free_bytes": 900 << 20}, Code.NO_SPACE),
        ({"clock": 12.0}, Code.CLOCK_WRONG),
    ],
)
def test_what_is_missing_is_refused_by_its_name(lack: dict[str, Any], code: Code) -> None:
    """One lack, one code, and a sentence."""
    with pytest.raises(Refused, match=f"{code}: ..") as refused:
        check(replace(GOOD, **lack), NEEDS)
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("lack", "word"),
    [
        ({"memory_mib": 1000}, "stop_first"),
        ({"cpu": frozenset(V2)}, "avx2"),
        ({"has_cgroup2": False}, "cgroup"),
    ],
)
def test_what_can_be_lived_with_is_said(lack: dict[str, Any], word: str) -> None:
    """A note, no refusal."""
    (note,) = check(replace(GOOD, **lack), NEEDS)
    assert word in note
