"""How often one address may be wrong: a bucket for each, that fills with time. No clock and no I/O: both come in as values."""

from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from threading import Lock

from edgeops.wire.errors import Unreachable

MOST_KEYS = 4096


class TooMany(Unreachable):
    """Somebody asked too often; `retry_s` is when to ask again."""

    def __init__(self, retry_s: float) -> None:
        self.retry_s = max(1, int(retry_s) + 1)
        super().__init__("too-many", f"too many wrong requests from this address; wait {self.retry_s} s and ask again")


@dataclass(slots=True)
class Limiter:
    """At most `most` at once and `most` in each `span_s` from then on, for each key; of the keys the last used are kept."""

    most: int
    span_s: float
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until `key` has one left, 0 if it has; takes none. `now` is any clock that only goes forward."""
        with self._lock:
            return self._wait(self._level(key, now))

    def take(self, key: str, now: float) -> None:
        """Take one of `key`; raises TooMany when none is left."""
        with self._lock:
            level = self._level(key, now)
            if wait := self._wait(level):
                raise TooMany(wait)
            self._buckets[key] = (level - 1, now)
            self._buckets.move_to_end(key)
            while len(self._buckets) > MOST_KEYS:
                self._buckets.popitem(last=False)

    def _level(self, key: str, now: float) -> float:
        level, at = self._buckets.get(key, (float(self.most), now))
        return min(self.most, level + max(0.0, now - at) * self.most / self.span_s)

    def _wait(self, level: float) -> float:
        # A little less than one is one: a sum of many small steps of time.
        return 0.0 if level > 1 - 1e-6 else (1 - level) * self.span_s / self.most


def neighbourhood(host: str) -> str:
    """Whom to count together: an IPv4 address, or the /64 that any IPv6 host has to itself; "" for no address."""
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)
