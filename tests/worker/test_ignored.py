"""Dead pixels and masks: read right or refused, and blanked before anything is scored."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np
import pytest

from agent.config import HeatmapsSection, ScoringSection
from agent.config.ignored import MAX_FILE_BYTES, MISFIT, IgnoreFiles
from agent.worker.heatmaps import encode_heatmaps
from agent.worker.ignored import MAX_DEAD_PIXELS, UnusableError, examine, read_all, read_ignored
from agent.worker.scoring import score_heatmap
from tests.helpers.strips import make_pixels

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH = 976, 176


def png(image: Any) -> bytes:
    """Encode an image of any shape and depth."""
    if image.dtype == bool:
        return cv2.imencode(".png", image.astype(np.uint8), [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))


def mask_of(height: int = HEIGHT, width: int = WIDTH, level: int = 255) -> Any:
    """Make a mask that ignores rows 40 to 49."""
    mask = np.zeros((height, width), np.uint8)
    mask[40:50] = level
    return mask


def files(folder: Path, *, pixels: bytes | None = None, mask: bytes | None = None) -> IgnoreFiles:
    """Write a camera's files."""
    names = []
    for name, data in (("dead.csv", pixels), ("mask.png", mask)):
        names.append("" if data is None else str(folder / name))
        if data is not None:
            (folder / name).write_bytes(data)
    return IgnoreFiles(*names)


def test_ten_by_ten_pixels_around_a_dead_one_are_ignored(tmp_path: Path) -> None:
    """From 5 before it to 4 behind it, cut off at the edges of the strip."""
    ignored = read_ignored(files(tmp_path, pixels=b"dead_x,dead_y\n100,300\n0,0\n175,975\n"), HEIGHT, WIDTH)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[295:305, 95:105] = True
    expected[:5, :5] = True
    expected[970:, 170:] = True
    np.testing.assert_array_equal(ignored.mask, expected)


@pytest.mark.parametrize(
    "text",
    [
        "dead_x,dead_y\n7,9",
        "dead_x,dead_y\r\n7,9\r\n\r\n",
        "\ufeffdead_x;dead_y\n7;9\n",
        ',Dead_Y , dead_x,why\n0, 9, 7.0,"hot, since May"\n',
        '"dead_x","dead_y"\n"7","9"\n',
    ],
)
def test_a_csv_file_as_programs_write_it_is_read(tmp_path: Path, text: str) -> None:
    """Line ends of Windows, the mark that spreadsheets put in front, semicolons, quotes, other columns."""
    mask = read_ignored(files(tmp_path, pixels=text.encode()), HEIGHT, WIDTH).mask
    assert (mask.sum(), mask[4:14, 2:12].sum()) == (100, 100)


@pytest.mark.parametrize(
    "image",
    [
        mask_of(),
        mask_of(level=1),
        mask_of().astype(bool),
        mask_of().astype(np.uint16) * 257,
        np.stack([mask_of(), mask_of() * 0, mask_of() * 0], axis=2),
        np.stack([mask_of(), mask_of(), mask_of(), np.full((HEIGHT, WIDTH), 255, np.uint8)], axis=2),
        np.stack([mask_of(), np.full((HEIGHT, WIDTH), 255, np.uint8)], axis=2),
    ],
    ids=["white", "one", "one bit", "16 bits", "red", "colours and transparency", "grey and transparency"],
)
def test_a_mask_ignores_what_is_not_black(tmp_path: Path, image: Any) -> None:
    """Whatever the depth and the colour."""
    mask = read_ignored(files(tmp_path, mask=png(image)), HEIGHT, WIDTH).mask
    np.testing.assert_array_equal(mask, mask_of() > 0)


