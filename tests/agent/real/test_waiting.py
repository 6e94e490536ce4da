"""An order that waits, on a real device: for facts its owner states, a person, the manager, the others of its barrier."""

import json
from collections.abc import Callable
from typing import Any

from .site import Agent, Site, until


def state_facts(agent: Agent, **facts: object) -> None:
    """What the device's owner states of it from now on."""
    folder = agent.folder / "facts.d"
    folder.mkdir(mode=0o755, exist_ok=True)
    (folder / "car.json").write_text(json.dumps(facts))
    (folder / "car.json").chmod(0o644)


def start(site: Site, to: str, *conditions: str) -> str:
    """A rollout of small:2, as an operator starts it."""
    site.release("small:2")
    words = ("rollout", "start", "small:2", "--to", to, "--trial-window-s", "1", "--dwell-s", "0", *conditions)
    return str(site.edgeops(*words)["id"])


def waits(agent: Agent, phase: str) -> Callable[[], Any]:
    """What `edgeops-agent status` says the slot waits for, once it is in this phase."""

    def look() -> Any:
        told = json.loads(agent.command("status", "--state", str(agent.folder), "--json").out)["slots"]["main"]
        return told["waits"] if told["phase"] == phase else None

    return look


def test_facts_then_a_person_then_the_commit(site: Site, device: Callable[..., Agent]) -> None:
    """It fetches when the network is cheap, switches when the car is parked and somebody has said yes; each wait is shown here and
    at the manager.
    """
    agent = device(holds="small:1")
    state_facts(agent, parked=False)
    gates = ("--fetch-when", "!metered", "--activate-when", "parked,consent", "--offline-commit", "wait")
    rollout = start(site, f"name={agent.name}", *gates)
    assert until(waits(agent, "waiting"), "the fetch to wait") == ["!metered"]
    seen = until(lambda: site.device(agent.name)["reported"]["main"].get("detail"), "the manager to show it")
    assert seen == "waits for !metered"
    state_facts(agent, parked=False, metered=False)
    assert until(waits(agent, "ready"), "the switch to wait") == ["parked", "consent"]
    assert agent.runs() == agent.serves() == "small:1"
    done = agent.command("approve", "--state", str(agent.folder), "--yes")
    assert done.code == 0 and "small:2" in done.out
    until(lambda: waits(agent, "ready")() == ["parked"], "consent to be heard")
    state_facts(agent, parked=True, metered=False)
    agent.ended("committed-unproven", "small:2")
    assert agent.serves() == "small:2"
    until(lambda: site.edgeops("rollout", "show", rollout)["status"] == "finished", "the rollout to end")


def test_a_no_ends_the_order(site: Site, device: Callable[..., Agent]) -> None:
    """Denied by the person at the device: the order has failed by that name, the model before goes on."""
    agent = device(holds="small:1")
    start(site, f"name={agent.name}", "--activate-when", "consent")
    until(waits(agent, "ready"), "the switch to wait")
    assert agent.command("deny", "--state", str(agent.folder), "--yes", "--reason", "not today").code == 0
    assert agent.ended("failed").reason == "denied"
    assert agent.runs() == agent.serves() == "small:1"


def test_what_never_comes_is_not_waited_for_longer(site: Site, device: Callable[..., Agent]) -> None:
    """A device told to wait two seconds for a cheap network gives the order up after two, by that name."""
    agent = device(holds="small:1")
    start(site, f"name={agent.name}", "--fetch-when", "!metered", "--wait-s", "2")
    ended = agent.ended("failed")
    assert ended.reason == "waiting-deadline" and "!metered" in ended.detail
    assert agent.runs() == agent.serves() == "small:1"


def test_all_or_nothing(site: Site, device: Callable[..., Agent]) -> None:
    """Two devices of one barrier: the first waits with its trial passed until the second has passed too; then both commit."""
    first, second = device(holds="small:1"), device(holds="small:1")
    state_facts(second, parked=False)
    rollout = start(site, f"name in ({first.name},{second.name})", "--activate-when", "parked", "--barrier", "--waves", "100%")
    state_facts(first, parked=True)
    until(lambda: waits(first, "proven")() is not None, "the first at the barrier")
    assert first.serves() == "small:2" and first.runs() == "small:1"
    state_facts(second, parked=True)
    for agent in (first, second):
        agent.ended("committed-unproven", "small:2")
    until(lambda: site.edgeops("rollout", "show", rollout)["status"] == "finished", "the rollout to end")
