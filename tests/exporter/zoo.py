"""Checkpoints of every kind that people have, made here: what they hold, and what the exporter must make of them."""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import gzip
import io
import types
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from torch import nn

from tools.exporter.networks import UNet

State = dict[str, torch.Tensor]
PATCH = (64, 32)


@dataclass(frozen=True)
class Animal:
    """A file and what becomes of it: the weights in `state`, or a refusal that says `says`."""

    content: bytes
    state: State = field(default_factory=dict)
    says: str = ""
    weights: str | None = None  # --weights
    patch: tuple[int, int] | None = None  # that the file states
    suffix: str = ".pth"


class OwnConfig:
    """A class of the user's own, as trainers put beside weights."""


def network(seed: int = 0, *, squeeze: bool = False) -> UNet:
    """Make a network whose every weight and statistic is another number."""
    torch.manual_seed(seed)
    made = UNet(8 if squeeze else 2, squeeze=squeeze)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]  # they are tracked
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # the same
    return made.eval()


def saved(value: Any, **options: Any) -> bytes:
    """Write with torch.save."""
    written = io.BytesIO()
    torch.save(value, written, **options)
    return written.getvalue()


def under(prefix: str, state: State) -> State:
    """Put something before every key."""
    return {f"{prefix}{key}": value for key, value in state.items()}


def _inside(name: str, word: str, state: State) -> State:
    return {key.replace(f"{name}.", f"{name}.{word}.", 1): value for key, value in state.items()}


def _sub(state: State, name: str) -> State:
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _view(tensor: torch.Tensor) -> torch.Tensor:
    """Give the same numbers as a slice of something larger, in another order of memory."""
    around = torch.zeros(tensor.numel() + 10, dtype=tensor.dtype)
    around[5:-5] = tensor.flatten()
    return around[5:-5].view(tensor.shape)


