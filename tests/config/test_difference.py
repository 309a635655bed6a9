"""What differs between two configurations, and what a reload may apply of it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.config import Config
from agent.config.difference import LIVE, applied_by_reload, difference
from agent.config.words import keys_below, leaf_paths

TOP, SIDE = ({"name": name, "folder": f"/srv/cameras/{name}"} for name in ("top", "side"))


def config(*cameras: dict[str, Any], **sections: Any) -> Config:
    """Make a configuration."""
    return Config.model_validate({"cameras": list(cameras), **sections})


def lines(old: Config, new: Config) -> list[str]:
    """Give the changes as people read them."""
    return [str(change) for change in difference(old, new).changes]


def test_nothing_differs_however_the_cameras_are_ordered() -> None:
    """The same file is no change, and neither is another order."""
    found = difference(config(TOP, SIDE), config(SIDE, TOP))
    assert found.changes == ()
    assert found.added | found.removed | found.watched_anew == frozenset()


def test_cameras_that_come_and_go_are_named_and_need_no_restart() -> None:
    """A camera that is renamed is one that goes and one that comes."""
    found = difference(config(TOP), config(SIDE))
    assert [str(change) for change in found.changes] == ["cameras.side is new", "cameras.top is gone"]
    assert found.added == {"side"}
    assert found.removed == {"top"}
    assert not found.watched_anew
    assert found.needs_restart == ()


@pytest.mark.parametrize(
    ("key", "value", "anew"),
    [
        ("threshold", 0.7, False),
        ("part_id_pattern", "(\\d+)", False),
        ("patterns", ["*.tif"], True),
        ("ignore", ["x"], True),
        ("settle_seconds", 2.0, True),
        ("when_done", "delete", True),
        ("folder", "/srv/cameras/other", True),
    ],
)
def test_a_camera_is_watched_anew_only_where_that_matters(key: str, value: Any, *, anew: bool) -> None:
    """A threshold touches nothing but the next strip; other patterns need another look at the folder."""
    found = difference(config(TOP, SIDE), config({**TOP, key: value}, SIDE))
    assert [change.key for change in found.changes] == [f"cameras.top.{key}"]
    assert found.needs_restart == ()
    assert found.watched_anew == ({"top"} if anew else set())


@pytest.mark.parametrize(
    "new",
    [
        config({**TOP, "slot": "other"}),
        config(TOP, {**SIDE, "slot": "other"}),
        config(TOP, {**SIDE, "ignore_mask": "/srv/mask.png"}),
        config({**TOP, "ignore_pixels": "/srv/dead.csv"}),
        config(TOP, mqtt={"host": "broker.example"}),
        config(TOP, scoring={"top_k": 7}),
        config({**TOP, "threshold": 0.9}, checks={"min_contrast": 1.0}),
    ],
)
def test_what_workers_and_the_broker_have_been_given_needs_a_restart(new: Config) -> None:
    """It is named, whatever else could have been applied beside it."""
    assert difference(config(TOP), new).needs_restart


def test_the_last_camera_of_a_slot_goes_with_a_restart() -> None:
    """Else a worker would be left that nothing is given to."""
    old = config(TOP, {**SIDE, "slot": "other"})
    assert [change.key for change in difference(old, config(TOP)).needs_restart] == ["cameras.side"]


def test_values_are_shown_and_long_ones_cut() -> None:
    """What was and what is, so that a log tells of it."""
    new = config(TOP, scoring={"threshold": 0.25}, heatmaps={"url_template": "http://box/" + 100 * "x" + "{path}"})
    shown = lines(config(TOP), new)
    assert shown[1] == "scoring.threshold: null -> 0.25"
    assert shown[0].startswith("heatmaps.url_template: null -> ")
    assert len(shown[0]) < 120


def test_the_table_names_keys_that_exist_and_every_key_has_an_answer() -> None:
    """A key that is renamed must not be forgotten here."""
    leaves = {".".join(path) for path in leaf_paths()}
    assert leaves >= LIVE
    assert applied_by_reload(("cameras", "folder"))
    assert not applied_by_reload(("cameras", "slot"))
    assert not applied_by_reload(("mqtt", "host"))
    assert {"slot", "ignore_pixels", "ignore_mask"} <= set(keys_below(keys_below({})["cameras"]["items"]))


def test_what_only_the_page_reads_needs_no_restart_of_the_service() -> None:
    """Another address of the page is a change that a reload takes on; the page itself is started again for it."""
    found = difference(config(TOP), config(TOP, web={"enabled": True, "listen": "127.0.0.1:9090"}))
    assert [change.key for change in found.changes] == ["web.enabled", "web.listen"]
    assert found.needs_restart == ()
