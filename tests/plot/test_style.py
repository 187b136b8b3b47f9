"""The style that all figures share."""

import numpy as np
import pytest

from jaxnets.plot.style import bootstrap, panels


@pytest.mark.parametrize("seeds", [8, 20])
def test_intervals_cover_the_mean_of_a_normal_distribution(seeds: int):
    """Also of eight seeds, for which the percentiles 2.5 and 97.5 would cover it nine times in ten."""
    values = np.random.default_rng(0).normal(size=(1000, seeds))
    covered = [low < 0 < high for _, low, high in (bootstrap(row, draws=1000) for row in values)]
    assert 0.93 < np.mean(covered) < 0.97


def test_intervals_are_computed_along_the_first_axis():
    values = np.random.default_rng(0).normal(size=(6, 3, 4))
    whole = bootstrap(values)
    assert [each.shape for each in whole] == [(3, 4)] * 3
    for place in np.ndindex(3, 4):
        assert tuple(each[place] for each in whole) == bootstrap(values[:, *place])
    np.testing.assert_allclose(whole[0], values.mean(0))


def test_intervals_of_few_values_are_their_range():
    assert bootstrap([2.0]) == (2.0, 2.0, 2.0)
    assert bootstrap([1.0, 2.0, 6.0, 3.0]) == (3.0, 1.0, 6.0)
    assert np.isnan(bootstrap([1.0, np.nan])).all()
    for empty in (1.0, []):
        with pytest.raises(ValueError, match="a value for each seed along the first axis, got the shape"):
            bootstrap(empty)


def test_panels_come_row_by_row():
    figure, axes = panels(3, 2, width=2.0, height=1.5)
    assert axes == figure.axes
    assert len(axes) == 6
    assert tuple(figure.get_size_inches()) == (6.0, 3.0)
