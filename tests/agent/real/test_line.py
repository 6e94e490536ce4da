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
    until(lambda: True, "nothing")
