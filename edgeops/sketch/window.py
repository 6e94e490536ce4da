"""The wire record edgeops.sketch.v1: what one device saw in one stretch of time, as counts; and sets of such records.

A record says what is new since the one before (a delta), is named by (boot, seq), and never holds an input. Merging a set twice,
in any order, or with holes gives the same set. Bytes: version, packing, then fixed and varint fields, zlib'd when that is shorter.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from edgeops.sketch.latency import LatencyHistogram
from edgeops.sketch.octets import Reader, put_varint
from edgeops.sketch.probes import ABOVE, BELOW, BINS, COLUMNS, MAX_PROBES, MISSING, Counts
from edgeops.wire.errors import Misuse

VERSION = 1
MAX_BYTES = 2_048
_MAX_PLAIN = 16_384
_REASON = "sketch-malformed"


def no_counts() -> Counts:
    """The counts of a device that has no profile: (0, 13)."""
    return np.zeros((0, COLUMNS), dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What adds up: `n` rows binned, calls answered or failed, errors, rows that did not fit (invalid) or found the buffer full
    (dropped), probe counts (P, 13) int64, latency in us."""

    n: int = 0
    calls: int = 0
    errors: int = 0
    invalid: int = 0
    dropped: int = 0
    probes: Counts = field(default_factory=no_counts)
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)

    def merge(self, other: "Tally") -> "Tally":
        """Both together, exactly; raises `Misuse("profile-mismatch")` when the probes differ in number."""
        if self.probes.shape != other.probes.shape:
            raise Misuse("profile-mismatch", f"{len(self.probes)} and {len(other.probes)} probes do not add; use one profile")
        return Tally(
            self.n + other.n, self.calls + other.calls, self.errors + other.errors, self.invalid + other.invalid,
            self.dropped + other.dropped, self.probes + other.probes, self.latency.merge(other.latency),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class SketchWindow:
    """One delta: model and profile hash prefixes (8 B each), boot (16 B, new for each run of the recorder), seq from 0,
    start in ms since 1970, duration in ms, stride (every stride-th call was binned), and the tally."""

    model: bytes
    profile: bytes
    boot: bytes
    seq: int
    start_ms: int
    duration_ms: int
    stride: int
    tally: Tally

    @property
    def key(self) -> tuple[bytes, int]:
        """What makes a window the same window: (boot, seq)."""
        return self.boot, self.seq

    def plain(self) -> bytes:
        """The record without its two leading bytes and without compression."""
        if len(self.model) != 8 or len(self.profile) != 8 or len(self.boot) != 16:
            raise Misuse("sketch-field", "model and profile prefixes are 8 bytes and boot is 16; cut them to size")
        t = self.tally
        out = bytearray(self.model + self.profile + self.boot)
        header = (self.seq, self.start_ms, self.duration_ms, self.stride)
        for number in (*header, t.n, t.calls, t.errors, t.invalid, t.dropped, len(t.probes)):
            put_varint(out, number)
        for number in t.probes.ravel().tolist():
            put_varint(out, number)
        t.latency.write(out)
        return bytes(out)

    def to_bytes(self) -> bytes:
        """The record, at most 2,048 B; raises `Misuse("sketch-too-large")` beyond (more than about 2 million rows in a window)."""
        plain = self.plain()
        packed = zlib.compress(plain, 9)
        data = bytes((VERSION, 1)) + packed if len(packed) < len(plain) else bytes((VERSION, 0)) + plain
        if len(data) > MAX_BYTES:
            raise Misuse("sketch-too-large", f"a window takes {len(data)} of at most {MAX_BYTES} bytes; flush more often")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "SketchWindow":
        """The inverse of `to_bytes`, strict; raises `Rejected("sketch-malformed")` on anything else."""
        outer = Reader(data, _REASON)
        version, packing = outer.take(2)
        if version != VERSION or packing > 1 or len(data) > MAX_BYTES:
            raise outer.reject(f"not an edgeops.sketch.v1 record of at most {MAX_BYTES} bytes")
        reader = Reader(_unpacked(outer, data[2:]) if packing else data[2:], _REASON)
        model, profile, boot = reader.take(8), reader.take(8), reader.take(16)
        seq, start, duration = reader.varint(), reader.varint(), reader.varint()
        stride = reader.varint(1 << 16)
        n, calls, errors, invalid, dropped = (reader.varint() for _ in range(5))
        p = reader.varint(MAX_PROBES + 1)
        probes = np.array([reader.varint() for _ in range(p * COLUMNS)], dtype=np.int64).reshape(p, COLUMNS)
        latency = LatencyHistogram.read(reader)
        reader.end()
        wrong = _inconsistency(probes, n, stride)
        if wrong:
            raise reader.reject(wrong)
        return cls(model, profile, boot, seq, start, duration, stride, Tally(n, calls, errors, invalid, dropped, probes, latency))


def _unpacked(outer: Reader, packed: bytes) -> bytes:
    """Decompress at most 16 KB; the stream must end exactly where the record does."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, _MAX_PLAIN)
    except zlib.error as error:
        raise outer.reject(f"compressed part is damaged: {error}") from error
    if not stream.eof or stream.unused_data:
        raise outer.reject("compressed part is cut short, too long, or followed by more")
    return plain


def _inconsistency(probes: Counts, n: int, stride: int) -> str:
    """What contradicts itself in decoded counts, or nothing. Python integers, so that no sum wraps around."""
    if stride < 1:
        return "stride is 0"
    for row in probes.tolist():
        if sum(row[: MISSING + 1]) != n:
            return "a probe's counts do not add up to n"
        if row[BELOW] > row[0] or row[ABOVE] > row[BINS - 1]:
            return "more rows beyond the range than in the outermost bin"
    return ""


def merge_tallies(windows: Iterable[SketchWindow]) -> Tally:
    """The tallies of all windows together; windows must share one profile, else `Misuse("profile-mismatch")`."""
    total: Tally | None = None
    profile = b""
    for window in windows:
        if total is None:
            total, profile = window.tally, window.profile
        elif window.profile != profile:
            raise Misuse("profile-mismatch", "windows of two profiles do not add; merge one profile at a time")
        else:
            total = total.merge(window.tally)
    return total or Tally()


@dataclass(frozen=True, slots=True)
class WindowSet:
    """Windows by (boot, seq). `merge` is associative, commutative and idempotent, so duplicates, reordering and gaps are harmless.

    Should two windows with one key differ (a faulty device), the one whose bytes are larger is kept, whoever came first.
    """

    windows: tuple[SketchWindow, ...] = ()

    @classmethod
    def of(cls, windows: Iterable[SketchWindow]) -> "WindowSet":
        """The set of these windows, in time order: runs by their earliest start, within a run by seq."""
        kept: dict[tuple[bytes, int], SketchWindow] = {}
        for window in windows:
            rival = kept.get(window.key)
            if rival is None or (rival is not window and rival.plain() < window.plain()):
                kept[window.key] = window
        first: dict[bytes, int] = {}
        for window in kept.values():
            first[window.boot] = min(first.get(window.boot, window.start_ms), window.start_ms)
        return cls(tuple(sorted(kept.values(), key=lambda w: (first[w.boot], w.boot, w.seq))))

    def merge(self, other: "WindowSet") -> "WindowSet":
        """Both sets together."""
        return WindowSet.of((*self.windows, *other.windows))

    def latest(self, count: int) -> tuple[SketchWindow, ...]:
        """The last `count` windows, oldest first."""
        return self.windows[-count:] if count > 0 else ()

    @property
    def gaps(self) -> int:
        """How many windows are missing between the first and the last of each run."""
        seqs: dict[bytes, list[int]] = {}
        for window in self.windows:
            seqs.setdefault(window.boot, []).append(window.seq)
        return sum(max(run) - min(run) + 1 - len(run) for run in seqs.values())

    def tally(self) -> Tally:
        """All windows together, each once."""
        return merge_tallies(self.windows)
