"""Let a program see less of its processor than there is: other kinds of processors, measured on one machine.

onnxruntime chooses its kernels by what CPUID says. hide.c answers it for a child process, so the kernels are those of a
smaller processor and run at the full speed of a core; its clock, caches and memory stay what they are. Whether it
worked is looked at in the child (`check`): it shows in what onnxruntime computes and in what it asks the system for.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from tools.exporter.errors import ExportError, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALL = "all"  # the processor as it is
REGISTERS = ("eax", "ebx", "ecx", "edx")
SOURCE = Path(__file__).with_name("hide.c")


@dataclass(frozen=True, slots=True)
class Bit:
    """Where CPUID says that the processor has something."""

    leaf: int
    subleaf: int
    register: str
    number: int


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of processor: what it has not got of the table below, and its name in words."""

    words: str
    hidden: frozenset[str]
    vnni: bool  # multiplies bytes and adds up in one step


@dataclass(frozen=True, slots=True)
class Seen:
    """What shows inside of a process which kernels onnxruntime has."""

    features: tuple[str, ...]  # of the table below, those that CPUID says
    saturates: bool  # sums of two products of bytes are cut to 16 bits: so it is without VNNI, and only there
    tiles: bool  # somebody asked the system for AMX's registers


_AMX = {
    "amx_bf16": Bit(7, 0, "edx", 22),
    "amx_tile": Bit(7, 0, "edx", 24),
    "amx_int8": Bit(7, 0, "edx", 25),
    "amx_fp16": Bit(7, 1, "eax", 21),
    "amx_complex": Bit(7, 1, "edx", 8),
}
_BEYOND_AVX2 = {
    "avx512f": Bit(7, 0, "ebx", 16),
    "avx512dq": Bit(7, 0, "ebx", 17),
    "avx512ifma": Bit(7, 0, "ebx", 21),
    "avx512pf": Bit(7, 0, "ebx", 26),
    "avx512er": Bit(7, 0, "ebx", 27),
    "avx512cd": Bit(7, 0, "ebx", 28),
    "avx512bw": Bit(7, 0, "ebx", 30),
    "avx512vl": Bit(7, 0, "ebx", 31),
    "avx512vbmi": Bit(7, 0, "ecx", 1),
    "avx512_vbmi2": Bit(7, 0, "ecx", 6),
    "avx512_vnni": Bit(7, 0, "ecx", 11),
    "avx512_bitalg": Bit(7, 0, "ecx", 12),
    "avx512_vpopcntdq": Bit(7, 0, "ecx", 14),
    "avx512_4vnniw": Bit(7, 0, "edx", 2),
    "avx512_4fmaps": Bit(7, 0, "edx", 3),
    "avx512_vp2intersect": Bit(7, 0, "edx", 8),
    "avx512_fp16": Bit(7, 0, "edx", 23),
    "avx_vnni": Bit(7, 1, "eax", 4),
    "avx512_bf16": Bit(7, 1, "eax", 5),
    "avx_ifma": Bit(7, 1, "eax", 23),
    "avx_vnni_int8": Bit(7, 1, "edx", 4),
    "avx_ne_convert": Bit(7, 1, "edx", 5),
    "avx_vnni_int16": Bit(7, 1, "edx", 10),
    "avx10": Bit(7, 1, "edx", 19),
}
FEATURES: Mapping[str, Bit] = {**_AMX, **_BEYOND_AVX2}  # by their names in /proc/cpuinfo
KINDS: Mapping[str, Kind] = {
    "vnni": Kind("VNNI, no AMX", frozenset(_AMX), vnni=True),
    "avx2": Kind("AVX2 only", frozenset(FEATURES), vnni=False),
}
VNNI = {"avx512_vnni", "avx_vnni"}


def flags_of(cpuinfo: str) -> frozenset[str]:
    """Give the flags of the first processor in the text of /proc/cpuinfo."""
    fields = (line.partition(":") for line in cpuinfo.splitlines())
    words = next((words for name, _, words in fields if name.strip() in ("flags", "Features")), "")
    return frozenset(words.split())


