"""The wire record, sets of windows, and the reference profile's bytes."""

import zlib
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeops.sketch.build import build_reference
from edgeops.sketch.latency import LatencyHistogram
from edgeops.sketch.probes import COLUMNS, fold
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.window import MAX_BYTES, SketchWindow, Tally, WindowSet, merge_tallies
from edgeops.wire.errors import Misuse, Rejected

from .streams import STEADY, answer, digits_reference, draw

numbers = st.integers(0, 2**40)


@st.composite
def tallies(draw, probes=None):
    """Tallies whose counts agree with each other."""
    p = draw(st.integers(0, 6)) if probes is None else probes
    n = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = np.zeros((p, COLUMNS), dtype=np.int64)
    for row in counts:
        row[:11] = rng.multinomial(n, rng.dirichlet(np.ones(11)))
        row[11], row[12] = rng.integers(0, row[0] + 1), rng.integers(0, row[9] + 1)
    latency = LatencyHistogram.of(draw(st.lists(st.integers(0, 10**9), max_size=30)))
    return Tally(n, *(draw(numbers) for _ in range(4)), counts, latency)


@st.composite
def records(draw, probes=None):
    """Windows of a few boots and sequence numbers."""
    return SketchWindow(
        b"modelmod", b"profprof", bytes([draw(st.integers(0, 2))]) * 16, draw(st.integers(0, 5)), draw(numbers), draw(numbers),
        draw(st.sampled_from((1, 2, 5, 10, 25))), draw(tallies(probes)),
    )


def same(a: Tally, b: Tally) -> bool:
    """Field by field."""
    scalars = [(t.n, t.calls, t.errors, t.invalid, t.dropped, t.latency) for t in (a, b)]
    return scalars[0] == scalars[1] and np.array_equal(a.probes, b.probes)


@STEADY
@given(records())
def test_windows_come_back_from_bytes(window):
    """Round trip, compressed or not, within the size limit."""
    data = window.to_bytes()
    again = SketchWindow.from_bytes(data)
    assert len(data) <= MAX_BYTES
    assert again.plain() == window.plain()
    assert same(again.tally, window.tally)


@settings(STEADY, max_examples=200)
@given(records(), st.data())
def test_a_damaged_window_is_rejected_or_still_consistent(window, data):
    """One flipped byte, a cut or an addition never raises anything but `Rejected`."""
    good = bytearray(window.to_bytes())
    at = data.draw(st.integers(0, len(good) - 1))
    how = data.draw(st.sampled_from(("flip", "cut", "add")))
    if how == "flip":
        good[at] ^= data.draw(st.integers(1, 255))
    bad = bytes(good[:at] if how == "cut" else good + b"\0" if how == "add" else good)
    try:
        window = SketchWindow.from_bytes(bad)
    except Rejected as error:
        assert error.reason == "sketch-malformed"
    else:
        assert how == "flip"
        assert (window.tally.probes[:, :11].sum(axis=1) == window.tally.n).all()


def test_a_decompression_bomb_is_rejected():
    """A record may not grow beyond 16 KB, whatever it promises."""
    with pytest.raises(Rejected):
        SketchWindow.from_bytes(b"\x01\x01" + zlib.compress(bytes(1_000_000), 9))


def test_a_busy_window_fits_and_an_absurd_one_is_refused():
    """32 probes over a million rows fit into 2 KB; counts beyond reason are the caller's mistake."""
    rng = np.random.default_rng(0)
    counts = np.zeros((32, COLUMNS), dtype=np.int64)
    counts[:, :10] = rng.multinomial(1_000_000, np.full(10, 0.1), size=32)
    tally = Tally(1_000_000, 1_000_000, 0, 0, 0, counts, LatencyHistogram.of(rng.lognormal(8, 0.5, 10_000).astype(np.int64)))
    window = SketchWindow(bytes(8), bytes(8), bytes(16), 0, 1_800_000_000_000, 60_000, 1, tally)
    assert len(window.to_bytes()) <= MAX_BYTES
    with pytest.raises(Misuse):
        replace(window, tally=replace(tally, probes=counts * 10**9 + rng.integers(0, 10**9, counts.shape))).to_bytes()


@STEADY
@given(tallies(3), tallies(3), tallies(3))
def test_tallies_add_exactly_in_any_order(a, b, c):
    """Associative and commutative, with the empty tally as zero."""
    assert same(a.merge(b).merge(c), c.merge(b.merge(a)))
    assert same(a.merge(Tally(probes=np.zeros((3, COLUMNS), dtype=np.int64))), a)


@settings(STEADY, max_examples=40)
@given(st.lists(records(2), max_size=4), st.lists(records(2), max_size=4), st.data())
def test_sets_of_windows_form_a_semilattice(first, second, data):
    """Merging is associative, commutative, idempotent, even when two windows claim one key with different content."""
    a, b = WindowSet.of(first), WindowSet.of(second)
    shuffled = data.draw(st.permutations(first + second + first))

    def content(windows: WindowSet) -> list[bytes]:
        return [window.plain() for window in windows.windows]

    merged = a.merge(b)
    assert content(merged) == content(b.merge(a)) == content(WindowSet.of(shuffled)) == content(merged.merge(a).merge(merged))


