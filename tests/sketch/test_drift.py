"""The scan: what it promises without drift, what it finds with drift, and controls that must fail."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgeops.sketch.build import build_reference
from edgeops.sketch.drift import learn_dispersion, looks_in, scan, scan_many
from edgeops.sketch.probes import stride_for
from edgeops.sketch.tail import benjamini_hochberg, chi2_sf
from edgeops.sketch.twosample import directions, effect_sizes, pool, two_sample
from edgeops.wire.errors import Misuse

from .streams import STEADY, Stream, answer, count, digits_reference, draw

REFERENCES, PER_REFERENCE, LOOKS, ROWS, ALPHA = 5, 40, 64, 50, 0.2


@cache
def healthy():
    """200 undrifted devices, 64 windows of 50 fresh rows each, spread over five independently drawn references."""
    devices = []
    for r in range(REFERENCES):
        reference = digits_reference(r, 3000)
        for d in range(PER_REFERENCE):
            rng = np.random.default_rng((r, d))
            stream = Stream(reference)
            for _ in range(LOOKS // 8):
                x = draw(rng, 8 * ROWS)
                values = reference.values(x, *answer(x))
                for i in range(8):
                    stream.add(reference.count_values(values[i * ROWS : (i + 1) * ROWS]))
            devices.append(stream)
    return devices


def most_false(devices=REFERENCES * PER_REFERENCE):
    """The number of falsely alarmed devices that a detector keeping ALPHA exceeds once in a thousand times."""
    return int(stats.binom.ppf(0.999, devices, ALPHA))


def alarmed_devices(detector, references=REFERENCES, step=1):
    """How many devices `detector(windows of many devices, reference)` alarms on in any look (every `step`-th of 64)."""
    alarmed = 0
    for r in range(references):
        group = healthy()[r * PER_REFERENCE : (r + 1) * PER_REFERENCE]
        ever = np.zeros(PER_REFERENCE, dtype=bool)
        for look in range(1, LOOKS + 1, step):
            ever |= detector([stream.windows[:look] for stream in group], group[0].reference)
        alarmed += int(ever.sum())
    return alarmed


def test_undrifted_devices_stay_within_the_promised_false_alarms(tell):
    """200 devices, 64 overlapping looks each: devices alarmed at least once are at most alpha of them, up to chance."""
    alarmed = alarmed_devices(lambda devices, ref: [v.alarm for v in scan_many(devices, ref, alpha=ALPHA, looks=LOOKS)])
    tell(f"scan: {alarmed} of 200 undrifted devices alarmed in 64 looks (promised at most {ALPHA:.0%} in expectation)")
    assert alarmed <= most_false()


def test_controls_that_must_break_the_same_bound_do(tell):
    """PSI > 0.2 and a scan that forgets its 64 looks alarm on undrifted devices more often than the bound allows."""

    def folklore(devices, ref):
        live = np.stack([windows[-1].tally.probes[:, :10] for windows in devices]).astype(float)
        q, p = ((side + 0.5) / (side.sum(-1, keepdims=True) + 5) for side in (live, ref.counts[:, :10]))
        return (((q - p) * np.log(q / p)).sum(-1) > 0.2).any(axis=1)

    psi = alarmed_devices(folklore, 2, 4)
    forgetful = alarmed_devices(lambda devices, ref: [v.alarm for v in scan_many(devices, ref, alpha=0.9, looks=1)], 2, 4)
    tell(f"controls: PSI > 0.2 alarmed on {psi} of 80, level 0.9 at every look on {forgetful}")
    assert min(psi, forgetful) > most_false(80)


def test_single_looks_keep_their_level(tell):
    """3,200 first-scale p-values, corrected for one look: the share at or below 5 % and 50 % is not above that, up to chance."""
    p_values = []
    for r in range(REFERENCES):
        group = healthy()[r * PER_REFERENCE : (r + 1) * PER_REFERENCE]
        p_values += [v.p_value for v in scan_many([[w] for s in group for w in s.windows[::4]], group[0].reference, looks=1)]
    share = {level: float(np.mean(np.array(p_values) <= level)) for level in (0.05, 0.5)}
    tell(f"share of single looks at or below: {share}")
    assert all(rate <= level + 4 * np.sqrt(level / len(p_values)) for level, rate in share.items())


def test_a_darkened_and_shifted_camera_is_found_at_once():
    """Digits at 85 % brightness, moved by a pixel: default alpha, first window, and it says what and which way."""
    stream = Stream(digits_reference())
    stream.add(count(stream.reference, draw(np.random.default_rng(1), 100, dark=0.85, shift=1)))
    verdict = scan(stream.windows, stream.reference)
    assert verdict.alarm
    assert (verdict.scale, verdict.n) == (1, 100)
    assert verdict.probes[0].effect > 0.5
    dark = next(f for f in verdict.probes if f.probe.kind == "input-mean")
    assert dark.direction < -0.3


def test_longer_scales_find_what_one_window_cannot(tell):
    """Digits 3 % darker: no single window of 100 alarms, merged windows do within 64."""
    stream = Stream(digits_reference())
    rng = np.random.default_rng(2)
    first = 0
    for look in range(1, 65):
        stream.add(count(stream.reference, draw(rng, 100, dark=0.97)))
        assert not scan(stream.windows[-1:], stream.reference).alarm
        first = first or (look if scan(stream.windows, stream.reference).alarm else 0)
    tell(f"3 % darker found after {first} windows of 100")
    assert 4 <= first <= 64


def gaussian(rng, rows, mixing):
    """Rows with standard normal marginals and correlations mixing @ mixing.T."""
    return rng.standard_normal((rows, mixing.shape[1])) @ mixing.T


def mixing(seed):
    """A random mixing matrix (16, 16) with unit rows."""
    m = np.random.default_rng(seed).standard_normal((16, 16)) + 2 * np.eye(16)
    return m / np.linalg.norm(m, axis=1, keepdims=True)


def test_changed_correlations_are_found_though_no_feature_changed():
    """Same marginals, new correlations: the whitened projections alarm in the first window, the features never do."""
    rng = np.random.default_rng(3)
    reference = build_reference(gaussian(rng, 5000, mixing(0)), seed=0)
    stream = Stream(reference)
    for _ in range(4):
        stream.add(reference.count(gaussian(rng, 100, mixing(1))))
    assert scan(stream.windows[:1], reference).alarm
    findings = scan(stream.windows, reference, top=32).probes
    assert findings[0].probe.kind in ("projection", "mahalanobis", "pca-residual")
    assert min(f.p_value for f in findings if f.probe.kind == "feature") > 1e-4


def test_faulty_sensors_are_named():
    """A stuck-high input is `above` or a shape, NaNs are `missing`; ten rows of 100 suffice."""
    rng = np.random.default_rng(4)
    reference = build_reference(rng.standard_normal((5000, 4)), seed=0, feature_names=("a", "b", "c", "d"))
    for value, cause in ((9.0, "above"), (-9.0, "below"), (np.nan, "missing")):
        x = rng.standard_normal((100, 4))
        x[:10, 2] = value
        stream = Stream(reference)
        stream.add(reference.count(x))
        verdict = scan(stream.windows, reference)
        assert verdict.alarm
        named = next(f for f in scan(stream.windows, reference, top=32).probes if f.probe.name == "c")
        assert (named.cause, named.p_value < 1e-10) == (cause, True)


def test_too_little_is_not_tested():
    """No windows, empty windows and windows of 49 rows give no alarm and p 1; four of them together are tested."""
    reference = digits_reference()
    stream = Stream(reference)
    rng = np.random.default_rng(5)
    assert scan([], reference).p_value == 1.0
    for _ in range(4):
        stream.add(count(reference, draw(rng, 49, dark=0.3)))
    assert (scan(stream.windows[:1], reference).p_value, scan(stream.windows[:1], reference).probes) == (1.0, ())
    assert scan(stream.windows, reference).alarm
    assert scan_many([[], stream.windows], reference)[1] == scan(stream.windows, reference)


def test_scanning_what_does_not_belong_is_refused():
    """Windows of another profile, and a level that is none."""
    stream = Stream(digits_reference(0))
    stream.add(count(stream.reference, draw(np.random.default_rng(0), 60)))
    for arguments in ((digits_reference(1), 1.0, 1), (stream.reference, 0.0, 1), (stream.reference, 1.0, 0)):
        with pytest.raises(Misuse):
            scan(stream.windows, *arguments)
    assert looks_in(30 * 86_400, 60) == 43_200


def test_a_canary_baseline_forgives_a_device_that_always_differed():
    """A camera 5 % darker alarms against training, not against its own healthy start; 30 % darker alarms against both."""
    reference = digits_reference()
    rng = np.random.default_rng(6)
    baseline = count(reference, draw(rng, 4000, dark=0.95))
    same, worse = Stream(reference), Stream(reference)
    for _ in range(16):
        same.add(count(reference, draw(rng, 100, dark=0.95)))
        worse.add(count(reference, draw(rng, 100, dark=0.70)))
    assert scan(same.windows, reference).alarm
    assert not scan(same.windows, reference, baseline=baseline).alarm
    assert scan(worse.windows, reference, baseline=baseline).alarm


def correlated(rng, rows, rho):
    """An AR(1) stream (rows, 4) with standard normal marginals."""
    x = rng.standard_normal((rows, 4))
    for i in range(1, rows):
        x[i] = rho * x[i - 1] + np.sqrt(1 - rho**2) * x[i]
    return x


def test_dispersion_and_stride_tame_rows_that_resemble_each_other(tell):
    """AR(1), rho 0.9, 100 rows a window at 5 %: plain scan alarms on most windows, with stride 10 and dispersion on few."""
    rng = np.random.default_rng(7)
    reference = build_reference(rng.standard_normal((5000, 4)), seed=0)
    assert stride_for(reference.values(correlated(rng, 2000, 0.9))) == 10
    assert stride_for(reference.values(correlated(rng, 2000, 0.0))) == 1
    rates = {}
    for stride in (1, 10):
        rows = correlated(rng, 160 * 100 * stride, 0.9)[::stride]
        stream = Stream(reference)
        for i in range(160):
            stream.add(reference.count(rows[i * 100 : i * 100 + 100]))
        learned = learn_dispersion(stream.windows[:60], reference) if stride > 1 else None
        looks = scan_many([[w] for w in stream.windows[60:]], reference, 0.05, 1, dispersion=learned)
        rates[stride] = float(np.mean([v.alarm for v in looks]))
    tell(f"AR(1) rho 0.9 at a nominal 5 %: plain {rates[1]:.0%}, stride 10 and dispersion {rates[10]:.0%}")
    assert rates[1] > 0.5
    assert rates[10] <= 0.10
    with pytest.raises(Misuse):
        learn_dispersion(stream.windows[:29], reference)


def test_false_discoveries_across_a_fleet_are_rare_and_drifted_devices_found():
    """40 healthy and 10 drifted devices, 16 windows, Benjamini-Hochberg at 5 %: all drifted found, at most two others."""
    reference = digits_reference(0, 3000)
    devices = [stream.windows[:16] for stream in healthy()[:40]]
    for d in range(10):
        rng = np.random.default_rng((9, d))
        stream = Stream(reference)
        for _ in range(16):
            stream.add(count(reference, draw(rng, ROWS, dark=0.9)))
        devices.append(stream.windows)
    chosen = benjamini_hochberg([v.p_value for v in scan_many(devices, reference)])
    assert chosen[40:].all()
    assert chosen[:40].sum() <= 2


@pytest.mark.parametrize(("n", "m", "uneven"), [(50, 3000, False), (100, 5000, False), (100, 5000, True), (6400, 3000, False)])
def test_the_statistic_keeps_its_tail(n, m, uneven):
    """200,000 null tables: at 1 % and 0.1 % the smaller of X2 and G is not above nominal (+ 4 sigma) nor below a quarter of it."""
    rng = np.random.default_rng(8)
    p = np.array([0.55, 0.2, 0.1, 0.06, 0.04, 0.02, 0.01, 0.01, 0.005, 0.005]) if uneven else np.full(10, 0.1)
    size = 200_000
    live, reference = (rng.multinomial(k, p, size=size).astype(float) for k in (n, m))
    statistic, dof = two_sample(pool(live, reference, np.full(size, uneven)))
    p_values = chi2_sf(statistic, dof)
    for level in (1e-2, 1e-3):
        rate = float((p_values <= level).mean())
        assert level / 4 <= rate <= level + 4 * np.sqrt(level / size)


@settings(STEADY, max_examples=60)
@given(*(st.lists(st.integers(0, most), min_size=10, max_size=10) for most in (400, 4000)), st.booleans())
def test_pooling_loses_no_row_and_agrees_with_scipy(live, reference, nominal):
    """Every cell expects 5 rows or more on both sides, sums stay, X2 or G is scipy's, whichever is smaller."""
    a, b = np.array([live], dtype=float), np.array([reference], dtype=float)
    cells = pool(a, b, np.array([nominal]))
    assert (cells.live.sum(), cells.reference.sum()) == (a.sum(), b.sum())
    statistic, dof = two_sample(cells)
    k = int(cells.cells[0])
    if k < 2:
        assert (statistic[0], dof[0]) == (0.0, 0)
        return
    table = np.stack([cells.live[0, :k], cells.reference[0, :k]])
    pearson, ratio = (stats.chi2_contingency(table, correction=False, lambda_=name) for name in ("pearson", "log-likelihood"))
    assert pearson.expected_freq.min() >= 5 - 1e-9
    assert statistic[0] == pytest.approx(min(pearson.statistic, ratio.statistic), abs=1e-7, rel=1e-9)
    assert dof[0] == pearson.dof


def test_effect_is_zero_on_average_without_drift_and_direction_has_a_sign():
    """PSI loses its bias at n = 100; a stream moved up has a positive direction, reversed a negative one."""
    rng = np.random.default_rng(9)
    live, reference = (rng.multinomial(k, np.full(10, 0.1), size=4000).astype(float) for k in (200, 5000))
    assert abs(effect_sizes(pool(live, reference, np.zeros(4000, dtype=bool))).mean()) < 0.005
    up = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 50, 50.0]])
    assert directions(up, reference[:1])[0] == pytest.approx(-directions(up[:, ::-1], reference[:1, ::-1])[0])
    assert directions(up, reference[:1])[0] > 0.75
