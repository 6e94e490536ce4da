"""The straight line of one real device, which everything else here disturbs."""

from .site import until


def test_a_device_takes_two_releases(site, device):
    """Enrol, run, commit a release, then its successor; the endpoint answers with the committed one."""
    agent = device(holds="small:1")
    assert agent.serves() == "small:1"
    site.order(agent.name, "small:2")
    agent.ended("committed-unproven", "small:2")
    assert agent.serves() == "small:2"
    pids = [worker.pid for worker in agent.workers()]
    assert len(pids) == 1
    assert agent.end() == 0


def test_a_second_slot_is_refused_and_the_first_unharmed(site, device):
    """An order to run a model in a second slot ends `unfit: one-slot`; the first slot answers every call, before and after."""
    agent = device(holds="small:1")
    site.order(agent.name, "small:2", slot="aux")
    until(lambda: site.device(agent.name)["reported"].get("aux", {}).get("verdict") == "unfit", "the second slot's outcome")
    assert site.device(agent.name)["reported"]["aux"]["reason"] == "one-slot"
    assert {agent.serves() for _ in range(50)} == {"small:1"}
    site.order(agent.name, "small:2")
    agent.ended("committed-unproven", "small:2")
    assert {agent.serves() for _ in range(50)} == {"small:2"}
    assert len(agent.workers()) == 1
