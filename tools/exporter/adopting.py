"""Make a model of the contract out of an ONNX file that somebody else's script exported, and prove that it is the same.

`tools/export.py adopt` is its command line. The network stays what it was: its ports change, and metadata is added.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from agent.contract.file_kind import tell_what_it_is
from agent.contract.golden import Golden, encode_golden
from agent.contract.model import CHANNELS, INPUT_NAME, INPUT_SCALES, OUTPUT_NAME, PREFIX, ModelFacts, format_metadata
from agent.errors import Reject, Retry
from agent.worker.light import measure_exposure
from agent.worker.model import load_model
from agent.worker.trial import prove
from tools.exporter.approval import GOLDEN_TOLERANCE
from tools.exporter.errors import ExportError, reason_of, short
from tools.exporter.files import check_writable, write_file
from tools.exporter.foreign import AXES, adapt, find_ports, float_type, read_merged, sides
from tools.exporter.keys import read_model
from tools.exporter.looks import reference_of
from tools.exporter.progress import progress, say
from tools.exporter.proving import serialise
from tools.exporter.separation import check_separation, separate
from tools.exporter.session import BATCHES, open_session
from tools.exporter.strips import NamedStrip, feed, made_up_strips, read_folder
from tools.exporter.versions import next_version, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx

    from agent.worker.sight import Sight
    from tools.exporter.graph import Array

DEFAULT_SIZE = (976, 176)  # where the file leaves it open
SAME = 1e-5  # of any pixel: the same nodes, but onnxruntime may join them in another way
IS_ZERO = 1e-4  # of the output's other channels, what the box allows
QUANTISED = re.compile(r"Q(uantize)?Linear|ConvInteger|MatMulInteger|DynamicQuantize")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person asked for; None is "derive it"."""

    model_id: str | None = None  # the file's name
    version: int | None = None  # as at export
    created: str | None = None
    threshold: float | None = None  # halfway between defects and what is quiet, on the line's strips where given
    input_scale: str | None = None
    image_size: tuple[int, int] | None = None
    calibration: Path | None = None


@dataclass(frozen=True, slots=True)
class Adopted:
    """What came out."""

    facts: ModelFacts
    sight: Sight
    changes: list[str]  # what was done to the graph
    largest_change: float  # of any pixel of any strip
    strips: int
    size_bytes: int


def adopt_model(path: Path, out: Path, wishes: Wishes) -> Adopted:
    """Adopt the ONNX file `path` as `out`; ExportError says why not, and leaves nothing under that name."""
    check_writable(out)
    content = read_model(path)
    model = _read(path, content)
    size = _image_size(sides(find_ports(model)[0]), wishes.image_size)
    strips = read_folder(wishes.calibration, size) if wishes.calibration else made_up_strips(size)
    original = _Original(model, size)
    channel = _heat_channel([original.run(feed(strips[0], scale)) for scale in INPUT_SCALES])
    adapted, alone = _with_batches(model, size, channel, feed(strips[0], "unit"))
    facts = _facts(path, wishes, size, model)
    facts, sight = _find_scale(path.name, serialise(adapted, {}), facts, wishes.input_scale)
    run, largest = _prove_same(original, adapted, strips, facts.input_scale, channel)
    facts = replace(facts, threshold=_decide_threshold(wishes, sight, adapted, strips, run, facts.input_scale))
    telling = max(strips, key=lambda one: float((run[one.name] * (1 - run[one.name])).sum()))
    golden = encode_golden(Golden(telling.pixels, run[telling.name]))
    facts = replace(facts, golden=golden, golden_tolerance=GOLDEN_TOLERANCE[facts.precision])
    if wishes.calibration:
        heatmaps = [run[one.name] for one in strips]
        facts = replace(
            facts,
            exposure=measure_exposure([one.pixels for one in strips]),
            reference=reference_of(strips, heatmaps, facts.threshold),
        )
    written = serialise(adapted, _metadata(facts, adopted_from=hashlib.sha256(content).hexdigest()))
    _box_takes(path.name, written)
    write_file(out, written)
    changes = _changes(path, model, channel, alone=alone)
    return Adopted(facts, sight, changes, largest, len(strips), len(written))


def _read(path: Path, content: bytes) -> onnx.ModelProto:
    model_there = content[:1] == b"\x08"  # every ONNX file begins with its version
    wrong = "" if model_there else tell_what_it_is(content)
    if wrong:
        raise ExportError(f"{path.name} is no ONNX file: {wrong}.")
    model = read_merged(path)
    if not model.graph.node:
        raise ExportError(f"{path.name} is no ONNX file: {tell_what_it_is(content) or 'it has no nodes'}.")
    if any(prop.key.startswith(PREFIX) for prop in model.metadata_props):
        raise ExportError(f"{path.name} has this product's metadata already: push it as it is.")
    return model


