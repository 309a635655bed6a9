"""What may go into the model, how it is scaled, and what may come out of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import ChecksSection
from agent.contract.exposure import Exposure, format_exposure, parse_exposure
from agent.contract.model import ModelFacts, format_metadata, parse_metadata
from agent.errors import Blame, Reason, Reject, Retry
from agent.worker.checks import check_output, check_strip, to_model_input
from agent.worker.light import check_light, measure_exposure
from tests.helpers.strips import Pixels, make_pixels

DEFAULTS = ChecksSection()


def _pixels(dtype: str = "float32") -> Pixels:
    pixels: Pixels = make_pixels(height=64, width=48).round().astype(dtype)
    return pixels


def _refused(pixels: Pixels, checks: ChecksSection = DEFAULTS, exposure: Exposure | None = None) -> Reject | Retry:
    with pytest.raises((Reject, Retry)) as caught:
        check_strip(pixels, checks, exposure)
    assert isinstance(caught.value, (Reject, Retry))
    return caught.value


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
def test_a_good_strip_passes(dtype: str) -> None:
    """3 or 4 channels of any accepted dtype are judged."""
    check_strip(_pixels(dtype), DEFAULTS)
    check_strip(_pixels(dtype)[:3], DEFAULTS)


def test_a_channel_of_another_scale_that_blackens_another_is_refused() -> None:
    """Two 8-bit pixels read as one of 16 bits, say: stretched to them the rest would be black, and black is "ok"."""
    pixels = make_pixels()
    pixels[:2] = pixels[:2] * 257
    assert _refused(pixels).reason is Reason.LOW_CONTRAST
    assert "reference 2" in _refused(pixels).detail
    pixels[2] *= 257
    check_strip(pixels, DEFAULTS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 7.0])
def test_the_fourth_channel_is_never_examined(value: float) -> None:
    """Whatever the unused channel holds, the strip is judged, and the model gets the same."""
    pixels = _pixels()
    pixels[3] = value
    check_strip(pixels, DEFAULTS)
    np.testing.assert_array_equal(
        to_model_input(pixels, DEFAULTS, "unit")[0], to_model_input(pixels[:3], DEFAULTS, "unit")[0]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_pixel_that_is_no_number_refuses_the_strip(channel: int, value: float) -> None:
    """A model may hide NaN: a quantised one does. The input is where it must be seen."""
    pixels = _pixels()
    pixels[channel, 30, 20] = value
    assert _refused(pixels).reason is Reason.NON_FINITE


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
def test_zero_rows_at_the_end_are_waited_for(channel: int, dtype: str) -> None:
    """A file whose rest is not written yet may still grow; that is the file's matter."""
    pixels = _pixels(dtype)
    pixels[channel, -5:] = 0
    error = _refused(pixels)
    assert isinstance(error, Retry)
    assert (error.reason, error.blame) == (Reason.INCOMPLETE, Blame.FILE)
    assert "last 5 rows" in error.detail


def test_zero_rows_can_be_accepted_and_are_fine_elsewhere() -> None:
    """A camera with a black border says `zero_rows: accept`; zero rows that are not at the end are a picture."""
    pixels = _pixels()
    pixels[:, :5] = 0
    check_strip(pixels, DEFAULTS)
    pixels[:, -5:] = 0
    check_strip(pixels, ChecksSection(zero_rows="accept"))


def test_a_float_strip_in_0_to_1_is_suspected_unless_full_scale_says_so() -> None:
    """Scaled twice, it would be black; black is "ok"."""
    pixels = _pixels() / 255
    assert _refused(pixels).reason is Reason.UNIT_RANGE_SUSPECTED
    check_strip(pixels, ChecksSection(full_scale=1.0))
    whole, _ = to_model_input(_pixels(), DEFAULTS, "unit")
    np.testing.assert_allclose(to_model_input(pixels, ChecksSection(full_scale=1.0), "unit")[0], whole, atol=1e-6)


def test_a_uint8_strip_of_0_and_1_is_dark_but_no_unit_range() -> None:
    """Only floats are suspected; integers of 0 and 1 have no contrast."""
    pixels = np.random.default_rng(0).integers(0, 2, (3, 64, 48)).astype(np.uint8)
    pixels[:, -1] = 1
    assert _refused(pixels).reason is Reason.LOW_CONTRAST


def _noise(level: float, deviation: float) -> Pixels:
    noisy: Pixels = np.random.default_rng(0).normal(level, deviation, (3, 64, 48)).astype(np.float32)
    return noisy


