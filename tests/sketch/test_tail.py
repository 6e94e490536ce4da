"""Tails against scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from edgeops.sketch.tail import benjamini_hochberg, chi2_sf, excess_p, log_gamma

from .streams import STEADY


@STEADY
@given(st.floats(1e-3, 1e7))
def test_log_gamma_agrees_with_scipy(x):
    """To fourteen digits of the larger of the result and one."""
    want = special.gammaln(x)
    assert abs(float(log_gamma(np.array([x]))[0]) - want) <= 2e-14 * max(abs(want), 10.0)


@STEADY
@given(st.lists(st.tuples(st.just(0.0) | st.floats(1e-290, 1200), st.floats(0.05, 120)), min_size=1, max_size=30))
def test_chi2_tail_agrees_with_scipy(pairs):
    """Relative error below 1e-9 over the range a scan can meet, including real degrees of freedom."""
    x, dof = np.array(pairs).T
    want = stats.chi2.sf(x, dof)
    assert np.all(np.abs(chi2_sf(x, dof) - want) <= 1e-9 * want + 1e-15 * (want > 1e-3) + 1e-299)


def test_chi2_tail_without_degrees_of_freedom_tests_nothing():
    """No cells, no evidence."""
    assert chi2_sf([3.0, 0.0], [0, 4]).tolist() == [1.0, 1.0]


@STEADY
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_excess_agrees_with_fisher(size, reference_size, data):
    """scipy's hypergeometric tail, wherever the live rate is the higher one."""
    hits = data.draw(st.integers(0, size))
    reference_hits = data.draw(st.integers(0, reference_size))
    got = excess_p(hits, size, reference_hits, reference_size)
    if hits * reference_size <= reference_hits * size:
        assert float(got) == 1.0
    else:
        want = stats.hypergeom.sf(hits - 1, size + reference_size, hits + reference_hits, size)
        assert float(got) == pytest.approx(max(want, 1e-300), rel=1e-8)


@STEADY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_benjamini_hochberg_agrees_with_scipy(p_values):
    """The same devices are chosen as by scipy's adjusted p-values."""
    adjusted = stats.false_discovery_control(p_values)
    close = np.abs(adjusted - 0.05) < 1e-12
    assert np.all(close | (benjamini_hochberg(p_values) == (adjusted <= 0.05)))