class _Original:
    """The file as it was, fed as it wants to be."""

    def __init__(self, model: onnx.ModelProto, size: tuple[int, int]) -> None:
        strip, _ = find_ports(model)
        self.size = size
        self.name = strip.name
        self.dtype = float_type(strip)
        self.session = open_session(model.SerializeToString())

    def run(self, fed: Array) -> Array:
        """(3, H, W) -> its output for a batch of one, float32 (channels, H, W)."""
        try:
            found: Array = self.session.run(None, {self.name: fed[None].astype(self.dtype)})[0].astype(np.float32)
        except Exception as error:  # onnxruntime's errors share no base class
            raise ExportError(
                f"The file does not run on one strip of {self.size[0]} x {self.size[1]} ({reason_of(error)}): give "
                "--image-size, or export it with a batch of 1 or a dynamic one."
            ) from error
        if found.ndim == AXES - 1:
            found = found[:, None]
        if found.ndim != AXES or found.shape[0] != 1 or found.shape[2:] != self.size:
            raise ExportError(
                f"The file gives {found.shape} for a strip of {self.size[0]} x {self.size[1]}: it must give a heatmap "
                "of the strip's size."
            )
        one: Array = found[0]
        return one


def _image_size(shape: Sequence[int | None], asked: tuple[int, int] | None) -> tuple[int, int]:
    """Decide the strip's (height, width): what the file fixes, else what was asked for, else a strip's."""
    height, width = shape[2], shape[3]
    if height and width:
        if asked and asked != (height, width):
            raise ExportError(
                f"The file takes {height} x {width}, --image-size says {asked[0]} x {asked[1]}: leave the option out."
            )
        return height, width
    return asked or DEFAULT_SIZE


def _heat_channel(outputs: Sequence[Array]) -> int:
    """Find which channel of the output is the heatmap: the only one, the first of three, the second of two shares.

    Raises ExportError where nobody can know.
    """
    count = outputs[0].shape[0]
    if count in (1, CHANNELS):
        return 0
    if count == 2 and all(np.allclose(one.sum(0), 1, atol=1e-3) and one.min() >= -IS_ZERO for one in outputs):  # noqa: PLR2004
        return 1
    what = "logits, not probabilities" if count == 2 else "nothing that is known here"  # noqa: PLR2004 - two classes
    raise ExportError(
        f"The file gives {count} channels, {what}: export it with one channel, the probability of a defect."
    )


def _with_batches(
    model: onnx.ModelProto, size: tuple[int, int], channel: int, fed: Array
) -> tuple[onnx.ModelProto, bool]:
    """Adapt the graph so that it takes any batch; where it holds a batch of 1, the strips go one by one."""
    turned = np.stack([fed, fed[:, ::-1], fed[:, :, ::-1], fed[::-1]])
    reason = ""
    for alone in (False, True):
        adapted = adapt(model, size, channel, each_alone=alone)
        if not (reason := _mixes(adapted, turned)):
            return adapted, alone
    raise ExportError(f"The graph does not take several strips at once ({reason}): export it with a dynamic batch.")


def _mixes(model: onnx.ModelProto, strips: Array) -> str:
    """Say why batches of (4, 3, H, W) do not give what each strip gives alone; nothing when they do."""
    session, quiet = open_session(serialise(model, {})), onnxruntime.RunOptions()
    quiet.log_severity_level = 4  # a graph that cannot is an answer, nothing to print
    try:
        each = np.concatenate([session.run([OUTPUT_NAME], {INPUT_NAME: one[None]}, quiet)[0] for one in strips])
        for batch in BATCHES[1:]:
            together = session.run([OUTPUT_NAME], {INPUT_NAME: strips[:batch]}, quiet)[0]
            if not np.allclose(together, each[:batch], rtol=0, atol=SAME):
                return f"in a batch of {batch} they change each other"
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class; the reason is told
        return reason_of(error)
    return ""


def _facts(path: Path, wishes: Wishes, size: tuple[int, int], model: onnx.ModelProto) -> ModelFacts:
    integer = any(QUANTISED.match(node.op_type) for node in model.graph.node)
    return ModelFacts(
        labelled=True,
        height=size[0],
        width=size[1],
        input_scale=wishes.input_scale or "",
        model_id=wishes.model_id or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-") or "adopted",
        version=wishes.version or next_version(),
        created=wishes.created or utc(time.time()),
        precision="int8" if integer else "fp32",
        producer=f"{model.producer_name or 'unknown'} {model.producer_version}".strip() + ", adopted",
    )


