"""Checks of the device's owner on a real agent: a model that one of them says no to goes back to the one before."""

import http.client

import pytest

pytestmark = pytest.mark.real


def test_a_check_turns_a_candidate_down_and_lets_it_through(site, device):
    """It is asked while the candidate answers where it is told; its last line reaches the manager; then it says yes."""
    agent = device(holds="small:1")
    folder = agent.folder / "health.d"
    folder.mkdir(mode=0o755)
    check = folder / "50-door"
    check.write_text(f'#!/bin/sh\necho "$EDGEOPS_MODEL $EDGEOPS_VERSION $EDGEOPS_HTTP" > {folder}/.asked\necho door open; exit 1\n')
    check.chmod(0o755)
    site.order(agent.name, "small:2", trial_s=30)
    outcome = agent.ended("rolled-back")
    assert (outcome.reason, outcome.detail) == ("health-hook", "50-door: door open (exit code 1)")
    assert agent.runs() == "small:1"
    model, version, address = (folder / ".asked").read_text().split()
    assert (f"{model}:{version}") == "small:2"
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.request("GET", "/v2/health/live")
    assert connection.getresponse().status == 200
    check.write_text("#!/bin/sh\nexit 0\n")
    site.order(agent.name, "small:2", trial_s=1)
    agent.ended("committed-unproven", "small:2")
