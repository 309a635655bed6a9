"""Student's t: how far chance may take a mean."""

from __future__ import annotations

import pytest

from agent.drift.student import t_quantile


@pytest.mark.parametrize(
    ("doubt", "degrees", "expected"),
    [(0.05, 1, 12.7062), (0.05, 2, 4.30265), (0.05, 7, 2.36462), (1e-4, 4, 15.5441), (1e-4, 9, 6.59368),
     (1e-4, 50, 4.22831), (0.5, 3, 0.764892)],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(doubt: float, degrees: int, expected: float) -> None:
    """Odd and even degrees of freedom; the expected values are scipy's."""
    assert t_quantile(doubt, degrees) == pytest.approx(expected, rel=1e-5)


def test_beyond_many_degrees_nothing_changes_that_matters() -> None:
    """A reference of a million strips costs no time."""
    assert t_quantile(1e-4, 10**6) == t_quantile(1e-4, 400) == pytest.approx(3.9302, rel=1e-4)
