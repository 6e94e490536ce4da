"""When to try again: full jitter, and a connection counts as good only after it has lasted. Pure."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays grow from `base_s` to `cap_s`; the growth is forgotten only after a connection lived `stable_s` seconds.

    Full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS 2015): uniform between 0 and the current ceiling. Without the
    stable time, a server that accepts and then kicks would be hammered at `base_s` for ever.
    """

    base_s: float = 0.5
    cap_s: float = 60.0
    stable_s: float = 30.0
    failures: int = 0

    def after(self, lived_s: float, chance: float) -> tuple["Backoff", float]:
        """The next state and the delay in seconds, after a connection that lived `lived_s`; `chance` is uniform in [0, 1)."""
        failures = 0 if lived_s >= self.stable_s else min(self.failures, 30)
        ceiling = min(self.cap_s, self.base_s * 2.0**failures)
        return replace(self, failures=failures + 1), chance * ceiling