def test_both_files_add_up_and_are_named_by_their_digests(tmp_path: Path) -> None:
    """A result says which files it was judged with."""
    csv, image = b"dead_x,dead_y\n100,300\n", png(mask_of())
    both = read_ignored(files(tmp_path, pixels=csv, mask=image), HEIGHT, WIDTH)
    assert both.mask.sum() == 100 + 10 * WIDTH
    assert both.ignore_pixels_sha256 == hashlib.sha256(csv).hexdigest()
    assert both.ignore_mask_sha256 == hashlib.sha256(image).hexdigest()
    none = read_ignored(IgnoreFiles(), HEIGHT, WIDTH)
    assert not none.mask.any()
    assert (none.ignore_pixels_sha256, none.ignore_mask_sha256) == ("", "")


def _bomb() -> bytes:
    """Make a small PNG that says it is enormous."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b""))
    head = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        head += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return head


HEADER = b"dead_x,dead_y\n"
MANY = b"".join(b"%d,%d\n" % (x, y) for x in range(0, 170, 10) for y in range(0, 970, 10))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "has no columns dead_x and dead_y"),
        (b"x,y\n1,2\n", "has no columns dead_x and dead_y"),
        (b"dead_x\tdead_y\n1\t2\n", "has no columns dead_x and dead_y"),
        (HEADER + b"a,2\n", "line 2: dead_x 'a', dead_y '2'; whole numbers from 0"),
        (HEADER + b"1,2\n\n-1,2\n", "line 4: dead_x '-1'"),
        (HEADER + b"1.5,2\n", "line 2: dead_x '1.5'"),
        (HEADER + b"1\n", "line 2: dead_x '1', dead_y ''"),
        (HEADER + b"\x1b[31m,2\n", "dead_x '\\x1b[31m'"),
        (HEADER + b"9" * 5000 + b",2\n", "dead_x '99999999999999999999'"),
        (HEADER + b"9" * 200_000 + b",2\n", "line 2: field larger than field limit"),
        (HEADER + b"300,87\n", "line 2: dead_x (the column) is 300 and dead_y (the row) 87; strips are 176"),
        (HEADER + b"1,1\n" * (MAX_DEAD_PIXELS + 1), "names more than 10000 dead pixels"),
        (HEADER + MANY, "of every strip ignored; at most 10% may be"),
        (b"\xff\xfed\0e\0a\0d\0", "is not UTF-8 text"),
        (b"#" * (MAX_FILE_BYTES + 1), "is larger than 4 MiB"),
    ],
)  # fmt: skip
def test_a_bad_list_of_dead_pixels_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    """One sentence with the line, what was found and what is expected; nothing of the file goes to the terminal raw."""
    with pytest.raises(UnusableError) as caught:
        read_ignored(files(tmp_path, pixels=data), HEIGHT, WIDTH)
    assert caught.value.key == "ignore_pixels"
    assert sentence in str(caught.value)
    assert str(tmp_path / "dead.csv") in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is no PNG image"),
        (b"\xff\xd8\xff\xe0 a JPEG", "is no PNG image"),
        (png(mask_of())[:20], "is no PNG image"),
        (png(mask_of())[:-40], "is a damaged PNG image"),
        (png(mask_of(384, 384)), "is 384 pixels wide and 384 high; strips are 176 wide and 976 high"),
        (png(mask_of(WIDTH, HEIGHT)), "it is turned, as the agent's pictures of strips are"),
        (_bomb(), "is 60000 pixels wide and 60000 high; strips are"),
        (png(mask_of() // 2 + mask_of().T[:1, :WIDTH] // 4), "grey levels from 0 to"),
        (png(mask_of() // 2 + 1), "has 2 grey levels from 1 to 128"),
        (png(255 - mask_of()), "the mask may be inverted"),
        (png(np.full((HEIGHT, WIDTH), 9, np.uint8)), "would leave 100.0% of every strip ignored"),
    ],
)  # fmt: skip
def test_a_bad_mask_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    """Another format, damage, another size, greys, too much of the strip."""
    with pytest.raises(UnusableError) as caught:
        read_ignored(files(tmp_path, mask=data), HEIGHT, WIDTH)
    assert caught.value.key == "ignore_mask"
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_enormous_mask_is_refused_before_its_pixels_are_made_where_the_size_is_not_known(tmp_path: Path) -> None:
    """What its header says decides."""
    with pytest.raises(UnusableError, match="which no strip is"):
        read_ignored(files(tmp_path, mask=_bomb()), 0, 0)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "missing"])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A link may lead elsewhere tomorrow, and a pipe would be waited for."""
    path = tmp_path / "dead.csv"
    if kind == "link":
        (tmp_path / "real.csv").write_bytes(HEADER)
        path.symlink_to(tmp_path / "real.csv")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    said = {"link": "symbolic link", "pipe": "no regular file", "folder": "no regular file", "missing": "No such file"}
    with pytest.raises(UnusableError, match=said[kind]):
        read_ignored(IgnoreFiles(str(path)), HEIGHT, WIDTH)


