"""Without its manager a device goes on: it serves what it has committed, keeps its telemetry, and is back by itself."""

from dataclasses import replace

import pytest

from edgeops_agent.shell.disk import StateFolder

from .site import until

pytestmark = pytest.mark.real


def windows(site, device):
    """How many telemetry windows of the device the manager has taken."""
    return sum(row["windows"] for row in site.api.get("/telemetry", device=device)["telemetry"])


def spooled(agent):
    """Telemetry messages waiting on the device's disk."""
    return [path for path in (agent.folder / "spool").iterdir() if path.name.isdigit()]


def test_no_date_stops_what_runs(site, device):
    """All documents and certificates have long ended by the time the device believes: its model answers all the same."""
    agent = device(holds="small:1")
    agent.end()
    folder = StateFolder(agent.folder)
    record = folder.load()
    folder.save(replace(record, trust=replace(record.trust, time_floor=4_000_000_000)))
    agent.start()
    until(lambda: agent.serves() == "small:1", "the model")
    until(lambda: "has ended by a time that was signed" in agent.log, "the device to find everything out of date")
    assert agent.serves() == "small:1" and agent.main().phase == "idle"


def test_started_without_a_manager(site, device):
    """Started while the manager is down: the committed model answers, telemetry waits on disk; up again, all of it arrives."""
    agent = device(holds="small:1")
    agent.end()
    site.down()
    agent.start()
    until(lambda: agent.serves() == "small:1", "the model")
    until(lambda: [agent.serves() for _ in range(60)] and spooled(agent), "telemetry on disk")
    before = {path.name for path in spooled(agent)}
    assert agent.end() == 0
    agent.start()
    until(lambda: agent.serves() == "small:1", "the model")
    assert before <= {path.name for path in spooled(agent)}
    site.up()
    until(lambda: site.device(agent.name)["presence"] == "online", "the device to be online", 90)
    until(lambda: not spooled(agent) and windows(site, agent.name) > 0, "the telemetry")


def test_the_broker_dies_and_comes_back(site, device):
    """SIGKILL of the broker under a connected device: it serves on, reconnects, and takes the next order."""
    agent = device(holds="small:1")
    site.broker().kill()
    for _ in range(50):
        assert agent.serves() == "small:1"
    if site.process.poll() is None:
        site.down()
    site.up()
    until(lambda: site.device(agent.name)["presence"] == "online", "the device to be online", 90)
    site.order(agent.name, "small:2")
    agent.ended("committed-unproven", "small:2")


def test_an_order_given_while_the_device_was_away(site, device):
    """An order made while the device is off is carried out when it comes back."""
    agent = device(holds="small:1")
    agent.end()
    site.order(agent.name, "small:2")
    agent.start()
    agent.ended("committed-unproven", "small:2")
