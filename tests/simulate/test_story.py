"""What a simulated box goes through: believable, complete, the same again for the same seed."""

from __future__ import annotations

from agent.messages import ALARMS, explain
from agent.simulate import story
from agent.simulate.story import LENGTH, act_before, judge

CAMERAS = ("top", "side")


def test_one_story_has_everything_that_scada_has_to_deal_with() -> None:
    """Each verdict, several reasons, and every kind of act, each that begins something with the one that ends it."""
    strips = [judge(0, number, CAMERAS, 0.5) for number in range(LENGTH)]
    assert {strip.camera for strip in strips} == set(CAMERAS)
    invalid = [strip for strip in strips if strip.reason]
    anomalous = [strip for strip in strips if strip.score >= 0.5]
    assert len({strip.reason for strip in invalid}) >= 4
    assert 3 <= len(anomalous) <= LENGTH // 8
    assert all(strip.area_px >= strip.defects >= 1 for strip in anomalous)
    assert all(0.0 <= strip.score <= 1.0 for strip in strips if not strip.reason)
    acts = [act for number in range(LENGTH) if (act := act_before(number)) is not None]
    assert [kind for kind, _ in acts if kind in {"cut", "mend"}] == ["cut", "mend"]
    assert [kind for kind, _ in acts if kind in {"stop", "start"}] == ["stop", "start"]
    for name in {about for kind, about in acts if kind == "raise"}:
        assert [kind for kind, about in acts if about == name] == ["raise", "clear"]
        assert explain(name.format(camera="side"), CAMERAS, ()).code in ALARMS
    assert {"reject", "activate", "roll_back"} <= {kind for kind, _ in acts}
    assert [about for kind, about in acts if kind == "review"] == ["no_defect", "defect"]


def test_a_camera_whose_folder_is_away_brings_nothing() -> None:
    """The alarm and the results agree; a box with one camera goes on, as there would be nothing to see."""
    away = [judge(0, number, CAMERAS, 0.5).camera for number in story.AWAY]
    assert set(away) == {"top"}
    assert {judge(0, number, ("top",), 0.5).camera for number in story.AWAY} == {"top"}


def test_a_seed_gives_the_same_line_again() -> None:
    """So that a page can be compared with how it looked before."""
    first, again, other = ([judge(seed, number, CAMERAS, 0.5) for number in range(50)] for seed in (1, 1, 2))
    assert first == again
    assert first != other
