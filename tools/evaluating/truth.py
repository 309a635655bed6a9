"""What people know about strips, in whichever form they have it: folders, a table, masks, boxes, a point in the name.

| form | what it says |
|---|---|
| folders `good` (`ok`, `normal`) and others (`defect`, `bright_spots`, ...) | with or without a defect |
| a CSV with the columns `file` and `label` | the same; `unsure` leaves a strip out |
| in that CSV `channel 4` in the column `mask` | the fourth channel of this TIFF is its mask |
| `NAME.png` in a folder `masks` or `ground_truth` beside the strips | the defect's pixels: all that is not black |
| the fourth channel of the TIFF, where it is asked for | the same |
| a JSON file: COCO, or {file: [[x1, y1, x2, y2], ...]} | boxes |
| `...#x,y.tiff` | one point of a defect, column and row |
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from agent.records import show_name
from tools.exporter.errors import ExportError, short
from tools.exporter.strips import PATTERNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Mask = np.ndarray[Any, np.dtype[np.bool_]]

GOOD_FOLDERS = ("good", "ok", "normal")
MASK_FOLDERS = ("masks", "mask", "ground_truth")
NO_STRIPS = (*MASK_FOLDERS, "heatmaps")  # folders of pictures that are none
IN_CHANNEL_4 = "channel 4"  # what a table says in its column mask where the strip's fourth channel is one
TABLES = ("truth.csv", "labels.csv", "truth.json", "annotations.json")  # in the folder itself, the first that is there
GOOD_LABELS = ("good", "ok", "normal", "no defect", "no_defect", "0", "false")
BAD_LABELS = ("defect", "bad", "anomalous", "anomaly", "1", "true")
UNSURE_LABELS = ("unsure", "")
POINT = re.compile(r"#(\d{1,5}),(\d{1,5})$")
MAX_TABLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Box:
    """Rows `top` to `bottom` and columns `left` to `right` of a strip, the last ones excluded."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of one strip. Where there are pixels, boxes or points, `defective` follows from them."""

    path: Path
    defective: bool
    boxes: tuple[Box, ...] = ()
    points: tuple[tuple[int, int], ...] = ()  # (row, column)
    mask: Path | None = None
    mask_in_channel_4: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """What a folder says, and what of it is of no use."""

    strips: list[Truth]
    kind: str  # where the truth was found
    left_out: list[str] = field(default_factory=list)  # a sentence for each kind of strip that says nothing


def read_truth(folder: Path, table: Path | None = None, *, channel_4: bool = False) -> Labels:
    """Find the strips below `folder` and what is known about each; ExportError where nothing is.

    `table` is a CSV or JSON file; `channel_4` says that the fourth channel of the files is a mask.
    """
    paths = sorted(_strips(folder))
    if not paths:
        raise ExportError(f"{folder} holds no TIFF file: give a folder with strips whose truth is known.")
    table = table or next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if channel_4:
        strips = [Truth(path, defective=False, mask_in_channel_4=True) for path in paths]
        return Labels(strips, "the fourth channel of the files")
    if table is not None:
        return _by_table(folder, paths, table)
    if any(POINT.search(path.stem) for path in paths):
        return Labels([_by_name(path) for path in paths], "the points in the files' names")
    return _by_folders(folder, paths)


def all_good(folder: Path) -> Labels:
    """Take all strips below `folder` for good ones; ExportError where there is none."""
    paths = sorted(_strips(folder))
    if not paths:
        raise ExportError(f"{folder} holds no TIFF file: give a folder with strips.")
    return Labels([Truth(path, defective=False) for path in paths], "all strips are taken for good ones")


def _strips(folder: Path) -> Iterator[Path]:
    try:
        for path in folder.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            elsewhere = any(part.lower() in NO_STRIPS for part in path.relative_to(folder).parts[:-1])
            if path.suffix.lower() in PATTERNS and not hidden and not elsewhere and path.is_file():
                yield path
    except OSError as error:
        raise ExportError(f"Cannot read the folder {folder} ({error.strerror}): give a folder with strips.") from error


def _by_name(path: Path) -> Truth:
    found = POINT.search(path.stem)
    points = ((int(found[2]), int(found[1])),) if found else ()
    return Truth(path, bool(points), points=points)


def _by_folders(folder: Path, paths: list[Path]) -> Labels:
    strips = []
    for path in paths:
        kind = path.relative_to(folder).parts[0].lower() if path.parent != folder else ""
        mask = _mask_of(path)
        if kind or mask:
            strips.append(Truth(path, defective=mask is not None or kind not in GOOD_FOLDERS, mask=mask))
    if not strips:
        raise ExportError(
            f"Nothing says which strips in {folder} have defects: sort them into the folders good and defect, or give "
            "--truth FILE (a CSV with the columns file and label, or boxes as JSON)."
        )
    left_out = [f"{len(paths) - len(strips)} strips lie in no folder that says what they are"]
    masks = sum(truth.mask is not None for truth in strips)
    kind = "the folders" + (f", and masks of {masks} strips" if masks else "")
    return Labels(strips, kind, left_out if len(strips) < len(paths) else [])