def exported_right() -> dict[str, Animal]:
    """Make checkpoints that hold the weights of a network, somewhere."""
    state, other = network().state_dict(), network(1).state_dict()
    squeezed = network(squeeze=True).state_dict()
    size = {"img_height": PATCH[0], "img_width": PATCH[1]}
    optimiser = torch.optim.Adam(net := [nn.Parameter(torch.ones(3))])
    net[0].grad = torch.ones(3)
    optimiser.step()
    trainer = {
        "optimizer_state_dict": optimiser.state_dict(), "lr_scheduler": {"last_epoch": 3}, "scaler": {"scale": 2.0},
        "rng_state": torch.get_rng_state(), "epoch": 3, "best_loss": 0.1, "loss_fn": {"weight": torch.ones(2)},
    }  # fmt: skip
    lightning = {
        "state_dict": under("model.", state) | {"criterion.weight": torch.ones(2)},
        "hyper_parameters": {**size, "input_channels": 3}, "callbacks": {}, "pytorch-lightning_version": "2.5.0",
    }  # fmt: skip
    ema = {"model_state_dict": state, "ema_state_dict": other}
    students = under("student.", state) | under("teacher.", other)
    gan = under("generator.", state) | {"discriminator.0.weight": torch.ones(1, 3, 3, 3)}
    numbers = {"img_height": np.int64(64), "img_width": np.float64(32), "auroc": np.float32(0.9), "name": np.str_("a")}
    no_counters = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    floats = (key for key, value in state.items() if value.is_floating_point())
    bf16 = {**state, **{key: state[key].bfloat16() for key in floats}}
    double = {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
    ones = {**state, "encoder.block1.1.weight": torch.ones(1).expand(2)}
    stated = {"img_height": "64", "img_width": "32"}
    own = {"model_state_dict": state, **size, "image_type": "square", "epoch": 1, "seed": None}
    return {
        "as the training writes it": Animal(saved(own), state, patch=PATCH),
        "bare": Animal(saved(state), state),
        "bare with what trainers store": Animal(saved({**state, **trainer}), state),
        "state_dict": Animal(saved({"state_dict": state}), state),
        "model": Animal(saved({"model": state, **trainer}), state),
        "model_state": Animal(saved({"model_state": state, **size}), state, patch=PATCH),
        "dicts in dicts": Animal(saved({"model": {"net": {"weights": state}}}), state),
        "a dict for each half": Animal(
            saved({"encoder": _sub(state, "encoder"), "decoder": _sub(state, "decoder"), **trainer}), state
        ),
        "DataParallel": Animal(saved(under("module.", state)), state),
        "compiled": Animal(saved({"model_state_dict": under("_orig_mod.", state)}), state),
        "DataParallel of compiled": Animal(saved(under("module._orig_mod.", state)), state),
        "compiled DataParallel": Animal(saved(under("_orig_mod.module.", state)), state),
        "net in model in a net": Animal(saved({"state_dict": under("net.model.net.", state)}), state),
        "only the encoder compiled": Animal(saved(_inside("encoder", "_orig_mod", state)), state),
        "only the decoder in DataParallel": Animal(saved(under("model.", _inside("decoder", "module", state))), state),
        "FSDP": Animal(saved(_inside("encoder.block3", "_fsdp_wrapped_module", state)), state),
        "recomputed activations": Animal(saved(_inside("decoder.db1", "_checkpoint_wrapped_module", state)), state),
        "Lightning": Animal(saved(lightning), state, patch=PATCH, suffix=".ckpt"),
        "compiled in Lightning": Animal(saved({"state_dict": under("model._orig_mod.", state)}), state),
        "AveragedModel": Animal(saved(under("module.", state) | {"n_averaged": torch.tensor(3)}), state),
        "EMA asked for": Animal(saved(ema), other, weights="ema"),
        "plain asked for": Animal(saved(ema), state, weights="plain"),
        "EMA alone": Animal(saved({"ema_state_dict": under("module.", state)}), state),
        "EMA without statistics, plain asked for": Animal(
            saved({"model": state, "ema": {"shadow_params": [torch.ones(2), torch.ones(3)]}}), state, weights="plain"
        ),
        "student and teacher": Animal(saved(students), other, weights="teacher"),
        "generator": Animal(saved(gan), state, weights="generator."),
        "the same under two names": Animal(saved({"model_state_dict": state, "best_state_dict": state}), state),
        "numpy's numbers beside": Animal(saved({"model_state_dict": state, **numbers}), state, patch=PATCH),
        "a Path beside": Animal(saved({"model_state_dict": state, "data": Path("/data")}), state),
        "a Namespace beside": Animal(
            saved({"model_state_dict": state, "args": argparse.Namespace(**size, out=PurePosixPath("a"))}),
            state, patch=PATCH,
        ),
        "a SimpleNamespace beside": Animal(saved({"model": state, "cfg": types.SimpleNamespace(lr=0.1)}), state),
        "a defaultdict beside": Animal(
            saved({"model": state, "history": collections.defaultdict(list, {"loss": [1.0]})}), state
        ),
        "times, sets, counters beside": Animal(
            saved({"model": state, "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "n": collections.Counter()}),
            state,
        ),
        "an array beside": Animal(saved({"model": state, "curve": np.linspace(0, 1, 5)}), state),
        "arrays as weights": Animal(saved({key: value.numpy() for key, value in state.items()}), state),
        "parameters": Animal(saved({k: nn.Parameter(v, v.is_floating_point()) for k, v in state.items()}), state),
        "half floats": Animal(saved(half), {key: value.float() for key, value in half.items()}),
        "bfloat16": Animal(saved(bf16), {key: value.float() for key, value in bf16.items()}),
        "double": Animal(saved(double), state),
        "without counters": Animal(saved(no_counters), state),
        "channels last in memory": Animal(
            saved({k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state.items()}),
            state,
        ),
        "slices of something larger": Animal(saved({key: _view(value) for key, value in state.items()}), state),
        "one number for a whole tensor": Animal(saved(ones), ones),
        "the old file format": Animal(saved({"state_dict": state}, _use_new_zipfile_serialization=False), state),
        "safetensors": Animal(safetensors.torch.save(no_counters), state, suffix=".safetensors"),
        "safetensors that says its patch": Animal(
            safetensors.torch.save(under("module.", no_counters), stated), state, patch=PATCH, suffix=".safetensors"
        ),
        "safetensors under another name": Animal(safetensors.torch.save(no_counters), state),
        "second family, wrapped": Animal(saved({"model": under("module.net.", squeezed)}), squeezed),
    }  # fmt: skip


def refused() -> dict[str, Animal]:
    """Make files that are no checkpoint of a known network, or of which nobody can know what is meant."""
    state, other = network().state_dict(), network(1).state_dict()
    squeezed = network(squeeze=True).state_dict()
    first = "encoder.block1.0.weight"
    huge = {key: torch.zeros(()).expand([side * 1000 for side in value.shape]) for key, value in state.items()}
    huge[first] = torch.zeros(1).expand(10**6, 3, 3, 3)
    cyclic: dict[str, Any] = {"model": state}
    cyclic["again"] = cyclic
    pruned = {key: value for key, value in state.items() if key != first}
    pruned |= {f"{first}_orig": state[first], f"{first}_mask": torch.ones_like(state[first])}
    quantised = {**state, first: (state[first] * 100).to(torch.int8)}
    script, captured = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is going to give these up; files stay
        eight = {**state, first: torch.quantize_per_tensor(state[first], 0.1, 0, torch.qint8)}
        traced: Any = torch.jit.trace(  # type: ignore[no-untyped-call]  # torch leaves it out
            nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 8, 8)
        )
        torch.jit.save(traced, script)
        program = torch.export.export(nn.Conv2d(3, 2, 1), (torch.zeros(1, 3, 8, 8),))
        torch.export.save(program, captured)
    large = {**state, "decoder.fin_out.0.bias": torch.full((2,), 1e300, dtype=torch.float64)}
    unnormed = {key: value for key, value in state.items() if "running" not in key}
    whole = saved(nn.Conv2d(3, 2, 1))
    unrelated = io.BytesIO()
    with zipfile.ZipFile(unrelated, "w") as archive:
        archive.writestr("readme.txt", "x")
        archive.writestr("a/model.bin", "x")
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    graph = onnx.helper.make_graph([node], "g", [], [])
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    with torch.device("meta"):
        valueless = {**state, first: torch.empty(2, 3, 3, 3)}
    says = {
        "empty": (b"", "it is empty"),
        "LFS pointer": (pointer, "git lfs pull"),
        "web page": (b"<!DOCTYPE html><html></html>", "HTML page"),
        "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        "compressed": (gzip.compress(saved(state)), "gzip"),
        "cut off": (saved(state)[:5000], "damaged or cut off"),
        "text": (b"no weights here", "it is text"),
        "an archive of something": (unrelated.getvalue(), "zip archive"),
        "TorchScript": (script.getvalue(), "TorchScript archive"),
        "torch.export": (captured.getvalue(), "torch.export"),
        "ONNX": (onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString(), "is an ONNX file"),
        "a whole network": (whole, "holds a whole network"),
        "a class of their own beside": (saved({"model": state, "config": OwnConfig()}), "also tests.exporter.zoo"),
        "a list": (saved([torch.ones(2)]), "holds a list"),
        "nothing": (saved({}), "no weights at all"),
        "only numbers": (saved({"epoch": 1, "step": torch.tensor(2)}), "no weights at all"),
        "only an optimiser": (saved({"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}), "of no network"),
        "integer keys": (saved({0: torch.ones(2, 3, 3, 3), 1: torch.ones(2)}), "of no network"),
        "terminal codes in keys": (saved({"\x1b[31mred\x1b[0m\n": torch.ones(3)}), "\\x1b[31mred"),
        "terminal codes beside": (saved({**state, "encoder.\x1b]0;x\x07": torch.ones(3)}), "unexpected keys"),
        "a key of a million letters": (saved({"x" * 10**6: torch.ones(3)}), "xxx..."),
        "wide beyond all memory": (saved(huge), "wrong shapes"),
        "a dict that holds itself": (saved(cyclic), "deeper than"),
        "pruned": (saved(pruned), f"missing keys: {first}"),
        "whole numbers as weights": (saved(quantised), f"{first} is int8"),
        "quantised by torch": (saved(eight), f"{first} is quantised"),
        "sparse": (saved({**state, first: state[first].to_sparse()}), "is sparse"),
        "without values": (saved(valueless), "without its values"),
        "complex": (saved({**state, first: state[first].to(torch.complex64)}), "is complex64"),
        "8-bit floats": (saved({**state, first: state[first].to(torch.float8_e4m3fn)}), "is float8"),
        "not finite": (saved({**state, "decoder.fin_out.0.bias": torch.full((2,), torch.nan)}), "not finite"),
        "too large for 32 bits": (saved(large), "not finite"),
        "without statistics": (saved(unnormed), "missing keys: encoder.block1.1.running_mean"),
        "a layer more": (saved({**state, "encoder.extra.weight": torch.ones(3)}), "unexpected keys: encoder.extra"),
        "a layer beside": (saved({"state_dict": under("net.", state) | {"head.weight": torch.ones(3)}}), "--weights"),
        "half of each family": (saved({**squeezed, **state}), "do not fit the network"),
        "EMA and plain": (saved({"model": state, "ema": other}), "--weights plain or --weights ema"),
        "EMA in the same dict": (saved(state | under("ema.module.", other)), "--weights plain or --weights ema"),
        "EMA without names": (saved({"model": state, "ema": {"shadow_params": [torch.ones(2)]}}), "--weights ema"),
        "two networks": (saved(under("a.", state) | under("b.", other)), "2 complete sets"),
        "the best and the last": (saved({"last": state, "best": other}), "2 complete sets"),
        "two for one key": (saved(_inside("encoder", "_orig_mod", state) | {first: other[first]}), "two tensors for"),
        "two patch sizes": (
            saved({"m": state, "a": {"img_height": 64}, "b": {"img_height": 128}, "img_width": 64}), "different things"
        ),
        "no patch size": (saved({"m": state, "img_height": "tall", "img_width": 64}), "not a number of pixels"),
        "no channels": (saved({"m": state, "input_channels": ["red"]}), "unknown"),
        "damaged safetensors": (safetensors.torch.save({"a": torch.ones(3)})[:-4], "not a safetensors file"),
    }  # fmt: skip
    wrong = {name: Animal(content, says=sentence) for name, (content, sentence) in says.items()}
    wrong["EMA without statistics asked for"] = Animal(
        saved({"model": state, "ema": unnormed}), says="missing keys", weights="ema"
    )
    wrong["weights that are not there"] = Animal(saved(state), says="no weights for --weights", weights="teacher")
    return wrong
