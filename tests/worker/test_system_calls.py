"""The numbers that a worker's filter goes by, against the kernel's own tables: no ARM box is here to try them on."""

from __future__ import annotations

import platform
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.worker.process import _SYSTEM_CALLS
from tests.helpers.programs import needs

if TYPE_CHECKING:
    from pathlib import Path

AUDIT_NAMES = {"aarch64": "AUDIT_ARCH_AARCH64", "x86_64": "AUDIT_ARCH_X86_64"}
# aarch64 has the table that all newer architectures share; x86-64's own is here only where this is one.
TABLES = {"aarch64": "asm-generic/unistd.h", "x86_64": "asm/unistd_64.h"}
PROGRAM = """
#include <stdio.h>
#include <linux/audit.h>
#include <{table}>
int main(void) {{ printf("%u %d %d", {audit}, __NR_socket, __NR_io_uring_setup); return 0; }}
"""


@needs("cc")
@pytest.mark.parametrize("architecture", _SYSTEM_CALLS)
def test_the_filter_knows_the_numbers_of_each_architecture(architecture: str, tmp_path: Path) -> None:
    """A wrong number would refuse some other call, and let a worker open sockets."""
    if architecture == "x86_64" and platform.machine() != architecture:
        pytest.skip("this machine's headers do not have the numbers of x86-64")
    source, program = tmp_path / "numbers.c", tmp_path / "numbers"
    source.write_text(PROGRAM.format(table=TABLES[architecture], audit=AUDIT_NAMES[architecture]))
    subprocess.run(["cc", "-o", str(program), str(source)], check=True, capture_output=True, text=True)
    said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    audit, *calls = map(int, said.split())
    assert _SYSTEM_CALLS[architecture] == (audit, tuple(calls))
