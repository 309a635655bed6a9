"""What the figures were measured on, and what its processor can do at most."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from agent.worker.model import make_options
from tools.benching.hiding import flags_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from tools.exporter.work import Work

SIDE = 1024  # of the matrices: large enough to be bound by arithmetic, small enough for the second cache
LIMIT_ROUNDS = 20
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True)
class Limit:
    """The fastest that a product of two matrices was seen to run: 10^9 multiplications a second."""

    float32: float
    int8: float

    def seconds(self, work: Work) -> float:
        """Give the least time for so many multiplications: those in float and those in int8 one after the other."""
        return work.float_multiplications / self.float32 + work.int8_multiplications / self.int8


def describe(hidden: Collection[str] = ()) -> str:
    """Name processor, cores, load and versions in one line; `hidden` flags are those that programs do not see."""
    info = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    flags = flags_of(info)
    have = " ".join(flag for flag in FLAGS if flag in flags and flag not in hidden)
    missing = " ".join(flag for flag in FLAGS if flag in flags and flag in hidden)
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    named = (line.partition(":") for line in info.splitlines())
    name = next((words.strip() for key, _, words in named if key.strip() == "model name"), platform.machine())
    kernel = platform.release().partition("-")[0]
    return (
        f"{name}, {cores} cores ({have}{f'; hidden: {missing}' if missing else ''}), load {load:.1f} before; "
        f"{platform.system()} {kernel}, Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, "
        f"numpy {np.__version__}"
    )


def measure_limit(threads: int, *, rounds: int = LIMIT_ROUNDS) -> Limit:
    """Multiply matrices with onnxruntime's own kernels, the ones that convolutions end in; the best of `rounds`."""
    return Limit(_best("MatMul", np.float32, threads, rounds), _best("MatMulInteger", np.uint8, threads, rounds))


def _best(operator: str, dtype: type, threads: int, rounds: int) -> float:
    whole = dtype is np.uint8
    left, right = (TensorProto.UINT8, TensorProto.INT8) if whole else (TensorProto.FLOAT, TensorProto.FLOAT)
    weights = np.ones((SIDE, SIDE), np.int8 if whole else np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["input", "weights"], ["output"])],
        "limit",
        [helper.make_tensor_value_info("input", left, [SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.INT32 if whole else TensorProto.FLOAT, [SIDE, SIDE])],
        [helper.make_tensor("weights", right, [SIDE, SIDE], weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), make_options(threads), providers=["CPUExecutionProvider"]
    )
    fed: dict[str, np.ndarray[Any, Any]] = {"input": np.ones((SIDE, SIDE), dtype)}
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        session.run(None, fed)
        times.append(time.perf_counter() - began)
    return SIDE**3 / min(times) / 1e9
