"""What computes a model: the cpu, or another provider of which the golden strip has shown that it may.

The cpu always opens the model first and holds it to the contract. Another provider is tried in a process of its own, as
the driver of a device may end it or hang; then it has to prove the model as the cpu would. Where it cannot, the cpu
computes, and the supervisor is told why: that raises an alarm.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from agent.errors import Reject, Retry
from agent.worker.model import CPU, make_options, run, runner
from agent.worker.openvino_runtime import open_with_openvino
from agent.worker.trial import MAX_GOLDEN_TOLERANCE, Proof, made_strip, prove
from agent.worker.unusable import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.worker.model import Model, Pixels

log = logging.getLogger(__name__)

AUTO = "auto"
OPENVINO = "openvino"
OF_ONNXRUNTIME = {
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),  # what it cannot compute, CUDA does
}
"""Providers that are builds of onnxruntime, and what they are called there."""
ATTEMPT_SECONDS = 60.0  # for a provider to open the model and compute one strip, in a process of its own


def prove_with(
    wanted: str,
    model: Model,
    content: bytes,
    *,
    threads: int | None,
    before_timing: Callable[[], None] = lambda: None,
    is_accepted: bool = False,
) -> tuple[Model, Proof, str]:
    """Prove a model, which the cpu has loaded from `content`, on the wanted provider, else on the cpu (`trial.prove`).

    Returns the model on what it runs on, its proof, and why that is not what was wanted ("" where it is). Raises Reject
    and Retry, as `prove` does, where the cpu cannot prove it either.
    """
    provider = choose(wanted, ort.get_available_providers())
    refused = ""
    if provider != CPU:
        try:
            size = model.facts.height, model.facts.width
            _attempt(provider, content, size, threads)
            other = replace(model, compute=open_on(provider, content, size, threads), provider=provider)
            proved, proof = prove(other, before_timing, is_accepted=is_accepted)
            if proof.golden_difference is None:
                _compare_with_cpu(model, proved)
        except (Unusable, Reject, Retry) as error:
            refused = f"{provider}: {error}"
            log.error("the cpu computes: %s", refused)  # noqa: TRY400 - the stack tells nothing
        else:
            return proved, proof, ""
    return *prove(model, before_timing, is_accepted=is_accepted), refused


def choose(wanted: str, offered: list[str]) -> str:
    """Return what is to compute; `offered` is what the installed onnxruntime has been built with.

    OpenVINO gains little or nothing (docs/benchmarks.md), TensorRT takes minutes to begin: they have to be asked for.
    """
    if wanted != AUTO:
        return wanted
    return "cuda" if OF_ONNXRUNTIME["cuda"][0] in offered else CPU


def open_on(provider: str, content: bytes, size: tuple[int, int], threads: int | None) -> Callable[[Pixels], Any]:
    """Open a model for strips of (height, width) on another provider than the cpu. Raises Unusable."""
    if provider == OPENVINO:
        return open_with_openvino(content, size, threads)
    return _open_with_onnxruntime(OF_ONNXRUNTIME[provider], content, threads)


def _open_with_onnxruntime(names: tuple[str, ...], content: bytes, threads: int | None) -> Callable[[Pixels], Any]:
    offered = ort.get_available_providers()
    if names[0] not in offered:
        instead = "install onnxruntime-gpu in the place of onnxruntime (docs/install.md)"
        raise Unusable(f"onnxruntime {ort.__version__} here has no {names[0]}, only {', '.join(offered)}; {instead}")
    try:
        ort.preload_dlls()  # CUDA's libraries, where they came as Python packages
        session = ort.InferenceSession(content, make_options(threads), providers=[*names, "CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise Unusable(f"onnxruntime cannot open the model with {names[0]}: {error}") from error
    session.disable_fallback()  # else it goes over to the cpu by itself when the device fails
    if names[0] not in session.get_providers():  # what onnxruntime does silently where there is no device
        raise Unusable(f"onnxruntime cannot use {names[0]}: no device, no driver, or CUDA's libraries are missing")
    return runner(session)


def _attempt(provider: str, content: bytes, size: tuple[int, int], threads: int | None) -> None:
    """Have a process of its own open the model and compute a strip. Raises Unusable where that does not end well."""
    words = [provider, str(size[0]), str(size[1]), str(threads or 0), str(os.getpid())]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent.worker.attempt", *words],
            input=content,
            capture_output=True,
            timeout=ATTEMPT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unusable(f"it takes longer than {ATTEMPT_SECONDS:g} s to compute a first strip") from error
    except OSError as error:
        raise Unusable(f"no process could be started to try it: {error}") from error
    if done.returncode == 0:
        return
    said = done.stdout.decode(errors="replace").strip()
    if said:
        raise Unusable(said)
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    raise Unusable(f"a process that tried it ended with {done.returncode}: {last}")


def _compare_with_cpu(on_cpu: Model, other: Model) -> None:
    """Hold a model without a golden strip to what the cpu makes of the made strip. Raises Unusable."""
    strip = made_strip(other.facts)
    difference = float(np.abs(run(other, strip)[0] - run(on_cpu, strip)[0]).max())
    if not difference <= MAX_GOLDEN_TOLERANCE:
        raise Unusable(
            f"its heatmap of a made strip differs by up to {difference:.6f} from the cpu's, allowed is "
            f"{MAX_GOLDEN_TOLERANCE:g}"
        )