def read_flags() -> frozenset[str]:
    """Give the flags of this machine's processor, whatever is hidden from this process."""
    return flags_of(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace"))


def why_not(name: str, flags: frozenset[str], machine: str, compiler: str | None) -> str:
    """Say in one sentence why this machine cannot be measured as that kind; nothing where it can."""
    words, hidden = KINDS[name].words, KINDS[name].hidden
    cannot = f"This processor cannot be measured as {words}"
    reasons = (
        (machine != "x86_64", f"Only an x86-64 processor can be measured as {words}, this one is {machine}."),
        (not {"avx2", "fma"} <= flags, f"{cannot}: it has no AVX2 and FMA."),
        (KINDS[name].vnni and not VNNI & flags, f"{cannot}: it has no VNNI."),
        (not hidden & flags, f"This processor is {words} as it is: measure it with --processor {ALL}."),
        (
            "cpuid_fault" not in flags,
            f"{cannot}: Linux cannot hide from a program here (no cpuid_fault in /proc/cpuinfo).",
        ),
        (compiler is None, f"To measure as {words} a C compiler is needed: install one (apt install gcc libc6-dev)."),
    )
    return next((sentence for applies, sentence in reasons if applies), "")


def why_not_here(name: str) -> str:
    """Say why this machine cannot be measured as that kind; nothing where it can."""
    return why_not(name, read_flags(), platform.machine(), shutil.which("cc"))


def compile_hiding(name: str, folder: Path) -> Path:
    """Compile what hides, for one kind; ExportError says why it cannot be."""
    if reason := why_not_here(name):
        raise ExportError(reason)
    return compile_library(KINDS[name].hidden, folder / f"hide-{name}.so")


def compile_library(features: Iterable[str], library: Path) -> Path:
    """Compile what hides these features."""
    command = ["cc", "-O2", "-shared", "-fPIC", f"-DHIDDEN={as_c(features)}", "-o", str(library), str(SOURCE)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        reason = short(next((line for line in compiled.stderr.splitlines() if "error" in line), compiled.stderr), 160)
        raise ExportError(f"The C compiler cannot compile {SOURCE.name} ({reason}): install libc6-dev.")
    return library


def as_c(features: Iterable[str]) -> str:
    """Write the bits as what hide.c takes out: leaf, subleaf and one number for each register."""
    rows: dict[tuple[int, int], dict[str, int]] = {}
    for bit in (FEATURES[feature] for feature in features):
        row = rows.setdefault((bit.leaf, bit.subleaf), dict.fromkeys(REGISTERS, 0))
        row[bit.register] |= 1 << bit.number
    return ", ".join(
        f"{{{leaf}, {subleaf}, {', '.join(f'{row[register]:#x}u' for register in REGISTERS)}}}"
        for (leaf, subleaf), row in sorted(rows.items())
    )


def environment(library: Path) -> dict[str, str]:
    """Give the environment of a child that `library` hides from; its own children have it from there."""
    others = {key: value for key, value in os.environ.items() if key not in ("PYTHONFAULTHANDLER", "PYTHONDEVMODE")}
    return others | {"LD_PRELOAD": " ".join([str(library), *os.environ.get("LD_PRELOAD", "").split()])}


def look(library: Path | None) -> Seen:
    """Look from inside of a process which kernels it has; once onnxruntime has computed in it."""
    saturates = _saturates()
    if library is None:
        return Seen((), saturates, tiles=False)
    hiding = ctypes.CDLL(str(library))
    return Seen(tuple(name for name, bit in FEATURES.items() if _has(hiding, bit)), saturates, hiding.asked_for_tiles())


def check(name: str, seen: Seen) -> None:
    """ExportError where a child was not what it was to be: its figures would be another processor's."""
    kind = KINDS[name]
    left = sorted(kind.hidden & set(seen.features))
    if left:
        problem = f"CPUID still says {' '.join(left)}"
    elif seen.saturates == kind.vnni:
        problem = f"onnxruntime multiplies bytes {'without' if kind.vnni else 'with'} VNNI"
    elif seen.tiles:
        problem = "AMX was asked for"
    else:
        return
    raise ExportError(f"Hiding did not work, so nothing can be said of {kind.words}: {problem}.")


def _has(hiding: ctypes.CDLL, bit: Bit) -> bool:
    answer = (ctypes.c_uint32 * 6)(bit.leaf, bit.subleaf)
    hiding.ask_cpuid(answer)
    return bool(answer[2 + REGISTERS.index(bit.register)] >> bit.number & 1)


def _saturates() -> bool:
    """Multiply the largest bytes: two such products are more than 16 bits hold."""
    side, left, right = 64, np.iinfo(np.uint8).max, np.iinfo(np.int8).max
    weights = np.full((side, side), right, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["input", "weights"], ["output"])],
        "saturates",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, [side, side])],
        [helper.make_tensor_value_info("output", TensorProto.INT32, [side, side])],
        [helper.make_tensor("weights", TensorProto.INT8, [side, side], weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": np.full((side, side), left, np.uint8)})
    return bool((output != side * int(left) * int(right)).any())
