"""Other kinds of processors: what is hidden from a process stays hidden, and a process that saw it is not believed."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.helpers.models import difference_model
from tests.helpers.repository import ROOT
from tools import bench
from tools.benching import hiding
from tools.benching.hiding import (
    FEATURES,
    KINDS,
    REGISTERS,
    VNNI,
    Seen,
    as_c,
    check,
    compile_hiding,
    compile_library,
    environment,
    flags_of,
    read_flags,
    why_not,
    why_not_here,
)
from tools.benching.machine import describe
from tools.benching.models import check_kind
from tools.benching.one_kind import Asked, run
from tools.exporter.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

ZEN_5 = frozenset({"avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "cpuid_fault"})
SAPPHIRE_RAPIDS = ZEN_5 | {"amx_tile", "amx_int8", "amx_bf16"}
HASWELL = frozenset({"avx2", "fma", "cpuid_fault"})
SKYLAKE_X = HASWELL | {"avx512f"}
NOT_AT_ALL = pytest.mark.skipif(bool(why_not_here("avx2")), reason=why_not_here("avx2") or "-")


def test_what_is_taken_out_of_cpuid_is_written_as_the_manuals_number_it() -> None:
    """AMX alone by hand, all of it by the bits: no bit is lost, none more is taken, AVX2 and FMA stay."""
    assert as_c(KINDS["vnni"].hidden) == "{7, 0, 0x0u, 0x0u, 0x0u, 0x3400000u}, {7, 1, 0x200000u, 0x0u, 0x0u, 0x100u}"
    rows = [[int(number.strip(" {}u"), 0) for number in row.split(",")] for row in as_c(FEATURES).split("}, {")]
    bits = {
        (leaf, subleaf, register, number)
        for leaf, subleaf, *masks in rows
        for register, mask in zip(REGISTERS, masks, strict=True)
        for number in range(32)
        if mask >> number & 1
    }
    assert bits == {(bit.leaf, bit.subleaf, bit.register, bit.number) for bit in FEATURES.values()}
    assert len(bits) == len(FEATURES)
    assert (7, 0, "ebx", 5) not in bits  # AVX2


@pytest.mark.parametrize(
    ("kind", "flags", "machine", "compiler", "reason"),
    [
        ("avx2", ZEN_5, "x86_64", "cc", ""),
        ("avx2", SAPPHIRE_RAPIDS, "x86_64", "cc", ""),
        ("avx2", SKYLAKE_X, "x86_64", "cc", ""),
        ("vnni", SAPPHIRE_RAPIDS, "x86_64", "cc", ""),
        ("vnni", ZEN_5, "x86_64", "cc", "is VNNI, no AMX as it is"),
        ("vnni", SKYLAKE_X, "x86_64", "cc", "has no VNNI"),
        ("avx2", HASWELL, "x86_64", "cc", "is AVX2 only as it is"),
        ("avx2", frozenset({"sse4_2"}), "x86_64", "cc", "has no AVX2"),
        ("avx2", frozenset({"asimd"}), "aarch64", "cc", "Only an x86-64 processor"),
        ("avx2", ZEN_5 - {"cpuid_fault"}, "x86_64", "cc", "no cpuid_fault"),
        ("avx2", ZEN_5, "x86_64", None, "C compiler"),
    ],
)
def test_why_a_machine_cannot_be_measured_as_another_is_one_sentence(
    kind: str, flags: frozenset[str], machine: str, compiler: str | None, reason: str
) -> None:
    """What is missing is named; nothing where nothing is."""
    said = why_not(kind, flags, machine, compiler)
    assert reason in said
    assert bool(reason) == bool(said)
    assert said.count(". ") == 0
    assert "\n" not in said


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("avx2", {}, None),
        ("avx2", {"features": ("avx512f",)}, "CPUID still says avx512f"),
        ("avx2", {"saturates": False}, "with VNNI"),
        ("avx2", {"tiles": True}, "AMX was asked for"),
        ("vnni", {"features": ("avx512f", "avx512_vnni"), "saturates": False}, None),
        ("vnni", {"features": ("amx_int8",), "saturates": False}, "CPUID still says amx_int8"),
        ("vnni", {}, "without VNNI"),
        ("vnni", {"saturates": False, "tiles": True}, "AMX was asked for"),
    ],
)
def test_a_process_with_other_kernels_than_it_was_to_have_is_not_believed(
    kind: str, change: dict[str, object], problem: str | None
) -> None:
    """Each of the three signs alone."""
    seen = replace(Seen((), saturates=True, tiles=False), **change)  # type: ignore[arg-type]  # of any field
    if problem is None:
        check(kind, seen)
    else:
        with pytest.raises(ExportError, match=problem):
            check(kind, seen)


def test_the_machine_is_described_without_what_is_hidden() -> None:
    """What is left stands before what is hidden."""
    flags = {flag for flag in ("avx512f", "amx_int8") if flag in read_flags()}
    left, _, hidden = describe(FEATURES).partition("hidden: ")
    assert not flags & set(left.split())
    assert flags <= set(hidden.partition(")")[0].split())
    assert flags_of("processor\t: 0\nflags\t\t: fpu avx2\n\nflags\t\t: other\n") == {"fpu", "avx2"}


def _seen(folder: Path, library: Path | None, *, memory: bool = False) -> Seen:
    difference_model(folder / "model.onnx", height=64, width=48)
    models = {"one": str(folder / "model.onnx"), "other": str(folder / "model.onnx")}
    hidden_by = str(library) if library else None
    told = run(Asked(models, (64, 48), 2, 1, memory=memory, library=hidden_by, limit_rounds=1))
    assert [one.name for one in told.measured] == ["one", "other"]
    assert all(one.peak_mib > 1 or not memory for one in told.measured)  # measured in a child of the child
    assert [len(one.cpu_ratios) for one in told.measured] == [2, 2]
    assert told.limit.int8 > 0
    return told.seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_hidden_from_has_the_kernels_of_that_kind(tmp_path: Path, kind: str) -> None:
    """A real one: by what CPUID says in it, and by what onnxruntime does there."""
    if reason := why_not_here(kind):
        pytest.skip(reason)
    seen = _seen(tmp_path, compile_hiding(kind, tmp_path), memory=kind == "avx2")
    check(kind, seen)
    assert set(seen.features) == (read_flags() & set(FEATURES)) - KINDS[kind].hidden


@NOT_AT_ALL
def test_a_process_that_nothing_is_hidden_from_is_seen_as_such(tmp_path: Path) -> None:
    """The signs are none that would always be there."""
    library = compile_library(["avx10"], tmp_path / "hide-nothing.so")  # the compiler takes no empty table
    seen = _seen(tmp_path, library)
    assert set(seen.features) >= (read_flags() & set(FEATURES)) - {"avx10"}
    assert seen.saturates != bool(VNNI & read_flags())
    with pytest.raises(ExportError, match="Hiding did not work"):
        check("avx2", seen)
    assert _seen(tmp_path, None).saturates == seen.saturates


@NOT_AT_ALL
@pytest.mark.parametrize(
    "fault", ["ctypes.string_at(8)", "ctypes.CFUNCTYPE(None)(8)()", "os.kill(os.getpid(), signal.SIGSEGV)"]
)
def test_a_fault_of_another_kind_ends_the_process_as_without_hiding(tmp_path: Path, fault: str) -> None:
    """A wild read, a jump to nowhere, and a signal that somebody sent: neither hangs, none is swallowed."""
    library = compile_hiding("avx2", tmp_path)
    program = [sys.executable, "-c", f"import ctypes, os, signal\n{fault}\nprint('alive')"]
    ended = subprocess.run(program, env=environment(library), capture_output=True, check=False, timeout=300)
    assert ended.returncode == -signal.SIGSEGV
    assert ended.stdout == b""


@NOT_AT_ALL
def test_a_kind_that_can_be_is_tried_without_measuring_anything() -> None:
    """Before minutes of work, with all that hiding needs."""
    check_kind("avx2")
    check_kind(hiding.ALL)


@NOT_AT_ALL
def test_a_compiler_that_fails_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it said."""
    monkeypatch.setattr(hiding, "SOURCE", tmp_path / "gone.c")
    with pytest.raises(ExportError, match=r"cannot compile gone.c \(.*gone.c"):
        compile_hiding("avx2", tmp_path)


def test_without_a_compiler_nothing_is_measured_and_it_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the networks are made; on a machine that could not be measured so anyway it says that."""
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(bench.main, ["models", "--processor", "avx2"])
    assert isinstance(result.exception, ExportError)
    assert str(result.exception) == why_not_here("avx2")


def test_a_child_that_dies_is_said(tmp_path: Path) -> None:
    """In the words of what it could not load, or with what it has ended; what it printed stands above."""
    (tmp_path / "none.onnx").write_bytes(b"none")
    with pytest.raises(ExportError, match="does not load this model"):
        run(Asked({"none": str(tmp_path / "none.onnx")}, (64, 48), 1, 1, memory=False, library=None, limit_rounds=1))
    with pytest.raises(ExportError, match="has ended with 1"):
        run(Asked({"none": str(tmp_path / "missing.onnx")}, (64, 48), 1, 1, memory=False, library=None, limit_rounds=1))


def test_the_kinds_that_can_be_asked_for_are_those_that_there_are() -> None:
    """The command's list stands where the help needs no onnxruntime."""
    assert (hiding.ALL, *KINDS) == bench.KINDS
    assert (ROOT / "tools" / "benching" / "hide.c").is_file()