def test_one_cameras_bad_file_is_no_other_cameras_trouble(tmp_path: Path) -> None:
    """Each camera has its pixels, or the sentence that its strips are refused with."""
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"")
    found = read_all({"top": files(tmp_path, pixels=HEADER), "side": IgnoreFiles(str(bad))}, HEIGHT, WIDTH)
    assert not isinstance(found["top"], str)
    assert str(found["side"]).startswith(f"ignore_pixels: {bad} has no columns")


def test_before_there_is_a_model_the_size_is_not_held_against_a_file(tmp_path: Path) -> None:
    """Of both files of a camera the mask's size holds for the dead pixels."""
    asked = {"number": 0, "height": 0, "width": 0, "ignore_pixels": "", "ignore_mask": ""}
    square = files(tmp_path, pixels=HEADER + b"300,87\n", mask=png(mask_of(384, 384)))
    assert examine([asked | {"ignore_pixels": square.ignore_pixels, "ignore_mask": square.ignore_mask}]) == []
    strip = files(tmp_path, pixels=HEADER + b"300,87\n", mask=png(mask_of()))
    (found,) = examine([asked | {"ignore_pixels": strip.ignore_pixels, "ignore_mask": strip.ignore_mask}])
    assert (found[0], found[1], found[3]) == (0, "ignore_pixels", MISFIT)


def test_what_is_ignored_is_hatched_and_counted(tmp_path: Path) -> None:
    """The picture shows where nothing was looked for, and the regions file has the number of pixels."""
    ignored = read_ignored(files(tmp_path, pixels=HEADER + b"88,488\n"), HEIGHT, WIDTH)
    heatmap = np.full((HEIGHT, WIDTH), 0.05, np.float32)
    heatmap[484:492, 84:92] = 0.9
    heatmap[100, 100] = 0.6
    blanked = ignored.blank(heatmap)
    assert (blanked == 0).sum() == 100
    assert heatmap[488, 88] == np.float32(0.9), "the model's own heatmap is not touched"
    scored = score_heatmap(blanked, ScoringSection())
    assert (scored.peak_row, scored.peak_col, scored.defect_count) == (100, 100, 1)
    settings = HeatmapsSection(png="all", tiff="all", min_free_gib=0)
    violet = {}
    for name, mask in (("with", ignored.mask), ("without", None)):
        contents = encode_heatmaps(
            blanked, make_pixels(height=HEIGHT, width=WIDTH), scored,
            threshold=0.5, anomalous=True, settings=settings, name=name, ignored=mask,
        )  # fmt: skip
        assert json.loads(contents[".json"])["ignored_px"] == (100 if mask is not None else 0)
        image = cv2.imdecode(np.frombuffer(contents[".png"], np.uint8), cv2.IMREAD_COLOR_RGB)
        violet[name] = np.argwhere((np.asarray(image) == (190, 110, 255)).all(axis=2))
    assert len(violet["without"]) == 0
    assert 20 <= len(violet["with"]) <= 30  # a quarter of 10 x 10
    assert np.ptp(violet["with"], axis=0).max() < 10
