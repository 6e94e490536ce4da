"""The drift scan: has the traffic of one device left its reference? Two-sample tests on merged windows of 1, 4, 16 and 64.

What is guaranteed. One `scan` is one look. With the level alpha / looks a look, spread by Bonferroni over probes x scales x 2
tests, the expected number of false alarms in `looks` looks is at most `alpha`, and so the chance of any is at most min(1, alpha).
The union bound needs no independence: looks may share windows, scales nest, probes may say the same thing.
The defaults, alpha 1 and 43,200 looks, mean at most one false warning per device in 30 days of one-minute windows.

On what conditions. (1) Live and reference rows are exchangeable when nothing drifted; consecutive rows that resemble each
other break that, so use the device's stride and a `Dispersion` learned from canaries. (2) The guarantee is an average over draws of
the reference: one unlucky reference warns on many devices at once. (3) The chi-square tail holds: the statistic is the smaller of
Pearson's X2 and the likelihood ratio G on cells that expect at least 5 rows, measured conservative down to p = 3e-6 (ten equal
bins, n 50 to 6,400, own run of 3 million draws each; tests/sketch repeats it to 1e-3); the range and missing tests are exact.
Further out alpha is nominal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeops.sketch.probes import ABOVE, BELOW, BINS, MISSING, Counts, Floats, Probe
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.tail import chi2_sf, excess_p
from edgeops.sketch.twosample import directions, effect_sizes, pool, two_sample
from edgeops.sketch.window import SketchWindow
from edgeops.wire.errors import Misuse

SCALES = (1, 4, 16, 64)
CAUSES = ("shape", "above", "below", "missing")
DEFAULT_ALPHA = 1.0
DEFAULT_LOOKS = 43_200
MIN_ROWS = 50
"""A merged window with fewer rows is not tested."""


@dataclass(frozen=True, slots=True, eq=False)
class Dispersion:
    """How much more X2 varies on healthy windows than chi-square says, per probe (P,): X2 is like scale * chi2(dof / shape).

    Satterthwaite's approximation: with measured mean u * dof and variance v * 2 * dof, shape = v / u**2 and scale = u * shape, both
    at least 1. Learn it from canary windows with `learn_dispersion`.
    """

    scale: Floats
    shape: Floats


@dataclass(frozen=True, slots=True)
class Finding:
    """One probe at its worst scale: p_value is its own, before any correction.

    effect is PSI minus its bias (B-1)(1/n+1/m) for B cells, so 0 means no change at any n. direction in -1..1 is the chance that a
    live value exceeds a reference value minus the reverse (Cliff's delta), 0 for classes.
    cause: "shape", "above" (beyond the largest ever seen), "below" or "missing".
    """

    probe: Probe
    scale: int
    n: int
    cause: str
    p_value: float
    statistic: float
    dof: int
    effect: float
    direction: float


@dataclass(frozen=True, slots=True)
class DriftVerdict:
    """The outcome of one look: `alarm` is p_value <= threshold.

    p_value is corrected for probes, scales and tests of this look, and ready for Benjamini-Hochberg across devices; threshold is
    alpha / looks. scale: windows merged in the strongest finding, 0 if nothing could be tested; n its rows. probes: worst first.
    """

    alarm: bool
    p_value: float
    threshold: float
    scale: int
    n: int
    probes: tuple[Finding, ...]


def looks_in(horizon_s: float, period_s: float) -> int:
    """How many looks a horizon holds when a scan runs after each window of `period_s` seconds."""
    if not (horizon_s > 0 and period_s > 0):
        raise Misuse("horizon-range", "horizon and period are positive seconds")
    return max(1, int(np.ceil(horizon_s / period_s)))


def scan(
    windows: Sequence[SketchWindow],
    reference: ReferenceProfile,
    alpha: float = DEFAULT_ALPHA,
    looks: int = DEFAULT_LOOKS,
    *,
    baseline: Counts | None = None,
    dispersion: Dispersion | None = None,
    top: int = 5,
) -> DriftVerdict:
    """Take one look at a device: `windows` in time order, oldest first, the last 64 count.

    alpha: false alarms allowed in expectation over `looks` looks (see the module). baseline (P, 13) replaces the reference's
    counts, to compare with healthy canary windows instead of the training reference. Windows that binned no rows are passed over.
    Raises `Misuse("profile-mismatch")` when a window was counted with another profile, `Misuse("alpha-range")`.
    """
    return scan_many([windows], reference, alpha, looks, baseline=baseline, dispersion=dispersion, top=top)[0]


def scan_many(
    devices: Sequence[Sequence[SketchWindow]],
    reference: ReferenceProfile,
    alpha: float = DEFAULT_ALPHA,
    looks: int = DEFAULT_LOOKS,
    *,
    baseline: Counts | None = None,
    dispersion: Dispersion | None = None,
    top: int = 5,
) -> list[DriftVerdict]:
    """`scan` for many devices of one release at once, one verdict each; alpha and looks are those of a single device."""
    if not (alpha > 0 and looks >= 1):
        raise Misuse("alpha-range", f"alpha must be positive and looks at least 1, not {alpha} and {looks}")
    base = reference.counts if baseline is None else baseline
    if base.shape != reference.counts.shape:
        raise Misuse("profile-mismatch", f"the baseline is {base.shape}, the profile needs {reference.counts.shape}")
    if not len(base) or not devices:
        return [DriftVerdict(False, 1.0, alpha / looks, 0, 0, ()) for _ in devices]
    live = np.stack([_merged(windows, reference) for windows in devices])
    return _Look(live, base, reference.probes, dispersion).verdicts(alpha / looks, top)


def _merged(windows: Sequence[SketchWindow], reference: ReferenceProfile) -> Counts:
    """Counts of the last 1, 4, 16 and 64 windows, (S, P, 13); zero where there are too few windows or rows to test."""
    if any(window.profile != reference.hash8 for window in windows):
        raise Misuse("profile-mismatch", "a window was counted with another profile; scan it with its own reference")
    recent = [window.tally.probes for window in windows if window.tally.n][-max(SCALES) :]
    merged = np.zeros((len(SCALES), *reference.counts.shape), dtype=np.int64)
    if any(counts.shape != reference.counts.shape for counts in recent):
        raise Misuse("profile-mismatch", "a window has another number of probes than its profile; drop it")
    for i, scale in enumerate(SCALES):
        if scale <= len(recent):
            merged[i] = np.sum(recent[-scale:], axis=0)
            if merged[i, 0, : MISSING + 1].sum() < MIN_ROWS:
                merged[i] = 0
    return merged


class _Look:
    """All comparisons of one look: D devices x S scales x P probes, flattened to rows where a test wants rows."""

    def __init__(self, live: Counts, base: Counts, probes: tuple[Probe, ...], dispersion: Dispersion | None) -> None:
        d, s, p = self.shape = live.shape[:3]
        self.live, self.probes = live, probes
        nominal = np.array([probe.kind == "class" for probe in probes])
        rows = live[..., :BINS].reshape(-1, BINS).astype(np.float64)
        base_rows = np.broadcast_to(base[:, :BINS], (d * s, p, BINS)).reshape(-1, BINS).astype(np.float64)
        cells = pool(rows, base_rows, np.tile(nominal, d * s))
        statistic, dof = two_sample(cells)
        scale = np.tile(dispersion.scale, d * s) if dispersion else np.ones(d * s * p)
        shape = np.tile(dispersion.shape, d * s) if dispersion else np.ones(d * s * p)
        shape_p = chi2_sf(statistic / scale, dof / shape).reshape(live.shape[:3])
        tails = _tails(live, base, (scale * shape).reshape(live.shape[:3]))
        every = np.stack([shape_p, *tails])
        self.cause = every.argmin(axis=0)
        self.p = every.min(axis=0)
        self.sizes = live[..., : MISSING + 1].sum(axis=-1)
        self.statistic, self.dof = statistic.reshape(self.shape), dof.reshape(self.shape)
        self.effect = effect_sizes(cells).reshape(self.shape)
        self.direction = np.where(nominal, 0.0, directions(rows, base_rows).reshape(self.shape))

    def verdicts(self, threshold: float, top: int) -> list[DriftVerdict]:
        """One verdict per device, Bonferroni over probes x scales that have enough rows x 2 tests."""
        d, _, p = self.shape
        derived = np.broadcast_to([probe.kind != "feature" for probe in self.probes], (d, p))
        order = np.lexsort((-self.statistic.max(axis=1), derived, self.p.min(axis=1)), axis=-1)[:, : max(1, top)]
        return [self._verdict(i, order[i].tolist(), threshold) for i in range(d)]

    def _verdict(self, device: int, order: list[int], threshold: float) -> DriftVerdict:
        scales = int((self.sizes[device, :, 0] > 0).sum())
        if not scales:
            return DriftVerdict(False, 1.0, threshold, 0, 0, ())
        family = scales * len(self.probes) * 2
        findings = tuple(self._finding(device, j) for j in order)
        best = findings[0]
        p_value = min(1.0, best.p_value * family)
        return DriftVerdict(p_value <= threshold, p_value, threshold, best.scale, best.n, findings)

    def _finding(self, device: int, probe: int) -> Finding:
        scale = int(np.where(self.sizes[device, :, probe] > 0, self.p[device, :, probe], 2.0).argmin())
        at = device, scale, probe
        return Finding(
            self.probes[probe], SCALES[scale], int(self.sizes[at]), CAUSES[int(self.cause[at])], float(self.p[at]),
            float(self.statistic[at]), int(self.dof[at]), float(self.effect[at]), float(self.direction[at]),
        )  # fmt: skip


def _tails(live: Counts, base: Counts, inflation: Floats) -> list[Floats]:
    """Exact one-sided p of more rows above, below or missing, times 3 for the three of them; each (D, S, P).

    Correlated rows are counted as `inflation` times fewer.
    """
    n = np.floor(live[..., : MISSING + 1].sum(axis=-1) / inflation)
    m = np.broadcast_to(base[:, : MISSING + 1].sum(axis=-1), n.shape)
    return [
        np.minimum(1.0, 3.0 * excess_p(np.floor(live[..., column] / inflation), n, np.broadcast_to(base[:, column], n.shape), m))
        for column in (ABOVE, BELOW, MISSING)
    ]


def learn_dispersion(windows: Sequence[SketchWindow], reference: ReferenceProfile) -> Dispersion:
    """Learn a `Dispersion` from healthy windows of one device or cohort; each window is compared with all others together.

    Needs 30 windows of 50 rows or more (100 are better), else `Misuse("too-few-windows")`.
    """
    stack = [window.tally.probes for window in windows if window.tally.n >= MIN_ROWS]
    if len(stack) < 30:
        raise Misuse("too-few-windows", f"{len(stack)} healthy windows of {MIN_ROWS} rows are too few to learn from; wait for 30")
    table = np.stack(stack)[:, :, :BINS].astype(np.float64)
    s, p = table.shape[:2]
    others = table.sum(axis=0, keepdims=True) - table
    nominal = np.tile(np.array([probe.kind == "class" for probe in reference.probes]), s)
    statistic, dof = two_sample(pool(table.reshape(-1, BINS), others.reshape(-1, BINS), nominal))
    degrees = np.maximum(dof.reshape(s, p), 1)
    x = statistic.reshape(s, p)
    u = np.maximum((x / degrees).mean(axis=0), 1e-9)
    v = (x / np.sqrt(2.0 * degrees)).var(axis=0, ddof=1)
    shape = np.maximum(v / u**2, 1.0)
    return Dispersion(np.maximum(u * shape, 1.0), shape)
