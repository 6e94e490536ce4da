"""The reference profile a release carries: what its traffic looked like when it was made, and how to look at new traffic.

Bytes, edgeops.reference.v1: magic, dimensions, probes, edges, counts, class bins, spaces; varints and little-endian floats, one
encoding per profile. `hash8` names the profile in every window.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgeops.sketch.octets import Reader, put_bytes, put_varint
from edgeops.sketch.probes import (
    ABOVE,
    BELOW,
    BINS,
    COLUMNS,
    FOLD,
    KINDS,
    MAX_PROBES,
    MISSING,
    SOURCES,
    Counts,
    Floats,
    Probe,
    Space,
    as_rows,
    binned,
    edge_energy,
)
from edgeops.wire.errors import Misuse

MAGIC = b"EORP\x01"
MAX_BYTES = 262_144
_MAX_CLASSES = 65_536
_MAX_RANK = 8
_MAX_SIZE = 1 << 31
_REASON = "reference-malformed"


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceProfile:
    """What a device needs to bin its traffic and a manager to judge it.

    shape: one input row without the batch axis; outputs: numbers per output row (0: outputs are not looked at);
    edges (P, 9), low (P,), high (P,) float32; counts (P, 13) int64, the reference rows counted like live ones;
    class_bins (k,) uint8 and class_counts (k,) int64, empty without classes; spaces of the input and the penultimate layer;
    hash8: the first 8 bytes of the SHA-256 of the bytes. Arrays are not to be changed after construction.
    """

    shape: tuple[int, ...]
    outputs: int
    probes: tuple[Probe, ...]
    edges: npt.NDArray[np.floating]
    low: npt.NDArray[np.floating]
    high: npt.NDArray[np.floating]
    counts: Counts
    class_bins: npt.NDArray[np.uint8]
    class_counts: Counts
    input_space: Space | None
    penultimate_space: Space | None
    hash8: bytes = field(init=False)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """m: reference rows behind each probe, (P,)."""
        return np.asarray(self.counts[:, : MISSING + 1].sum(axis=1))

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash8", hashlib.sha256(self.to_bytes()).digest()[:8])

    def values(
        self,
        inputs: npt.NDArray[np.generic],
        outputs: npt.NDArray[np.generic] | None = None,
        penultimate: npt.NDArray[np.generic] | None = None,
    ) -> Floats:
        """Every probe of every row as float64 (n, P); what cannot be computed is NaN.

        inputs (n, *shape), outputs (n, k) or None if the profile has no output probes, penultimate (n, d) likewise, any real dtype.
        Raises `Misuse("batch-malformed")` when the shapes are not the profile's.
        """
        if inputs.shape[1:] != self.shape:
            raise Misuse("batch-malformed", f"inputs are {inputs.shape}, the profile was made for (n, {self.shape})")
        columns = _Columns(self, inputs, outputs, penultimate)
        table = np.empty((inputs.shape[0], len(self.probes)))
        with np.errstate(all="ignore"):
            for j, probe in enumerate(self.probes):
                table[:, j] = columns.of(probe)
        return table

    def count(
        self,
        inputs: npt.NDArray[np.generic],
        outputs: npt.NDArray[np.generic] | None = None,
        penultimate: npt.NDArray[np.generic] | None = None,
    ) -> Counts:
        """Count a batch: (P, 13) int64, see `probes`; arguments and errors as for `values`."""
        return self.count_values(self.values(inputs, outputs, penultimate))

    def count_values(self, values: Floats) -> Counts:
        """Count probe values (n, P) that `values` computed."""
        return binned(values, self.edges, self.low, self.high)

    def to_bytes(self) -> bytes:
        """The profile as canonical bytes, about 3 to 20 KB."""
        out = bytearray(MAGIC)
        put_varint(out, len(self.shape))
        for length in (*self.shape, self.outputs, len(self.probes)):
            put_varint(out, length)
        for probe in self.probes:
            out += bytes((KINDS.index(probe.kind), SOURCES.index(probe.source)))
            put_varint(out, probe.index)
            put_bytes(out, probe.name.encode())
        for array in (self.edges, self.low, self.high):
            out += array.astype("<f4").tobytes()
        for number in self.counts.ravel():
            put_varint(out, int(number))
        put_bytes(out, self.class_bins.tobytes())
        for number in self.class_counts:
            put_varint(out, int(number))
        for space in (self.input_space, self.penultimate_space):
            _put_space(out, space)
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ReferenceProfile":
        """The inverse of `to_bytes`, strict; raises `Rejected("reference-malformed")` on anything else."""
        reader = Reader(data, _REASON)
        if len(data) > MAX_BYTES or reader.take(len(MAGIC)) != MAGIC:
            raise reader.reject("not an edgeops.reference.v1 profile of at most 256 KB")
        shape = tuple(reader.varint(_MAX_SIZE) for _ in range(reader.varint(_MAX_RANK + 1)))
        outputs = reader.varint(_MAX_SIZE)
        size = int(np.prod(shape, dtype=np.float64))
        if not 0 < size < _MAX_SIZE:
            raise reader.reject(f"input shape {shape} holds nothing or too much")
        probes = tuple(_read_probe(reader) for _ in range(reader.varint(MAX_PROBES + 1)))
        p = len(probes)
        edges, low, high = reader.floats("<f4", p, BINS - 1), reader.floats("<f4", p), reader.floats("<f4", p)
        counts = np.array([reader.varint() for _ in range(p * COLUMNS)], dtype=np.int64).reshape(p, COLUMNS)
        class_bins = np.frombuffer(reader.block(_MAX_CLASSES), dtype=np.uint8)
        class_counts = np.array([reader.varint() for _ in range(class_bins.size)], dtype=np.int64)
        spaces = _read_space(reader), _read_space(reader)
        reader.end()
        profile = cls(shape, outputs, probes, edges, low, high, counts, class_bins, class_counts, *spaces)
        wrong = _inconsistency(profile, size)
        if wrong:
            raise reader.reject(wrong)
        return profile


class _Columns:
    """Computes probe columns of one batch, each space once."""

    def __init__(
        self,
        profile: ReferenceProfile,
        inputs: npt.NDArray[np.generic],
        outputs: npt.NDArray[np.generic] | None,
        penultimate: npt.NDArray[np.generic] | None,
    ) -> None:
        self._profile = profile
        self._inputs = inputs
        self._flat = as_rows(inputs, "inputs")
        self._outputs = self._checked(outputs, "outputs", profile.outputs)
        space = profile.penultimate_space
        self._penultimate = self._checked(penultimate, "penultimate", space.size if space else 0)
        self._looks: dict[str, tuple[Floats, Floats, Floats]] = {}

    def _checked(self, array: npt.NDArray[np.generic] | None, what: str, size: int) -> Floats:
        if not size:
            return np.zeros((len(self._flat), 0))
        if array is None:
            raise Misuse("batch-malformed", f"this profile needs {what} of {size} numbers a row; pass them")
        rows = as_rows(array, what)
        if rows.shape != (len(self._flat), size):
            raise Misuse("batch-malformed", f"{what} are {array.shape}, the profile needs ({len(self._flat)}, {size})")
        return rows.astype(np.float64)

    def of(self, probe: Probe) -> Floats:
        """One column, (n,)."""
        if probe.source == "output":
            return self._output(probe)
        if probe.kind in ("projection", "mahalanobis", "pca-residual"):
            projections, norm, residual = self._look(probe.source)
            return {"projection": projections[:, probe.index % max(1, projections.shape[1])], "mahalanobis": norm}.get(
                probe.kind, residual
            )
        if probe.kind == "feature":
            return self._flat[:, probe.index].astype(np.float64)
        if probe.kind == "input-mean":
            return np.asarray(self._flat.mean(axis=1, dtype=np.float64))
        if probe.kind == "input-std":
            return np.asarray(self._flat.std(axis=1, dtype=np.float64))
        return edge_energy(self._inputs)

    def _look(self, source: str) -> tuple[Floats, Floats, Floats]:
        if source not in self._looks:
            p = self._profile
            space, rows = (p.input_space, self._flat) if source == "input" else (p.penultimate_space, self._penultimate)
            assert space is not None
            self._looks[source] = space.look(rows)
        return self._looks[source]

    def _output(self, probe: Probe) -> Floats:
        rows = self._outputs
        if probe.kind == "output":
            return np.asarray(rows[:, probe.index])
        if probe.kind == "confidence":
            return np.asarray(rows.max(axis=1))
        bins = self._profile.class_bins[rows.argmax(axis=1)].astype(np.float64)
        return np.where(np.isfinite(rows).all(axis=1), bins, np.nan)


def _inconsistency(profile: ReferenceProfile, size: int) -> str:
    """What contradicts itself in a decoded profile, or nothing."""
    spaces = {"input": profile.input_space, "penultimate": profile.penultimate_space}
    if profile.input_space and profile.input_space.size != size:
        return "input space and input shape disagree"
    if (profile.edges[:, 1:] < profile.edges[:, :-1]).any() or (profile.low > profile.high).any():
        return "edges or range out of order"
    counts = profile.counts
    if (counts[:, BELOW] > counts[:, 0]).any() or (counts[:, ABOVE] > counts[:, BINS - 1]).any() or (profile.rows < 1).any():
        return "reference counts contradict each other"
    if profile.class_bins.size not in (0, profile.outputs) or (profile.class_bins >= BINS).any():
        return "class bins and outputs disagree"
    for probe in profile.probes:
        if not _limit(probe, profile, size, spaces) > probe.index:
            return f"probe {probe.name!r} looks at what is not there"
    return ""


def _limit(probe: Probe, profile: ReferenceProfile, size: int, spaces: dict[str, Space | None]) -> int:
    """How many columns the probe's kind and source offer; 0 when the combination does not exist."""
    if probe.source == "output":
        return {"output": profile.outputs, "confidence": min(1, profile.outputs), "class": min(1, profile.class_bins.size)}.get(
            probe.kind, 0
        )
    if probe.kind in ("projection", "mahalanobis", "pca-residual"):
        space = spaces[probe.source]
        return 0 if space is None else (space.directions.shape[1] if probe.kind == "projection" else 1)
    if probe.source != "input":
        return 0
    return {"feature": size, "input-mean": 1, "input-std": 1, "input-edge": 1}.get(probe.kind, 0)


