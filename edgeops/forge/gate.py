"""The gates a variant must pass to be signed, each rejection with its reason."""

from dataclasses import dataclass

from .evaluate import Latency, Quality
from .quantize import COMPUTE, PLAIN

ORDER = ("int8", "store_i8", "fp32")


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits; shares are 0..1. Drop, speed and size are against fp32; speed is asked of compute variants only.

    `min_accuracy` (None: no floor) holds for fp32 too.
    """

    max_drop: float = 0.005
    min_agreement: float = 0.99
    min_accuracy: float | None = None
    min_sqnr_db: float = 30.0
    min_speed: float = 1.10
    max_size: float = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is a stable word (`pass` when it passed), `detail` one line for people."""

    passed: bool
    reason: str
    detail: str


def judge(kind: str, quality: Quality, latency: Latency, size_ratio: float, gates: Gates) -> Verdict:
    """The verdict on a variant of `kind` (plain, compute, storage); `size_ratio` = its bytes / bytes of fp32.

    Reasons: accuracy-floor, accuracy-drop, inconclusive, agreement, sqnr, not-smaller, slower, timing-unclear.
    """
    found = _floor(quality, gates)
    if found is None and kind != PLAIN:
        found = _loss(kind, quality, gates) or _gain(kind, latency, size_ratio, gates)
    if found:
        return Verdict(False, *found)
    few = kind != PLAIN and quality.drop_high is not None and quality.drop_high > gates.max_drop
    return Verdict(True, "pass", "few samples: the bound of the drop is above the limit, fp32 arithmetic is trusted" if few else "")


def _floor(quality: Quality, gates: Gates) -> tuple[str, str] | None:
    if gates.min_accuracy is not None and quality.accuracy is not None and quality.accuracy < gates.min_accuracy:
        return "accuracy-floor", f"accuracy {quality.accuracy:.4f} is below the floor {gates.min_accuracy:.4f}"
    return None


def _loss(kind: str, quality: Quality, gates: Gates) -> tuple[str, str] | None:
    points, limit = 100, 100 * gates.max_drop
    if quality.agreement is None:
        if quality.sqnr_db < gates.min_sqnr_db:
            return "sqnr", f"signal to noise {quality.sqnr_db:.1f} dB is below {gates.min_sqnr_db:.1f} dB"
        return None
    if quality.drop is not None and quality.drop > gates.max_drop:
        return "accuracy-drop", f"loses {quality.drop * points:.2f} points of accuracy, {limit:.2f} are allowed"
    if quality.agreement < gates.min_agreement:
        return "agreement", f"gives fp32's answer in {quality.agreement:.4f} of rows, {gates.min_agreement:.4f} are required"
    if kind == COMPUTE and quality.drop_high is not None and quality.drop_high > gates.max_drop:
        bound = f"{quality.drop_high * points:.2f} points ({limit:.2f} allowed)"
        return "inconclusive", f"may lose up to {bound} as far as {quality.n} rows can tell; give more evaluation rows"
    return None


def _gain(kind: str, latency: Latency, size_ratio: float, gates: Gates) -> tuple[str, str] | None:
    if size_ratio > gates.max_size:
        return "not-smaller", f"is {size_ratio:.2f} of the size of fp32, {gates.max_size:.2f} is the limit"
    if kind != COMPUTE:
        return None
    if latency.ratio < gates.min_speed:
        return "slower", f"runs at {latency.ratio:.2f} times the speed of fp32, {gates.min_speed:.2f} is required"
    if not latency.steady and latency.ratio_low < gates.min_speed:
        spread = f"{latency.ratio_low:.2f} to {latency.ratio_high:.2f}"
        return "timing-unclear", f"speed varies from {spread} times fp32; use a quieter machine"
    return None
