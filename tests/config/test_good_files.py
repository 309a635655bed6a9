"""The configuration: files that are fine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.config.reading import CAMERA, load

if TYPE_CHECKING:
    from pathlib import Path


def test_cameras_alone_are_a_configuration(tmp_path: Path) -> None:
    """Everything but the cameras has a default."""
    config = load(tmp_path, CAMERA)
    assert config.mqtt.port == 1883
    assert str(config.heatmap_folder) == "/var/lib/strip-agent/heatmaps"
    assert config.base_topic == "strip-agent/insp1"


def test_a_section_with_every_key_commented_out_has_its_defaults(tmp_path: Path) -> None:
    """`mqtt:` with nothing below it is what a person leaves behind who comments keys out."""
    assert load(tmp_path, CAMERA + "mqtt:\n  # host: broker\nlog:\n").mqtt.host == "localhost"


def test_words_that_older_yaml_takes_for_booleans_stay_text(tmp_path: Path) -> None:
    """A camera can be named `on`, `no` or 01 without quotes."""
    names = [f"{{name: {name}, folder: /srv/{number}}}" for number, name in enumerate(("on", "no", "y", "0123"))]
    assert [camera.name for camera in load(tmp_path, f"cameras: [{', '.join(names)}]").cameras] == [
        "on",
        "no",
        "y",
        "0123",
    ]


def test_an_alias_repeats_a_value(tmp_path: Path) -> None:
    """Anchors and aliases are allowed; they save typing."""
    text = "cameras:\n- {name: a, folder: /a, patterns: &p ['*.tif']}\n- {name: b, folder: /b, patterns: *p}\n"
    assert load(tmp_path, text).cameras[1].patterns == ["*.tif"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    assert load(tmp_path, b"\xef\xbb\xbf" + CAMERA.encode()).cameras[0].name == "top"


def test_the_base_topic_says_where_the_box_stands(tmp_path: Path) -> None:
    """All boxes of a plant can share one line of configuration."""
    where = "agent: {name: insp7, site: graz, area: press, line: L3}\n"
    topic = "mqtt: {base_topic: 'acme/{site}/{area}/{line}/{agent}/qs'}\n"
    assert load(tmp_path, CAMERA + where + topic).base_topic == "acme/graz/press/L3/insp7/qs"
    assert load(tmp_path, CAMERA + where).base_topic == "strip-agent/insp7"