@pytest.mark.parametrize("level", [4, 128, 250])
@pytest.mark.parametrize("deviation", [0.0, 0.3, 1.0])
def test_three_constant_channels_are_refused(level: float, deviation: float) -> None:
    """A covered lens, a light that is off or that blinds: a picture of nothing is no good part."""
    assert _refused(_noise(level, deviation)).reason is Reason.LOW_CONTRAST


def test_a_blank_field_is_a_strip() -> None:
    """An evenly lit part of the board without anything on it shows the sensor's noise."""
    check_strip(_noise(205, 2.0), DEFAULTS)
    check_strip(_noise(205, 2.0).round().astype(np.uint8), DEFAULTS)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_constant_channel_is_judged(channel: int) -> None:
    """A defect in the target over a blank reference is a defect."""
    pixels = _pixels()
    pixels[channel] = 128
    check_strip(pixels, DEFAULTS)


def _exposure(**changed: float) -> Exposure:
    return replace(Exposure(level_low=205, level_high=213, contrast=50, noise=2, white=0), **changed)


@pytest.mark.parametrize(("deviation", "noise", "is_read"), [(1.0, 2.0, False), (1.1, 2.0, True), (0.5, 0.6, True)])
def test_what_is_constant_follows_from_the_noise_of_the_calibration_strips(
    deviation: float, noise: float, is_read: bool
) -> None:
    """With a quiet sensor a blank field has less contrast than `min_contrast`; it needs no tuning."""
    pixels = _noise(205, deviation * 0.95)
    if is_read:
        check_strip(pixels, DEFAULTS, _exposure(noise=noise))
    else:
        assert _refused(pixels, exposure=_exposure(noise=noise)).reason is Reason.LOW_CONTRAST
    check_strip(pixels, ChecksSection(min_contrast=0), _exposure(noise=noise))
    assert _refused(_noise(205, 0), exposure=_exposure(noise=0)).reason is Reason.LOW_CONTRAST


@pytest.mark.parametrize("scale", ["unit", "gray8"])
@pytest.mark.parametrize(
    ("factor", "is_lit"), [(1.0, True), (0.75, True), (0.5, False), (0.25, False), (1 / 8, False), (1 / 16, False)]
)
@pytest.mark.parametrize("channels", [[0], [1, 2], [0, 1, 2]], ids=str)
def test_light_that_fades_is_refused_where_the_training_knew_another(
    scale: Literal["unit", "gray8"], factor: float, is_lit: bool, channels: list[int]
) -> None:
    """In the dark a model sees nothing, and nothing is "ok"; one channel in another light is enough."""
    pixels = _pixels()
    exposure = measure_exposure([pixels[:3]])
    assert exposure is not None
    pixels[channels] *= factor
    assert _is_lit(pixels, scale, exposure) == is_lit


def _is_lit(pixels: Pixels, scale: Literal["unit", "gray8"], exposure: Exposure) -> bool:
    strip, _ = to_model_input(pixels, DEFAULTS, scale)
    try:
        check_light(strip[0], 255.0 if scale == "gray8" else 1.0, exposure)
    except Reject as refusal:
        return refusal.reason is not Reason.EXPOSURE_DIFFERS
    return True


def test_light_that_blinds_is_refused_unless_the_training_was_blinded_too() -> None:
    """Where the brightest turn white their differences are gone; a bright defect alone is no such thing."""
    exposure = _exposure(level_low=180, level_high=185)
    pixels = _pixels()
    assert _is_lit(pixels, "unit", exposure)
    pixels[0, :10, :10] = 255
    assert _is_lit(pixels, "unit", exposure)
    blinded = np.clip(pixels * 1.45, 0, 255)
    assert not _is_lit(blinded, "unit", exposure)
    assert not _is_lit(blinded, "unit", _exposure(level_low=250, level_high=255))
    assert _is_lit(blinded, "unit", _exposure(level_low=250, level_high=255, white=0.3))
    assert not _is_lit(np.clip(pixels * 1.3, 0, 254), "unit", _exposure(level_low=150, level_high=160))


@pytest.mark.parametrize("defect", [False, True])
def test_a_blank_field_in_the_right_light_is_judged(defect: bool) -> None:
    """With a defect and without: the level of a strip does not follow from what it shows."""
    pixels = _noise(205, 2.0)
    if defect:
        pixels[0, 20:30, 20:30] = 30
    check_strip(pixels, DEFAULTS, _exposure())
    assert _is_lit(pixels, "unit", _exposure())
    assert not _is_lit(pixels / 2, "unit", _exposure())


