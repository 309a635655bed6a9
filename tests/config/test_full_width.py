"""Punctuation of a Chinese or Japanese keyboard in the configuration: named with its line, and what to type instead."""

# ruff: noqa: RUF001

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.config.reading import CAMERA, load, problems_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "line", "typed"),
    [
        ("agent:\n  name：box\n" + CAMERA, 2, "： (U+FF1A): type :"),
        ("agent：\n  name: box\n" + CAMERA, 1, "： (U+FF1A): type :"),
        ("cameras： [{name: top, folder: /srv/top}]\n", 1, "： (U+FF1A): type :"),
        ("cameras: [{name: top， folder: /srv/top}]\n", 1, "， (U+FF0C): type ,"),
        ("cameras: [｛name: top｝]\n", 1, "｛ (U+FF5B): type {, ｝ (U+FF5D): type }"),
        ("cameras:\n－ name: top\n  folder: /srv/top\n", 2, "－ (U+FF0D): type -"),
        ("agent: {name: “box”}\n" + CAMERA, 1, '“ (U+201C): type ", ” (U+201D): type "'),
        ("agent: {name: ‘box’}\n" + CAMERA, 1, "‘ (U+2018): type ', ’ (U+2019): type '"),
        ("agent:\n　　name: box\n" + CAMERA, 2, "a space of another kind (U+3000): type an ordinary space"),
        ("agent:\n  name:　box\n" + CAMERA, 2, "a space of another kind (U+3000): type an ordinary space"),
        ("mqtt: {port: １８８３}\n" + CAMERA, 1, "１ (U+FF11): type 1, ８ (U+FF18): type 8"),
        ("mqtt: {commands: [pause、resume]}\n" + CAMERA, 1, "、 (U+3001): type ,"),
    ],
)
def test_a_look_alike_is_named_with_its_line_and_what_to_type(tmp_path: Path, text: str, line: int, typed: str) -> None:
    """Nobody sees that it is another character; YAML's own words about it would not help."""
    problems = problems_of(tmp_path, text)
    assert any(problem.line == line and typed in problem.message for problem in problems), problems
    assert not any("this is not YAML" in problem.message for problem in problems)


@pytest.mark.parametrize("value", ["“user”", "user　", "＂user＂"])
def test_quotes_around_a_text_that_may_be_anything_are_refused(tmp_path: Path, value: str) -> None:
    """The broker would refuse such a user, and nobody would see why."""
    (problem, *_) = problems_of(tmp_path, CAMERA + f"mqtt:\n  username: {value}\n")
    assert problem.line == 3
    assert "switch the keyboard" in problem.message


def test_where_such_characters_are_meant_they_may_stand(tmp_path: Path) -> None:
    """In comments, in quotes, in the middle of a text; an apostrophe begins no quote."""
    text = CAMERA + "# 相機：左邊\nmqtt: {username: '“操作員：一”', client_id: box}  # 說明，請勿更動\n"
    assert load(tmp_path, text).mqtt.username == "“操作員：一”"
    assert load(tmp_path, CAMERA + "mqtt: {username: 操作員：一}\n").mqtt.username == "操作員：一"


def test_other_problems_in_a_file_with_chinese_comments_are_told_alone(tmp_path: Path) -> None:
    """What stands in comments is no reason for anything."""
    problems = problems_of(tmp_path, CAMERA + "mqtt: {port: x}  # 連接埠：埠號\n")
    assert [(problem.line, problem.where) for problem in problems] == [(2, "mqtt.port")]
