"""A device's trust through its life, on a simulated disk and against a real manager's rules: enrolled, renewed, rotated, moved.

What a device has once acknowledged (a call that returned, a thing it told others) it must still have after any power cut, and it
must come to the end of its life by itself however often it is cut.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import event

from edgeops.manager import enrol, register
from edgeops.manager.hub import Hub, open_hub
from edgeops.manager.layout import Layout
from edgeops.manager.register import Wanted
from edgeops.manager.setup import load_signer
from edgeops.manager.site import read_site
from edgeops.wire.desired import Desired, Floor, SignedTime, SlotWish
from edgeops.wire.envelope import seal
from edgeops.wire.errors import EdgeopsError
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops.wire.trust import Capabilities, Trust, current_root
from edgeops_agent.shell import clock as clocks
from edgeops_agent.shell import enrolment
from edgeops_agent.shell.credentials import join_files, read_pair
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.documents import Documents
from edgeops_agent.shell.identity import Paths
from edgeops_agent.shell.identity import load_signer as load_identity
from edgeops_agent.shell.intake import Intake
from edgeops_agent.shell.journal import Sparing
from edgeops_agent.shell.ledger import Ledger
from edgeops_agent.shell.reach import Way, https_ways, mqtt_ways, read_sites
from edgeops_agent.shell.upkeep import Bearings, Renewed, Upkeep

from ..manager.house import Clock, new_manager
from .cache import SimDisk
from .desk import Violation
from .power import FATES, Power, PowerCut

DEVICE = Capabilities("x86-vnni", (1, 32))
ROOT = Path("/state")


@dataclass
class Office:
    """The manager's side: a hub without network, and the keys that sign what devices are sent."""

    hub: Hub
    clock: Clock
    keys: dict[str, Signer] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        layout = Layout(self.hub.layout.root)
        self.keys = {role: load_signer(layout.key(role)) for role in ("root", "site", "release", "online")}
        root, site = self.hub.root, read_site(self.hub.site_document)
        self.roots = [
            seal("root", dataclasses.replace(root, version=number, epoch=epoch).payload(), [self.keys["root"]])
            for number, epoch in ((2, 0), (3, 1))
        ]
        moved = dataclasses.replace(site, version=2, mqtt=("mqtts://moved:1",), https=("https://moved:1",))
        self.site = seal("site", moved.payload(), [self.keys["site"]])

    def token(self) -> str:
        """A new device's enrolment token."""
        made = register.register(self.hub, "me", f"pi-{next(self.numbers)}", Wanted({}))
        return str(made["token"])

    def fetch(self, way: Way, method: str, path: str, body: bytes | None, least: int | None) -> tuple[int, bytes]:
        """The HTTPS side."""
        if method == "GET" or body is None:
            return 200, Bundle(()).encode()
        answer = enrol.renew(self.hub, body)
        return 201, json.dumps(answer).encode()

    def redeem(self, request: bytes) -> dict[str, object]:
        """POST /enroll."""
        return enrol.redeem(self.hub, request)

    def desired(self, device: str, counter: int, epoch: int) -> bytes:
        """An order to hold nothing."""
        now = self.hub.now()
        wish = {"main": SlotWish("none", rollout="r1")}
        document = Desired(self.hub.settings.fleet, device, 1, epoch, counter, now, now + 9999, wish)
        return seal("desired", document.payload(), [self.keys["online"]])

    def floor(self, version: int) -> bytes:
        """A floor."""
        document = Floor(self.hub.settings.fleet, version, {"m": version})
        return seal("floor", document.payload(), [self.keys["release"]])

    def time(self, device: str, nonce: str, epoch: int) -> bytes:
        """The answer to a birth, a second later than the one before."""
        self.clock.now += 1
        signed = SignedTime(self.hub.settings.fleet, device, nonce, self.hub.now(), epoch, 0)
        return seal("time", signed.payload(), [self.keys["online"]])


def marks(trust: Trust) -> dict[str, tuple[int, ...]]:
    """What must never go back."""
    root = current_root(trust)
    return {
        "incarnation": (trust.incarnation,), "root": (root.version,), "site": (trust.site_version,),
        "floor": (trust.floor_version, trust.floors.get("m", 0)), "counter": (root.epoch, trust.counter),
        "time floor": (root.epoch, trust.time_floor),
    }  # fmt: skip