def test_an_exposure_survives_the_model_file() -> None:
    """Four digits of each number; later versions may add keys."""
    exposure = Exposure(level_low=12.34, level_high=205.6, contrast=0.1234, noise=2.035, white=0.0123)
    assert parse_exposure(format_exposure(exposure)) == exposure
    assert parse_exposure(format_exposure(exposure)[:-1] + ', "more": [1]}') == exposure
    facts = ModelFacts(labelled=True, height=1, width=1, input_scale="unit", model_id="a", version=1, precision="fp32")
    assert check_model_metadata(format_metadata(replace(facts, exposure=exposure))).exposure == exposure
    assert check_model_metadata(format_metadata(facts)).exposure is None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "7", "null", "{" * 99999, '{"level_low": 1}']
    + [
        f'{{"level_low": {low}, "level_high": {high}, "contrast": 1, "noise": {noise}, "white": {white}}}'
        for low, high, noise, white in [
            (0, 1, 1, 0), (2, 1, 1, 0), ("NaN", 9, 1, 0), (1, "Infinity", 1, 0), (1, 256, 1, 0), (1, 2, -1, 0),
            (1, 2, 1, 1.5), ("[]", 2, 1, 0), ('"a"', 2, 1, 0),
        ]
    ],
)  # fmt: skip
def test_an_exposure_that_is_none_refuses_the_model(text: str) -> None:
    """It is never taken for "there is none"."""
    metadata = format_metadata(
        ModelFacts(labelled=True, height=1, width=1, input_scale="unit", model_id="a", version=1, precision="fp32")
    )
    with pytest.raises(Reject, match="calibration_level") as caught:
        check_model_metadata(metadata | {"strip_agent.calibration_level": text})
    assert caught.value.reason is Reason.MODEL_METADATA


def check_model_metadata(metadata: dict[str, str]) -> ModelFacts:
    """Read a file's metadata."""
    return parse_metadata({key.removeprefix("strip_agent."): value for key, value in metadata.items()})


def test_contrast_is_measured_in_grey_levels_of_255() -> None:
    """Of 16-bit data with a full scale, 2 of 65535 levels are no contrast."""
    pixels = (_pixels("uint16") // 10) + 100
    assert _refused(pixels, ChecksSection(full_scale=65535)).reason is Reason.LOW_CONTRAST
    check_strip(pixels * 257, ChecksSection(full_scale=65535))
    check_strip(pixels, ChecksSection(min_contrast=0.5))


@pytest.mark.parametrize("hot", [60_000.0, 1e30, 3e38, -3e38])
def test_one_hot_pixel_must_not_make_the_model_see_black(hot: float) -> None:
    """Stretched to the hot pixel the rest is one grey level; what the model will see is what is measured."""
    pixels = _pixels()
    pixels[2, 9, 9] = hot
    assert _refused(pixels).reason is Reason.LOW_CONTRAST
    check_strip(pixels, ChecksSection(out_of_range="clip"))


def test_noise_that_would_be_stretched_is_not_taken_for_contrast() -> None:
    """A dead camera at level 300 +- 1 is out of range and would be stretched to full contrast."""
    pixels = (300 + np.random.default_rng(0).integers(0, 2, (3, 64, 48))).astype(np.uint16)
    assert _refused(pixels).reason is Reason.LOW_CONTRAST


@pytest.mark.parametrize(("channel", "name"), [(1, "reference 1"), (2, "reference 2")])
def test_a_target_that_is_its_reference_is_refused(channel: int, name: str) -> None:
    """Nothing can differ, so nothing would be found: a wiring mistake, not a good part."""
    pixels = _pixels()
    pixels[channel] = pixels[0]
    error = _refused(pixels)
    assert error.reason is Reason.TARGET_EQUALS_REFERENCE
    assert name in error.detail


def test_equal_references_are_fine() -> None:
    """A line may have one reference only and write it twice."""
    pixels = _pixels()
    pixels[2] = pixels[1]
    check_strip(pixels, DEFAULTS)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16"])
@pytest.mark.parametrize(("scale", "top"), [("unit", 1.0), ("gray8", 255.0)])
def test_grey_levels_become_the_models_scale(dtype: str, scale: Literal["unit", "gray8"], top: float) -> None:
    """255 becomes the scale's top, whatever the dtype; the fourth channel does not go in."""
    pixels = _pixels(dtype)
    strip, rescaled = to_model_input(pixels, DEFAULTS, scale)
    assert strip.shape == (1, 3, 64, 48)
    assert strip.dtype == np.float32
    assert strip.flags.c_contiguous
    assert not rescaled
    np.testing.assert_allclose(strip[0], pixels[:3].astype(np.float64) * (top / 255), rtol=1e-6)


def test_the_unit_scale_is_exactly_a_division_by_255() -> None:
    """The very numbers that training saw, not one rounding off."""
    pixels = _pixels()
    expected = pixels[:3] / np.float32(255)
    np.testing.assert_array_equal(to_model_input(pixels, DEFAULTS, "unit")[0][0], expected)


def test_full_scale_replaces_255() -> None:
    """12-bit data with its full scale is neither rescaled nor out of range."""
    pixels = _pixels("uint16") * 16
    strip, rescaled = to_model_input(pixels, ChecksSection(full_scale=4080), "gray8")
    assert not rescaled
    np.testing.assert_allclose(strip[0], pixels[:3] / 16, rtol=1e-6)


def test_rescaling_takes_the_three_channels_jointly() -> None:
    """Target and references keep their relation: one minimum and one maximum for all."""
    pixels = _pixels("uint16")
    pixels[0, 0, 0], pixels[2, 1, 1] = 10, 510
    strip, rescaled = to_model_input(pixels, DEFAULTS, "unit")
    assert rescaled
    np.testing.assert_allclose(strip[0], (pixels[:3] - 10.0) / 500, atol=1e-6)


def test_clipping_and_refusing_are_the_operators_choice() -> None:
    """`clip` cuts off, `reject` refuses with what was found."""
    pixels = _pixels()
    pixels[0, 0, 0], pixels[1, 0, 0] = -20, 300
    strip, rescaled = to_model_input(pixels, ChecksSection(out_of_range="clip"), "gray8")
    assert not rescaled
    np.testing.assert_array_equal(strip[0], np.clip(pixels[:3], 0, 255))
    with pytest.raises(Reject, match=r"-20\.\.300, outside 0\.\.255") as caught:
        to_model_input(pixels, ChecksSection(out_of_range="reject"), "unit")
    assert caught.value.reason is Reason.OUT_OF_RANGE


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=12, max_size=12),
    st.sampled_from(["rescale", "clip"]),
    st.sampled_from([("unit", 1.0), ("gray8", 255.0)]),
    st.one_of(st.sampled_from([None, 1.0, 255.0, 4095.0]), st.floats(min_value=5e-324, max_value=1.7e308)),
)
def test_what_the_model_gets_is_always_finite_and_in_scale(
    values: list[float], rule: Any, scale: tuple[Any, float], full_scale: float | None
) -> None:
    """No float32 whatever leads outside the model's scale."""
    checks = ChecksSection(out_of_range=rule, full_scale=full_scale)
    pixels = np.array(values, np.float32).reshape(3, 2, 2)
    strip, _ = to_model_input(pixels, checks, scale[0])
    assert np.isfinite(strip).all()
    assert strip.min() >= 0
    assert strip.max() <= scale[1] * (1 + 1e-6)