def test_duplicates_and_gaps_do_no_harm():
    """Every order of arrival with repeats gives one tally; a lost window is counted, not guessed."""
    row = np.zeros((1, COLUMNS), dtype=np.int64)
    row[0, 0] = 60
    windows = [SketchWindow(bytes(8), bytes(8), bytes(16), seq, seq, 1, 1, Tally(60, 60, probes=row)) for seq in (0, 1, 3)]
    for order in permutations(windows):
        merged = WindowSet.of([*order, order[0]])
        assert (merged.tally().n, merged.gaps, [w.seq for w in merged.latest(2)]) == (180, 1, [1, 3])
    with pytest.raises(Misuse):
        merge_tallies([windows[0], replace(windows[1], profile=b"another!")])


def test_a_profile_comes_back_and_counts_alike():
    """Round trip of the bytes, the hash and the counts; a digits profile is a few KB."""
    reference = digits_reference()
    data = reference.to_bytes()
    again = ReferenceProfile.from_bytes(data)
    x = draw(np.random.default_rng(5), 300)
    assert (again.to_bytes(), again.hash8, again.probes) == (data, reference.hash8, reference.probes)
    assert np.array_equal(again.count(x, *answer(x)), reference.count(x, *answer(x)))
    assert len(data) < 8_192


def test_building_is_deterministic_and_the_seed_matters():
    """The same rows and seed give the same bytes, another seed other projections."""
    x = draw(np.random.default_rng(5), 400)
    first, second = (build_reference(x, *answer(x), seed=3).to_bytes() for _ in range(2))
    assert first == second != build_reference(x, *answer(x), seed=4).to_bytes()


@settings(STEADY, max_examples=150)
@given(st.data())
def test_a_damaged_profile_is_rejected_or_usable(data):
    """Flips and cuts raise `Rejected("reference-malformed")`, or leave a profile that re-encodes to itself and counts."""
    good = bytearray(digits_reference().to_bytes())
    at = data.draw(st.integers(0, len(good) - 1) | st.integers(0, 600))
    cut = data.draw(st.booleans())
    if not cut:
        good[at] ^= data.draw(st.integers(1, 255))
    bad = bytes(good[:at] if cut else good)
    try:
        profile = ReferenceProfile.from_bytes(bad)
    except Rejected as error:
        assert error.reason == "reference-malformed"
        return
    assert not cut
    assert profile.to_bytes() == bad
    if profile.shape == (8, 8):
        x = draw(np.random.default_rng(0), 3)
        assert profile.count(x, *answer(x))[:, :11].sum(axis=1).tolist() == [3] * len(profile.probes)


def test_profiles_fit_models_of_every_form():
    """Tables, images with more numbers than a space holds, plain regressions, a thousand classes; each counts all its rows."""
    rng = np.random.default_rng(0)
    table, image = rng.standard_normal((600, 5)), rng.integers(0, 255, (300, 3, 20, 20)).astype(np.uint8)
    many = rng.dirichlet(np.ones(1000), 600)
    cases = [(table, None, None)]
    cases += [(table, rng.standard_normal((600, 1)), None), (image, None, None), (table, many, table @ table[:5].T)]
    cases.append((rng.standard_normal((600, 40)), rng.dirichlet(np.ones(3), 600), rng.standard_normal((600, 64))))
    for inputs, outputs, inner in cases:
        profile = ReferenceProfile.from_bytes(build_reference(inputs, outputs, inner, seed=1).to_bytes())
        assert 3 <= len(profile.probes) <= 32
        assert (profile.count(inputs, outputs, inner)[:, :11].sum(axis=1) == len(inputs)).all()
        assert len({probe.name for probe in profile.probes}) == len(profile.probes)


def test_extreme_numbers_still_make_a_profile():
    """Huge, tiny, constant and missing columns give a profile that decodes and counts every row."""
    rng = np.random.default_rng(0)
    columns = [rng.standard_normal(300) * scale for scale in (1e300, 1e-200, 0.0, 1e25)] + [np.full(300, np.nan)]
    x = np.stack(columns, axis=1)
    for inputs in (x, x[:, 1:3], x[:, :1], x[:, 2:3], np.zeros((300, 4), dtype=bool)):
        profile = ReferenceProfile.from_bytes(build_reference(inputs, seed=1).to_bytes())
        assert (profile.count(inputs)[:, :11].sum(axis=1) == 300).all()


def test_folding_averages_every_number_once():
    """A long row is averaged over runs of neighbours, the last run being shorter."""
    rows = np.arange(2 * 300, dtype=np.float32).reshape(2, 300)
    folded = fold(rows)
    assert folded.shape == (2, 100)
    assert np.allclose(folded[0, :2], [1, 4])


def test_what_cannot_be_a_number_is_counted_as_missing():
    """A NaN makes the probes that read it missing and leaves the rest."""
    reference = digits_reference()
    x = draw(np.random.default_rng(0), 4)
    y, inner = answer(x)
    x[1, 0, 0] = np.nan
    counts = reference.count(x, y, inner)
    by_source = {probe.source: int(row[10]) for probe, row in zip(reference.probes, counts, strict=True)}
    assert by_source == {"input": 1, "penultimate": 0, "output": 0}


def test_wrong_batches_are_refused():
    """Shapes that are not the profile's, and too few reference rows, are the caller's mistake."""
    reference = digits_reference()
    x = draw(np.random.default_rng(0), 4)
    y, inner = answer(x)
    for arguments in ((x[:, :7], y, inner), (x, y[:3], inner), (x, y), (x, None, inner)):
        with pytest.raises(Misuse):
            reference.count(*arguments)
    with pytest.raises(Misuse) as caught:
        build_reference(x, seed=0)
    assert caught.value.reason == "reference-too-small"