@dataclass
class Life:
    """One device, from its token to the end, over as many power cuts as come."""

    office: Office
    token: str
    disk: SimDisk = field(default_factory=SimDisk)
    acknowledged: dict[str, tuple[int, ...]] = field(default_factory=dict)
    serials: list[int] = field(default_factory=list)
    renewals: int = 0
    cuts: int = 0
    calls: dict[str, int] = field(default_factory=dict)

    def live(self, power: Power) -> None:
        """From whatever is on disk to the end of the story; raises PowerCut, Violation."""
        folder, self.calls = StateFolder(ROOT, power.files), {"enrol": power.calls}
        try:
            if not folder.is_enrolled():
                enrolment.enroll(self.token, ROOT, files=power.files)
            self.note()
            self._run(folder, power)
            self.calls["end"] = power.calls
        except EdgeopsError as error:
            raise Violation(f"cannot go on: {error}") from error
        finally:
            folder.release()

    def _run(self, folder: StateFolder, power: Power) -> None:
        """Start as the supervisor does, then take what is sent until nothing is missing."""
        self.calls["start"] = power.calls
        folder.claim()
        folder.prepare()
        paths = Paths(ROOT, power.files)
        join_files(paths)
        ledger, log = Ledger(folder), Sparing(lambda _: None)
        clock = clocks.Clock(ledger.record.trust.time_floor, lambda: float(self.office.hub.now()))
        intake = Intake(
            folder, ledger, Documents(folder, ledger.record, log), clock, DEVICE, log, ledger.store,
            lambda: self._told("sites", folder.load().sites == ledger.record.sites), lambda: None, os.urandom,
        )  # fmt: skip
        intake.begin()
        upkeep = Upkeep(paths, load_identity(paths), clock, self._posted, ledger.report_number, self.office.fetch)
        device, sure = ledger.record.trust.device, lambda: self._take(intake, "time", ledger.record.trust.device)
        sure()
        self.calls["renew"] = power.calls
        if self.renewals == 0:
            upkeep.run(Bearings(ledger.record, intake.sites(), ledger.report_number()))
        for number in (1, 2):
            self._need(intake, ledger, "desired", number, lambda: (ledger.record.trust.counter, 0), device)
            self._need(intake, ledger, "floor", number, lambda: (ledger.record.trust.floor_version, 0), device)
        self.calls["move"] = power.calls
        self._need(intake, ledger, "site", 2, lambda: (ledger.record.trust.site_version, 0), device)
        sure()
        for number in (2, 3):
            self._need(intake, ledger, "root", number, lambda: (current_root(ledger.record.trust).version, 0), device)
        sure()
        self._need(intake, ledger, "desired", 1, lambda: (ledger.record.trust.counter, 1), device)

    def _need(
        self, intake: Intake, ledger: Ledger, kind: str, number: int, has: Callable[[], tuple[int, int]], device: str
    ) -> None:
        """Send it unless the device has it; it must have it then."""
        version, epoch = has()
        now = current_root(ledger.record.trust).epoch
        if version >= number or (kind == "desired" and now > epoch):
            return
        self._take(intake, kind, device, number)
        if has()[0] < number:
            raise Violation(f"{kind} {number} was not taken: {dict(ledger.record.counters)}")

    def _take(self, intake: Intake, kind: str, device: str, number: int = 0) -> None:
        trust = intake._ledger.record.trust
        epoch, office = current_root(trust).epoch, self.office
        data = {
            "desired": lambda: office.desired(device, number, epoch), "floor": lambda: office.floor(number),
            "site": lambda: office.site, "root": lambda: office.roots[number - 2],
            "time": lambda: office.time(device, intake.ask(), epoch),
        }[kind]()  # fmt: skip
        intake.take(Bundle(((kind, data),)), trust.site_version)
        self.note()

    def _posted(self, event: object) -> None:
        if isinstance(event, Renewed):
            self.renewals += 1
            pair = read_pair(Paths(ROOT, self.disk))
            self._told("pair", pair is not None)
            self.serials += [pair.certificate.serial_number] if pair else []

    def _told(self, what: str, holds: bool) -> None:
        if not holds:
            raise Violation(f"{what} was acted upon before it was on disk")

    def note(self) -> None:
        """What is on disk now has been acknowledged."""
        self.acknowledged = self.check()

    def check(self) -> dict[str, tuple[int, ...]]:
        """What the device must have after any cut: a record not behind, its identity, a pair that fits, a way to its manager."""
        folder, paths = StateFolder(ROOT, self.disk), Paths(ROOT, self.disk)
        if not folder.is_enrolled():
            if self.acknowledged:
                raise Violation("it has forgotten that it was enrolled")
            return {}
        try:
            record = folder.load()
            load_identity(paths)
        except EdgeopsError as error:
            raise Violation(f"the device is lost: {error}") from error
        now = marks(record.trust)
        behind = [name for name, mark in self.acknowledged.items() if now[name] < mark]
        if behind:
            raise Violation(f"{behind} went back")
        pair, sites = read_pair(paths), read_sites(folder, paths, record)
        if pair is None or (self.serials and pair.certificate.serial_number not in self.serials[-1:] and self.renewals):
            raise Violation("there is no working pair of key and certificate" if pair is None else "the renewed pair is gone")
        if not https_ways(sites) or not mqtt_ways(sites):
            raise Violation("nothing says where the manager is")
        if record.sites and max(site.version for site in sites) < record.trust.site_version:
            raise Violation("the record names a site document that is not there")
        return now


def run(office: Office, cuts: tuple[int, ...], fate: str, deaf: str = "") -> Life:
    """A whole life with the power cut at these calls (each counted from the restart before); raises Violation."""
    life = Life(office, office.token())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolment, "_ask", lambda _token, request: (201, office.redeem(request)))
        for cut in (*cuts, 0):
            power = Power(life.disk, cut, deaf)
            try:
                life.live(power)
            except PowerCut:
                life.cuts += 1
                life.disk = power.back(fate)
                life.check()
    return life


@contextmanager
def an_office(folder: Path) -> Iterator[Office]:
    """One manager for all lives; what is tested here is not its disk."""
    hub = open_hub(new_manager(folder / "m").folder, clock := Clock())
    event.listen(hub.store.engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF").close())
    hub.store.engine.dispose()
    yield Office(hub, clock)
    hub.close()


def cuts(office: Office) -> list[tuple[tuple[int, ...], str]]:
    """Every single cut of a life, and pairs of cuts, each with all fates of what was not synced."""
    calls = run(office, (), "kept").calls["end"]
    places: list[tuple[int, ...]] = [(), *((cut,) for cut in range(1, calls + 1))]
    places += [(first, second) for first in range(1, calls + 1, 11) for second in (1, 3, 8)]
    return list(itertools.product(places, FATES))