def _output() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    output = np.zeros((1, 3, 64, 48), np.float32)
    output[0, 0] = np.random.default_rng(0).random((64, 48), dtype=np.float32)
    return output


def test_a_heatmap_comes_out_as_it_is() -> None:
    """Channel 0, unchanged."""
    np.testing.assert_array_equal(check_output(_output(), 64, 48), _output()[0, 0])


def test_rounding_beyond_0_and_1_is_clipped() -> None:
    """A softmax may be off by a rounding; that is no fault."""
    output = _output()
    output[0, 0, 0, :2] = [-5e-5, 1.00005]
    heatmap = check_output(output, 64, 48)
    assert (heatmap[0, 0], heatmap[0, 1]) == (0, 1)


def _spoiled(value: float) -> Any:
    output = _output()
    output[0, 0, 3, 3] = value
    return output


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (_output()[:, :2], Reason.OUTPUT_WRONG_SHAPE),
        (_output()[:, :, 1:], Reason.OUTPUT_WRONG_SHAPE),
        (_output().astype(np.float64), Reason.OUTPUT_WRONG_SHAPE),
        (_output()[0], Reason.OUTPUT_WRONG_SHAPE),
        (_spoiled(np.nan), Reason.OUTPUT_NON_FINITE),
        (_spoiled(np.inf), Reason.OUTPUT_NON_FINITE),
        (_spoiled(1.01), Reason.OUTPUT_OUT_OF_RANGE),
        (_spoiled(-0.01), Reason.OUTPUT_OUT_OF_RANGE),
    ],
)
def test_an_output_that_is_no_heatmap_is_the_models_fault(output: Any, reason: Reason) -> None:
    """It never becomes a score, and the model is blamed, not the strip."""
    with pytest.raises(Reject) as caught:
        check_output(output, 64, 48)
    assert caught.value.reason is reason
    assert caught.value.model_fault