def _find_scale(name: str, content: bytes, facts: ModelFacts, asked: str | None) -> tuple[ModelFacts, Sight]:
    """Let the box's own trial find out whether the file takes 0..1 or 0..255, and whether it sees defects."""
    model, proof = _tried(
        name, lambda: prove(load_model(content, threads=None, unlabelled_input_scale=asked or "auto"))
    )
    return replace(facts, input_scale=model.facts.input_scale), proof.sight


def _tried(name: str, trial: Callable[[], Any]) -> Any:
    try:
        return trial()
    except Reject as refused:
        raise ExportError(f"A box would refuse {name} ({refused.reason}): {refused.detail}.") from refused
    except Retry as later:
        raise ExportError(f"{name} cannot be tried here ({later.detail}): free some memory.") from later


def _box_takes(name: str, content: bytes) -> None:
    _tried(name, lambda: prove(load_model(content, threads=None, unlabelled_input_scale="auto")))


def _prove_same(
    original: _Original, adapted: onnx.ModelProto, strips: Sequence[NamedStrip], scale: str, channel: int
) -> tuple[dict[str, Array], float]:
    """Compare every strip's heatmap before and after; returns those after, by name, and the largest change."""
    session = open_session(serialise(adapted, {}))
    heatmaps, largest = {}, 0.0
    for strip in progress(strips, "before and after"):
        fed = feed(strip, scale)
        before = original.run(fed)[channel]
        output: Array = session.run([OUTPUT_NAME], {INPUT_NAME: fed[None]})[0]
        change = float(np.abs(output[0, 0] - before).max())
        if not change <= SAME:
            raise ExportError(
                f"The heatmap of {strip.name} changes by {change:.2g} when the file is adopted: report this as a fault."
            )
        heatmaps[strip.name], largest = output[0, 0], max(largest, change)
    return heatmaps, largest


def _decide_threshold(
    wishes: Wishes,
    sight: Sight,
    adapted: onnx.ModelProto,
    strips: Sequence[NamedStrip],
    run: dict[str, Array],
    scale: str,
) -> float:
    """Give what was asked for, else what lies between on the strips of the line as at export; see `separation`."""
    if not wishes.calibration:
        return _threshold(sight) if wishes.threshold is None else wishes.threshold
    session = open_session(serialise(adapted, {}))

    def heatmap_of(pixels: Array) -> Array:
        output: Array = session.run([OUTPUT_NAME], {INPUT_NAME: feed(NamedStrip("painted", pixels), scale)[None]})[0]
        heatmap: Array = output[0, 0]
        return heatmap

    heatmaps = [run[one.name] for one in strips]
    found = separate([one.pixels for one in strips], heatmaps, heatmap_of, of_the_line=True)
    check_separation(found, wishes.threshold, otherwise="leave --calibration out")
    say(found.describe())
    return found.threshold if wishes.threshold is None else wishes.threshold


def _threshold(sight: Sight) -> float:
    """Give 0.5 where it lies between defect and clean, else halfway."""
    middle = 0.5 if sight.clean < 0.5 <= sight.defect else (sight.clean + sight.defect) / 2  # noqa: PLR2004 - the default
    say(f"threshold {middle:.2f}: the built-in strips have {sight.describe()}")
    return round(middle, 2)


def _metadata(facts: ModelFacts, **more: str) -> dict[str, str]:
    try:
        return format_metadata(facts, **more)
    except Reject as refused:
        raise ExportError(f"The {refused.detail}: give another value.") from refused


def _changes(path: Path, model: onnx.ModelProto, channel: int, *, alone: bool) -> list[str]:
    """Say what was done to the graph."""
    strip, heat = find_ports(model)
    done = []
    if (strip.name, heat.name) != (INPUT_NAME, OUTPUT_NAME):
        done.append(f"{short(strip.name)} and {short(heat.name)} are now {INPUT_NAME} and {OUTPUT_NAME}")
    if (path.parent / f"{path.name}.data").exists():
        done.append("the weights of the file beside it are inside")
    if sides(strip)[0] is not None:
        done.append("the batch is dynamic" + (", its strips go one by one" if alone else ""))
    if strip.type.tensor_type.elem_type != heat.type.tensor_type.elem_type or float_type(strip) is not np.float32:
        done.append("it takes and gives float32")
    done.append(f"channel {channel} of its output is the heatmap, channels 1 and 2 are zero")
    return done
