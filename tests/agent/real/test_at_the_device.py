"""A person at a real device, beside a real agent: status, logs, doctor, and that all of them leave it alone."""

import json
from collections.abc import Callable

from .site import Agent, Site, until


def test_what_a_person_sees_while_it_runs_and_afterwards(site: Site, device: Callable[..., Agent]) -> None:
    """The agent answers for itself, the log tells the way of an order, the doctor finds nothing and does not put it out."""
    agent = device(holds="small:1")
    state = ("--state", str(agent.folder))
    told = json.loads(agent.command("status", *state, "--json").out)
    assert told["running"] and told["manager"]["connected"] and told["agent"]["pid"] == agent.process.pid
    assert told["slots"]["main"]["worker"] in [one.pid for one in agent.workers()]
    assert told["endpoint"]["http"].endswith(str(agent.port))
    shown = agent.command("status", *state).out
    assert "small:1" in shown and "connected to mqtts://" in shown and "running for" in shown

    lines = [json.loads(line) for line in agent.command("logs", *state, "-n", "1000", "--json").out.splitlines()]
    way = [line["phase"] for line in lines if line["event"] == "update" and "phase" in line and "verdict" not in line]
    assert way == ["fetch", "verify", "install", "trial"]
    assert [line["verdict"] for line in lines if line["event"] == "update" and "verdict" in line] == ["committed-unproven"]
    assert {"start", "link", "order", "worker"} <= {line["event"] for line in lines}

    done = agent.command("doctor", *state)
    assert done.code == 0, done.out
    assert "a broker answers" in done.out and "the manager answers" in done.out and "onnxruntime 1." in done.out
    told = json.loads(agent.command("status", *state, "--json").out)
    assert told["manager"]["connected"] and told["agent"]["pid"] == agent.process.pid
    assert len([line for line in lines if line["event"] == "link"]) == agent.log.count('"event": "link"')

    agent.end()
    told = agent.command("status", *state)
    assert told.code == 0 and "not running" in told.out and "small:1" in told.out
    assert "has stopped" in agent.command("logs", *state, "-n", "1").out
    assert agent.command("doctor", *state).code == 0


def test_a_manager_that_goes_away_is_told_with_its_reason(site: Site, device: Callable[..., Agent]) -> None:
    """The status says why there is no connection."""
    agent = device()
    site.down()
    try:
        state = ("--state", str(agent.folder))
        until(lambda: not json.loads(agent.command("status", *state, "--json").out)["manager"]["connected"], "the link to end")
        until(lambda: "not connected: " in agent.command("status", *state).out, "the reason")
        assert "not connected to mqtts://" in agent.command("logs", *state, "--event", "link", "--level", "warn").out
        done = agent.command("doctor", *state)
        assert done.code == 5 and "what to do" in done.out
    finally:
        site.up()
