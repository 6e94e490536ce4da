"""Varints and a strict reader: the bytes all records of this room are made of."""

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Rejected

VARINT_LIMIT = 1 << 63
"""Varints hold 0 <= value < 2**63."""


def put_varint(out: bytearray, value: int) -> None:
    """Append `value` (0 <= value < 2**63) as a little-endian base-128 varint (LEB128), in its shortest form."""
    if not 0 <= value < VARINT_LIMIT:
        raise ValueError(f"a varint holds 0..2**63-1, not {value}")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_bytes(out: bytearray, data: bytes) -> None:
    """Append a varint length and the bytes themselves."""
    put_varint(out, len(data))
    out += data


class Reader:
    """Reads a record once, front to back; anything odd raises `Rejected(reason, ...)`."""

    __slots__ = ("_at", "_data", "_reason")

    def __init__(self, data: bytes, reason: str) -> None:
        self._data = data
        self._at = 0
        self._reason = reason

    def reject(self, what: str) -> Rejected:
        """The error to raise for `what` is wrong here."""
        return Rejected(self._reason, f"{what} (near byte {self._at} of {len(self._data)}); send the record again as encoded")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise self.reject(f"record ends {end - len(self._data)} bytes early")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def varint(self, limit: int = VARINT_LIMIT) -> int:
        """The next varint, below `limit` and in its shortest form."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 56:
                raise self.reject("varint longer than 9 bytes")
        if shift and byte == 0:
            raise self.reject("varint not in its shortest form")
        if value >= limit:
            raise self.reject(f"value {value} not below {limit}")
        return value

    def block(self, limit: int) -> bytes:
        """The next length-prefixed bytes, at most `limit` of them."""
        return self.take(self.varint(limit + 1))

    def floats(self, dtype: str, *shape: int) -> npt.NDArray[np.floating]:
        """The next little-endian floats (`dtype` "<f4" or "<f2") as an array of `shape`; all must be finite."""
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype).reshape(shape)
        if not np.isfinite(array).all():
            raise self.reject("a number is not finite")
        return array

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise self.reject(f"{len(self._data) - self._at} bytes left over")
