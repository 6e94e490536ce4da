"""Varints, the strict reader and the latency histogram."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeops.sketch.latency import LAST, LatencyHistogram, bucket_of, upper_bound
from edgeops.sketch.octets import Reader, put_varint
from edgeops.wire.errors import Misuse, Rejected

from .streams import STEADY

latencies = st.lists(st.integers(0, 2**36), max_size=60)


@STEADY
@given(st.lists(st.integers(0, 2**63 - 1)))
def test_varints_come_back(values):
    """What was put is read, and nothing is left."""
    out = bytearray()
    for value in values:
        put_varint(out, value)
    reader = Reader(bytes(out), "x")
    assert [reader.varint() for _ in values] == values
    reader.end()


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 9 + b"\x01"])
def test_odd_varints_are_rejected(data):
    """Cut short, padded and overlong varints have one reason."""
    with pytest.raises(Rejected) as caught:
        Reader(data, "sketch-malformed").varint()
    assert caught.value.reason == "sketch-malformed"


@STEADY
@given(st.integers(1, 2**31))
def test_a_value_lies_in_its_bucket(value):
    """The bucket's bounds hold, upper inclusive, also at exact powers of two."""
    index = bucket_of(value)
    assert value <= upper_bound(index) * (1 + 1e-12)
    assert index == 0 or value > upper_bound(index - 1) * (1 - 1e-12)


def test_powers_of_two_end_their_bucket():
    """2**k is the inclusive end of bucket 8k, the case that ceil(log2) gets wrong."""
    assert [bucket_of(2**k) for k in range(31)] == [8 * k for k in range(31)]
    assert bucket_of(2**40) == LAST


@STEADY
@given(latencies)
def test_vectorised_counting_agrees_with_the_single_one(values):
    """`of` counts as `bucket_of` does, and keeps count and sum."""
    expected: dict[int, int] = {}
    for value in values:
        expected[bucket_of(value)] = expected.get(bucket_of(value), 0) + 1
    histogram = LatencyHistogram.of(values)
    assert dict(histogram.buckets) == expected
    assert (histogram.count, histogram.sum_us) == (len(values), sum(values))
    assert histogram.at_or_below(LAST) == len(values)


@STEADY
@given(latencies, latencies, latencies)
def test_merging_is_exact_and_order_free(a, b, c):
    """Any bracketing and order of merges equals counting everything at once."""
    x, y, z = (LatencyHistogram.of(v) for v in (a, b, c))
    assert x.merge(y).merge(z) == x.merge(y.merge(z)) == z.merge(x).merge(y) == LatencyHistogram.of(a + b + c)


@STEADY
@given(st.lists(st.integers(1, 10**8), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles_err_by_at_most_four_and_a_half_percent(values, q):
    """Against numpy's nearest rank on the raw values."""
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert abs(LatencyHistogram.of(values).quantile(q) - exact) <= 0.045 * exact


@STEADY
@given(latencies)
def test_histograms_come_back_from_bytes(values):
    """Round trip."""
    histogram = LatencyHistogram.of(values)
    assert LatencyHistogram.from_bytes(histogram.to_bytes()) == histogram


@settings(STEADY, max_examples=300)
@given(st.binary(max_size=40))
def test_any_bytes_decode_canonically_or_are_rejected(data):
    """Garbage never raises anything but `Rejected`, and what decodes encodes to the same bytes."""
    try:
        histogram = LatencyHistogram.from_bytes(data)
    except Rejected:
        return
    assert histogram.to_bytes() == data


def test_a_typical_histogram_is_small_and_edges_are_named():
    """A lognormal service takes under 120 B; misuse is said so."""
    values = np.random.default_rng(0).lognormal(8, 0.5, 10_000).astype(np.int64)
    assert len(LatencyHistogram.of(values).to_bytes()) < 120
    assert math.isnan(LatencyHistogram().quantile(0.5))
    with pytest.raises(Misuse):
        LatencyHistogram().quantile(1.5)
    with pytest.raises(Misuse):
        LatencyHistogram.of([-1])
