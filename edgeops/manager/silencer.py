"""Proving that a device is out. A revocation is done when the broker has been seen to act on it, not when it has been told.

Two visits to the broker show it. A certificate made for this and put on the very list that names the device's must be refused as
revoked: so the list in force is the new one. Then a good certificate of the device's own name must be let in: a client id has one
session, so whatever session the name had is over, and the broker still lets good certificates in.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from edgeops.broker import RunningBroker
from edgeops.broker.knock import Answer, Visitor, knock
from edgeops.store import audit, rows
from edgeops.store.tables import devices, revocations
from edgeops.wire.errors import EdgeopsError, Unreachable

from . import pki
from .credential import write_passwords
from .hub import Hub
from .revoke import DAY_S, OUT, shut_out, write_crl

_LOG = logging.getLogger("edgeops.manager")
ENDED = ("revoked", "decommissioned")
PATIENCE_S = 10.0
AGAIN_S, MOST_AGAIN_S = 1.0, 30.0
VISITOR, VISIT_S = "visit.manager", 600  # a visitor's certificate need not outlive its visit
UNSUPPORTED = "somebody else runs this broker: reload its revocation list and end the session there"


@dataclass(slots=True)
class Case:
    """A device to be silenced, since when, and what is still missing. `tried` is set after each attempt."""

    device: str
    since: float
    missing: str = "the broker has not answered yet"
    took_ms: int | None = None
    tried: threading.Event = field(default_factory=threading.Event)

    def view(self) -> dict[str, Any]:
        """What API and CLI say of it."""
        silenced = self.took_ms is not None
        return {"silenced": silenced, "silenced_ms": self.took_ms, "missing": "" if silenced else self.missing}


class Silencer:
    """Tells the broker who is out and tries until each has been shown to be; `names` are those told last."""

    def __init__(self, hub: Hub, broker: Callable[[], RunningBroker], host: str, loud: Callable[[], Collection[str]]) -> None:
        self._hub, self._broker, self._host, self._loud = hub, broker, host, loud
        self._telling, self._waiting = threading.Lock(), threading.Condition()
        self._cases: dict[str, Case] = {}
        self._asked = 0
        self._stopping = False
        self._lapses: int | None = None
        self.names: frozenset[str] = frozenset()

    def ask(self, names: Iterable[str]) -> list[Case]:
        """Begin with these devices; returns at once. What is being tried right now does not count for them."""
        with self._waiting:
            found = [self._cases.setdefault(name, Case(name, time.monotonic())) for name in names]
            for case in found:
                case.tried.clear()
            self._asked += len(found)
            self._waiting.notify_all()
        return found

    def silence(self, device: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Silence one device and say what became of the attempt; what is not shown goes on being tried."""
        [case] = self.ask([device])
        case.tried.wait(patience_s)
        return case.view()

    def tell(self) -> None:
        """Bring lists, passwords and names to the broker as they are now; raises Unreachable("broker-reload")."""
        with self._telling:
            names = frozenset({*shut_out(self._hub), *self._loud()})
            self._lapses = write_passwords(self._hub)
            self._broker().reload(names)
            self.names = names

    def look(self) -> None:
        """Find out who has fallen out by himself (a clone, a flood), who may speak again, and which passwords have ended."""
        before, out, loud = self.names, shut_out(self._hub), self._loud()
        if before != {*out, *loud} or (self._lapses is not None and self._lapses <= self._hub.now()):
            self.tell()
            # Whoever has ended a device has asked for it.
            self.ask({name for name in (*out, *loud) if out.get(name) not in ENDED} - before)

    def resume(self) -> None:
        """Take up what an earlier life of this manager began and did not see through."""
        self.tell()
        with self._hub.store.read() as tx:
            found = [row["id"] for status in ENDED for row in rows.find(tx, devices, status=status, silenced_at=None)]
        self.ask(found)

    def run(self) -> None:
        """Work until `close`."""
        again = AGAIN_S
        while True:
            with self._waiting:
                self._waiting.wait_for(lambda: self._stopping or self._cases)
                if self._stopping:
                    return
                cases, self._cases, asked = self._cases, {}, self._asked
            left = self._attempt(cases.values())
            again = min(MOST_AGAIN_S, 2 * again) if left else AGAIN_S
            with self._waiting:
                self._cases = {case.device: case for case in left} | self._cases
                if left:
                    # Somebody new is not made to wait for what fails with others.
                    self._waiting.wait_for(lambda asked=asked: self._stopping or self._asked != asked, again)  # type: ignore[misc]

    def close(self) -> None:
        """End `run`."""
        with self._waiting:
            self._stopping = True
            self._waiting.notify_all()

    def _attempt(self, cases: Iterable[Case]) -> list[Case]:
        """Try once; those it could not be shown for."""
        left, problem = [], self._problem(self._prove_list)
        for case in cases:
            why = problem or self._problem(lambda case=case: self._end_session(case.device))  # type: ignore[misc]
            why = why or self._problem(lambda case=case: self._shown(case))  # type: ignore[misc]
            if why:
                if why != case.missing:
                    _LOG.warning("device %s is not yet shown to be out: %s", case.device, why)
                case.missing = why
                left.append(case)
            case.tried.set()
        return left

    def _problem(self, step: Callable[[], None]) -> str:
        """What a step failed with, empty if it did not."""
        try:
            step()
        except EdgeopsError as error:
            return error.message
        except Exception as error:
            _LOG.exception("silencing failed")
            return f"the manager met an error of its own ({type(error).__name__}); its log says more"
        return ""

    def _prove_list(self) -> None:
        """The broker refuses what only the newest list names; raises Unreachable("not-silenced")."""
        if not self._broker().can_silence:
            raise Unreachable("not-silenced", UNSUPPORTED)
        now = self._hub.now()
        # No device can have such a name, and the broker never hears it: it ends in the handshake.
        made = [pki.make_client(ca, VISITOR, now, VISIT_S / DAY_S) for ca in self._hub.papers.authority.welcome]
        with self._hub.store.write() as tx:
            # Whichever list names this one is made after all revocations we were asked about.
            for pair in made:
                serial = f"{pair.certificate.serial_number:x}"
                rows.add(tx, revocations, serial=serial, device=VISITOR, at=now, expires=now + VISIT_S)
        write_crl(self._hub)
        self.tell()
        for pair in made:
            # The built-in broker hangs up without a word: that it did so for the list, the good certificate shows that follows.
            if self._visit(VISITOR, pair) not in ("revoked", "closed"):
                text = "the broker took a certificate that is on the newest revocation list, so the list in force is an older one"
                raise Unreachable("not-silenced", text)

    def _end_session(self, device: str) -> None:
        """Take the device's place for a moment; raises Unreachable("not-silenced")."""
        pair = pki.make_client(self._hub.issuer, device, self._hub.now(), VISIT_S / DAY_S)
        answer = self._visit(device, pair)
        # A broker that refuses names has ended the session before it refuses (see `RunningBroker.reload`).
        if answer != "accepted" and not (answer == "refused" and device in self.names):
            text = f"the broker did not let a good certificate in ({answer}), so the session of {device} may go on"
            raise Unreachable("not-silenced", text)

    def _visit(self, name: str, pair: pki.Pair) -> Answer:
        visitor = Visitor(name, pair.certificate_pem, pair.key_pem)
        return knock(self._host, self._broker().port, self._hub.layout.certificate("ca"), visitor)

    def _shown(self, case: Case) -> None:
        took_ms, now = round((time.monotonic() - case.since) * 1000), self._hub.now()
        with self._hub.store.write() as tx:
            row = rows.get(tx, devices, id=case.device)
            if row is not None and row["status"] in OUT:
                if row["status"] in ENDED:
                    rows.change(tx, devices, {"id": case.device}, silenced_at=now)
                text = f"after {took_ms} ms: its session is over, what is revoked is refused"
                audit.write(tx, now, "manager", "device-silenced", case.device, text)
        case.took_ms = took_ms
