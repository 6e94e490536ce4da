"""What keeps a device within reach without anybody visiting it: certificates renewed in time, roots and sites followed when lost.

All of it goes over HTTPS, in a thread of its own, one errand at a time and less and less often while it is in vain. Documents that
prove themselves (roots, sites) are fetched without holding the server's dates against it: a time once signed too late must not
keep out the very root that takes it back.
"""

import functools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from edgeops.wire.errors import EdgeopsError, Rejected, Unreachable
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops.wire.root import Site
from edgeops.wire.trust import current_root

from ..core.record import Record
from . import https, renewal
from .clock import Clock
from .credentials import keep_pair, read_pair
from .identity import Paths
from .journal import Sparing
from .reach import Way, https_ways

FIRST_S, MOST_S, APART_S = 5.0, 3600.0, 600.0
REFUSALS = 3
Fetch = Callable[[Way, str, str, bytes | None, int | None], tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Renewed:
    """A new pair lies on disk; connect with it."""


@dataclass(frozen=True, slots=True)
class Found:
    """Roots and sites that the manager's HTTPS side has for us, unverified, in the order to be read."""

    documents: tuple[tuple[str, bytes], ...]


class Errand(Protocol):
    """What is carried out beside the loop."""

    def is_alive(self) -> bool:
        """Whether it goes on."""


def in_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Carry out `work` in a thread that nobody waits for at the end."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


class Door(Protocol):
    """What the link tells of its tries."""

    connected: bool
    refused: int
    expired: bool


@dataclass(frozen=True, slots=True)
class Bearings:
    """Where the device stands when an errand begins: what it trusts, its readable sites.

    `renew` is the number of its request for a new certificate, 0 when none is due.
    """

    record: Record
    sites: tuple[Site, ...]
    renew: int


class Upkeep:
    """Looks now and then whether an errand is due. `post` takes Renewed and Found, in the errand's thread.

    `number` gives a number greater than all before, or raises an EdgeopsError.
    """

    def __init__(
        self, paths: Paths, signer: Signer, clock: Clock, post: Callable[[object], None],
        number: Callable[[], int], fetch: Fetch = https.fetch, now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random, aside: Callable[[str, Callable[[], None]], Errand] = in_thread,
    ) -> None:  # fmt: skip
        self._paths, self._signer, self._clock, self._post, self._fetch, self._now = paths, signer, clock, post, fetch, now
        self._number, self._chance, self._aside, self._log = number, chance, aside, Sparing(now=now)
        self._errand: Errand | None = None
        self._wait, self._again = FIRST_S, 0.0
        self._together = now()
        self._lost = False
        self._renew_at = self._next_renewal()

    def _next_renewal(self) -> int:
        pair = read_pair(self._paths)
        return pair.renew_at if pair else 0

    def lost(self) -> None:
        """Documents were refused for their dates, epoch or key: ask whether there is a newer root."""
        self._lost = True

    def look(self, record: Record, sites: Callable[[], tuple[Site, ...]], door: Door) -> None:
        """Begin an errand if one is due and none is under way."""
        now = self._now()
        if door.connected:
            if now - self._together > FIRST_S:  # it was gone for a while
                self._wait, self._again = FIRST_S, 0.0
            self._together = now
        if (self._errand and self._errand.is_alive()) or now < self._again:
            return
        if why := self._why(door):
            self._log.say("upkeep", f"{why}: asking the manager over HTTPS", "info", why)
            self._plan(self._wait)
            self._wait = min(2 * self._wait, MOST_S)
            renew, self._lost = self._due_number(door), False
            self._errand = self._aside("upkeep", functools.partial(self.run, Bearings(record, sites(), renew)))

    def _why(self, door: Door) -> str:
        """What an errand is due for, empty for none."""
        if self._is_due(door):
            return "a new certificate is due"
        if self._lost:
            return "documents look as if a newer root was missed"
        if door.expired and not door.connected:
            return "the broker's certificate has ended by a time that was signed"
        return "nothing was heard of the manager for long" if self._now() - self._together > APART_S else ""

    def _is_due(self, door: Door) -> bool:
        if not self._renew_at or (door.refused >= REFUSALS and not door.connected):
            return True
        # Before a time was signed in this boot only the wall knows; it is asked when nothing else can be.
        certain = self._clock.sure or self._now() - self._together > APART_S
        return certain and self._clock.now() >= self._renew_at

    def _due_number(self, door: Door) -> int:
        """A number for a request that is due. A disk that refuses to put one aside keeps it from that only."""
        try:
            return self._number() if self._is_due(door) else 0
        except EdgeopsError as error:
            self._log.say("upkeep", f"no certificate can be asked for: {error}", kind=error.reason, reason=error.reason)
            return 0

    def _plan(self, seconds: float) -> None:
        self._again = self._now() + seconds * (0.5 + self._chance() / 2)

    def run(self, bearings: Bearings) -> None:
        """One errand, in this thread: follow the documents, then renew if that is due. Never raises."""
        try:
            if found := self._follow(bearings):
                self._post(Found(found))
                self._plan(FIRST_S)
            if bearings.renew:
                self._renew(bearings)
        except EdgeopsError as error:
            self._log.say("upkeep", str(error), kind=error.reason, reason=error.reason)

    def _follow(self, bearings: Bearings) -> tuple[tuple[str, bytes], ...]:
        """What the first endpoint has for us that has anything: one that says no, or `[]`, must not hide what another one has."""
        trust = bearings.record.trust
        # A site file may be lost; and after a root that replaced the site keys the sites held say nothing about what is newest.
        held = min(trust.site_version, max((site.version for site in bearings.sites), default=0))
        after = {"root": current_root(trust).version, "site": held}
        for way in https_ways(bearings.sites):
            try:
                if found := tuple((kind, data) for kind, number in after.items() for data in self._newer(way, kind, number)):
                    return found
            except (Unreachable, Rejected) as error:
                self._log.say("upkeep", str(error), kind=error.reason, reason=error.reason)
        return ()

    def _newer(self, way: Way, kind: str, after: int) -> list[bytes]:
        """Documents of a kind newer than `after`; the dates of whoever gives them do not matter. Nothing else is taken."""
        status, data = self._fetch(way, "GET", f"/api/v1/documents/{kind}?after={after}", None, None)
        return [one for name, one in Bundle.decode(data).documents if name == kind] if status == 200 else []

    def _renew(self, bearings: Bearings) -> None:
        trust, key = bearings.record.trust, ec.generate_private_key(ec.SECP256R1())
        status, answer = self._first_answer(bearings.sites, renewal.request(trust, self._signer, key, bearings.renew))
        pair = renewal.read_answer(status, answer, key, trust, bearings.sites)
        keep_pair(self._paths, pair)
        self._renew_at = pair.renew_at
        self._post(Renewed())
        until = f"{pair.certificate.not_valid_after_utc:%Y-%m-%d}"
        self._log.say("renewal", f"the certificate was renewed, until {until}", "info", until=until)
        if isinstance(answer.get("site"), str):
            self._post(Found((("site", answer["site"].encode()),)))

    def _first_answer(self, sites: tuple[Site, ...], body: bytes) -> tuple[int, dict[str, Any]]:
        last = Unreachable("no-endpoint", "no site document is left that says where the manager is; put one at site.json")
        for way in https_ways(sites):
            try:
                status, data = self._fetch(way, "POST", renewal.PATH, body, self._clock.least())
                return status, https.read_object(way, data)
            except Unreachable as error:
                last = error
        raise last