def _read_probe(reader: Reader) -> Probe:
    kind, source = reader.take(2)
    if kind >= len(KINDS) or source >= len(SOURCES):
        raise reader.reject("unknown probe kind or source")
    index = reader.varint(_MAX_SIZE)
    try:
        name = reader.block(128).decode()
    except UnicodeDecodeError as error:
        raise reader.reject("a probe name is not UTF-8") from error
    return Probe(name, KINDS[kind], SOURCES[source], index)


def _put_space(out: bytearray, space: Space | None) -> None:
    put_varint(out, space.size if space else 0)
    if space:
        put_varint(out, space.directions.shape[1])
        put_varint(out, space.basis.shape[1])
        for array, dtype in ((space.mean, "<f4"), (space.directions, "<f2"), (space.basis, "<f2"), (space.spread, "<f4")):
            out += array.astype(dtype).tobytes()


def _read_space(reader: Reader) -> Space | None:
    size = reader.varint(_MAX_SIZE)
    if not size:
        return None
    width = size if size <= FOLD else -(-size // -(-size // FOLD))
    k, r = reader.varint(width + 1), reader.varint(width + 1)
    mean, directions = reader.floats("<f4", width), reader.floats("<f2", width, k)
    basis, spread = reader.floats("<f2", width, r), reader.floats("<f4", r)
    if (spread <= 0).any():
        raise reader.reject("a spread is not positive")
    return Space(size, mean, directions, basis, spread)