def _mask_of(path: Path) -> Path | None:
    """Find the mask of a strip: in a folder of masks beside it, or beside its folder."""
    folder = path.parent
    places = [folder / name for name in MASK_FOLDERS]
    places += [folder.parent / name / part for name in MASK_FOLDERS for part in (folder.name, "")]
    names = (f"{path.stem}.png", f"{path.stem}_mask.png")
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _by_table(folder: Path, paths: list[Path], table: Path) -> Labels:
    try:
        if table.stat().st_size > MAX_TABLE_BYTES:
            raise ExportError(f"{table.name} is larger than {MAX_TABLE_BYTES >> 20} MiB: give a smaller table.")
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ExportError(f"Cannot read {table} ({error.strerror}): give a CSV or JSON file.") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{table.name} is not UTF-8 text: save it as a CSV or JSON file in UTF-8.") from error
    known = _read_json(text, table) if table.suffix.lower() == ".json" else _read_csv(text, table)
    strips, unknown, unsure = [], 0, 0
    for path in paths:
        relative = path.relative_to(folder).as_posix()
        key = relative if relative in known else path.name
        if key not in known:
            unknown += 1
        elif (said := known[key]) is None:
            unsure += 1
        else:
            inside = said.mask_in_channel_4
            mask = _mask_of(path) if said.defective and not inside else None
            strips.append(Truth(path, said.defective, boxes=said.boxes, mask=mask, mask_in_channel_4=inside))
    if not strips:
        first = show_name(paths[0].name)
        raise ExportError(f"{table.name} names none of the strips in {folder} (the first is {first}): name them there.")
    left_out = [f"{unknown} strips are not in {table.name}"] if unknown else []
    left_out += [f"{unsure} strips are labelled unsure"] if unsure else []
    return Labels(strips, table.name, left_out)


@dataclass(frozen=True, slots=True)
class Known:
    """What a table says of one strip."""

    defective: bool
    boxes: tuple[Box, ...] = ()
    mask_in_channel_4: bool = False


Table = dict[str, Known | None]  # None: nobody is sure


def _read_csv(text: str, table: Path) -> Table:
    separator = ";" if ";" in text.partition("\n")[0] else ","
    known: Table = {}
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        if not {"file", "label"} <= set(rows.fieldnames or ()):
            raise ExportError(f"{table.name} has no columns file and label in its first line: add them.")
        for row in rows:
            label = (row["label"] or "").strip().lower()
            if label not in (*GOOD_LABELS, *BAD_LABELS, *UNSURE_LABELS):
                wanted = "good, defect or unsure"
                raise ExportError(
                    f"{table.name} line {rows.line_num}: label {short(label)!r} is unknown: say {wanted}."
                )
            inside = (row.get("mask") or "").strip().lower() == IN_CHANNEL_4
            sure = None if label in UNSURE_LABELS else Known(label in BAD_LABELS, mask_in_channel_4=inside)
            known[row["file"] or ""] = sure
    except csv.Error as error:
        raise ExportError(f"{table.name} is no CSV file ({error}): give columns file and label.") from error
    return known


def _read_json(text: str, table: Path) -> Table:
    try:
        content = json.loads(text)
        if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            return _read_coco(content)
        known: Table = {}
        for name, said in content.items():
            boxes = tuple(_box(corners) for corners in (said if isinstance(said, list) else _boxes_of(said)))
            stated = said.get("defective", bool(boxes)) if isinstance(said, dict) else bool(boxes)
            known[name] = Known(bool(stated), boxes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExportError(
            f"{table.name} is not understood ({type(error).__name__}: {short(error)}): give COCO, or an object that "
            "maps each file to its boxes [[x1, y1, x2, y2], ...]."
        ) from error
    return known


def _boxes_of(said: Mapping[str, Any]) -> list[Any]:
    """Return the boxes of one strip: under `boxes`, or any key that begins so."""
    return next((list(value) for key, value in said.items() if key.startswith("boxes")), [])


def _read_coco(content: Mapping[str, Any]) -> Table:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    boxes: dict[str, list[Box]] = {name: [] for name in names.values()}
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        boxes[names[annotation["image_id"]]].append(_box((x, y, x + width, y + height)))
    return {name: Known(bool(found), tuple(found)) for name, found in boxes.items()}


def _box(corners: Any) -> Box:
    left, top, right, bottom = (float(corner) for corner in list(corners)[:4])
    box = Box(math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right))
    if not (0 <= box.top < box.bottom and 0 <= box.left < box.right):
        raise ValueError(f"the box {short(list(corners))} has no inside: x1, y1, x2, y2 are expected")
    return box


def read_mask(path: Path, height: int, width: int) -> Mask:
    """Read the mask image of a strip, (height, width): a defect is where it is not black. Raises ExportError."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ExportError(f"Cannot read the mask {path} ({error.strerror}).") from error
    image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None or image.shape != (height, width):
        found = "no picture" if image is None else f"{image.shape[0]} x {image.shape[1]}"
        raise ExportError(f"The mask {show_name(path.name)} is {found}, strips are {height} x {width}: mend it.")
    mask: Mask = image > 0
    return mask
