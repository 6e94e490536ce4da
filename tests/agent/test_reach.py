"""Where the manager is: the newest site first, the last proven one behind it, and no lost file that strands a device."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from edgeops.wire.desired import SignedTime
from edgeops.wire.messages import Bundle
from edgeops_agent.core.record import Record
from edgeops_agent.shell.clock import Clock
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.documents import Documents, needed
from edgeops_agent.shell.identity import Paths
from edgeops_agent.shell.intake import Intake
from edgeops_agent.shell.journal import Sparing
from edgeops_agent.shell.ledger import Ledger, Unsaved
from edgeops_agent.shell.reach import https_ways, mqtt_ways, read_sites

from .conftest import CA, NOW, Paper


class Device:
    """An intake on a real folder; what it tells its owner is counted."""

    def __init__(self, root: Path, paper: Paper) -> None:
        self.paper, self.folder, self.paths = paper, StateFolder(root), Paths(root)
        self.folder.create()
        self.paths.site.write_bytes(paper.site(1))
        self.folder.save(Record(replace(paper.trust, site_version=1)))
        self.moves = self.astray = 0
        self.start()

    def start(self) -> None:
        """Begin, as after a restart."""
        self.ledger = Ledger(self.folder)
        log = Sparing(lambda _: None)
        self.clock = Clock(0, lambda: float(NOW))
        self.intake = Intake(
            self.folder, self.ledger, Documents(self.folder, self.ledger.record, log), self.clock, self.paper.device, log,
            self.ledger.store, self._moved, self._lost, os.urandom,
        )  # fmt: skip
        self.intake.begin()

    def _moved(self) -> None:
        self.moves += 1

    def _lost(self) -> None:
        self.astray += 1

    def take(self, *documents: tuple[str, bytes], by: int = 1) -> None:
        """A bundle comes in by an endpoint of site `by`."""
        self.intake.take(Bundle(documents), by)

    @property
    def urls(self) -> list[str]:
        """The brokers to be tried, in order."""
        return [way.url for way in mqtt_ways(self.intake.sites())]


@pytest.fixture
def device(tmp_path: Path, paper: Paper) -> Device:
    """A device fresh from enrolment."""
    return Device(tmp_path / "state", paper)


def moved(paper: Paper, version: int = 2) -> bytes:
    """A site elsewhere, with two endpoints."""
    name = "two" if version == 2 else f"site{version}"
    changes = {"cas": (CA, CA), "mqtt": (f"mqtts://{name}:1", "wss://browsers:1", f"mqtts://{name}:2"), "https": (f"https://{name}:1",)}
    return paper.site(version, **changes)


def test_the_new_site_first_and_the_old_one_until_it_has_proven_itself(device: Device) -> None:
    """New endpoints in order with their own CAs, then the old ones, over restarts; gone once the manager answered by a new one."""
    device.take(("site", moved(device.paper)))
    for _ in range(2):
        assert device.urls == ["mqtts://two:1", "mqtts://two:2", "mqtts://one:8883"]
        assert [way.cas for way in https_ways(device.intake.sites())] == [CA + CA, CA]
        device.start()
    device.take(("time", device.paper.time(device.intake.ask())), by=1)
    assert len(device.urls) == 3
    device.take(("time", device.paper.time("f" * 64)), by=2)
    assert len(device.urls) == 3
    device.take(("time", device.paper.time(device.intake.ask())), by=2)
    assert device.urls == ["mqtts://two:1", "mqtts://two:2"]
    assert device.moves == 2


def test_a_site_that_never_worked_gives_way_to_the_next(device: Device) -> None:
    """The last resort is the proven site, not the one before."""
    device.take(("site", moved(device.paper)))
    device.take(("site", moved(device.paper, 3)))
    assert device.urls == ["mqtts://site3:1", "mqtts://site3:2", "mqtts://one:8883"]
    assert needed(device.ledger.record) == set(device.ledger.record.sites)


def test_lost_and_torn_site_files_strand_nobody(device: Device) -> None:
    """Without the newest the proven one, without both that of the enrolment, without all no crash; one sent again is kept."""
    second = moved(device.paper)
    device.take(("site", second))
    newest, proven = device.ledger.record.sites
    (device.folder.documents / newest).write_bytes(second[:100])
    assert device.urls == ["mqtts://one:8883"]
    (device.folder.documents / proven).unlink()
    assert device.urls == ["mqtts://one:8883"]
    device.take(("site", second))
    assert device.urls[0] == "mqtts://two:1"
    for path in (device.folder.documents / newest, device.paths.site):
        path.unlink()
    device.start()
    assert device.urls == []


def test_a_changed_site_file_is_not_used(device: Device) -> None:
    """The record names the digest: another document in its place is none."""
    device.take(("site", moved(device.paper)))
    newest = device.ledger.record.sites[0]
    (device.folder.documents / newest).write_bytes(moved(device.paper, 4))
    assert device.urls == ["mqtts://one:8883"]


def test_the_site_is_kept_before_the_record_names_it(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for the document, nothing has happened."""
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    before = device.ledger.record
    with pytest.raises(Unsaved):
        device.take(("site", moved(device.paper)))
    assert device.ledger.record == before


def test_what_looks_out_of_date_makes_us_ask(device: Device) -> None:
    """Expired orders, times below the floor, a foreign epoch or key; not a replay."""
    paper = device.paper
    device.take(("desired", paper.desired(1, "")), ("desired", paper.desired(1, "")))
    assert device.astray == 0
    thief = Paper({**paper.keys, "online": paper.keys["site"]})
    for data in (paper.desired(2, "", expires=1), paper.desired(2, "", epoch=1), thief.desired(2, "")):
        before = device.astray
        device.take(("desired", data))
        assert device.astray == before + 1


def test_a_cleared_floor_clears_this_boot_too(device: Device) -> None:
    """2038 was signed and believed; the root that raises the epoch brings believed time and the least time back at once."""
    far = 2_147_483_000
    device.take(("time", device.paper.time(device.intake.ask(), far)))
    assert device.clock.least() >= far
    device.take(("root", device.paper.next_root(1)))
    assert device.clock.least() == device.ledger.record.trust.time_floor == NOW - 500
    device.clock.believe(SignedTime("berlin", "pi-01", "a" * 64, NOW, 1, 0))
    assert NOW <= device.clock.now() < NOW + 60


def test_sites_can_be_read_without_a_record_that_names_them(device: Device) -> None:
    """A record of an older agent names no site: the file beside it counts."""
    assert read_sites(device.folder, device.paths, Record(device.paper.trust))[0].version == 1
