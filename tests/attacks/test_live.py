"""A running agent that serves a model is attacked over the link; every attempt is counted by its reason, and it goes on serving."""

import contextlib
import threading
from dataclasses import replace

import pytest

from edgeops.parcel.stream import cut
from edgeops.wire import topics
from edgeops.wire.envelope import digest_of, seal
from edgeops_agent.shell.inbox import Message
from edgeops_agent.shell.journal import Journal, begin, show_as
from edgeops_agent.shell.supervisor import Options, Supervisor

from ..agent.real.site import until
from ..conftest import Score
from .live import ATTACKS, Scene

pytestmark = pytest.mark.real


@contextlib.contextmanager
def inside(agent):
    """The agent in this process: gives (offer, supervisor)."""
    agent.end()
    supervisor = Supervisor(Options(agent.folder, port=agent.port, socket=agent.folder / "run.sock", collect_s=1.0))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        until(lambda: supervisor.link.connected and agent.serves(), "the agent to serve")
        yield lambda noun, data: supervisor.inbox.offer(Message(topics.down(agent.name, noun), data)), supervisor
    finally:
        supervisor.stop()
        thread.join(30)
        begin(Journal(show_as("dated")))
    assert not thread.is_alive()


def counted(supervisor, reason):
    """How often the device has counted a reason."""
    return supervisor.record.counters.get(reason, 0)


def kept(record):
    """What no attack may change."""
    return replace(record.trust, time_floor=0, command=0), {name: slot.current for name, slot in record.slots.items()}


def test_attacks_on_a_serving_device(site, device, score: Score) -> None:
    """Each row is refused with its reason, changes neither trust nor model; afterwards an honest order still goes through."""
    agent = device(holds="small:1")
    older = site.retained(agent.name)
    site.order(agent.name, "small:2")
    agent.ended("committed-unproven", "small:2")
    until(lambda: not agent.main().outbox, "the outcome to be acknowledged")
    order = site.retained(agent.name)
    with inside(agent) as (offer, supervisor):
        until(lambda: supervisor.clock.least() > 1, "the signed time")
        for attack in ATTACKS:
            scene = Scene(site.root, supervisor.record.trust, order, older, supervisor.clock.now())
            before, was = kept(supervisor.record), counted(supervisor, attack.reason)
            offer(*attack.act(scene))
            until(lambda: counted(supervisor, attack.reason) > was, f"{attack.id} to be refused; {supervisor.record.counters}", 20)  # noqa: B023
            assert kept(supervisor.record) == before, attack.story
            score.refused(attack.id, attack.reason)
        assert agent.serves() == "small:2"
    agent.start()
    site.order(agent.name, "small:1")
    agent.ended("committed-unproven", "small:1")
    assert agent.serves() == "small:1"
    score.accepted("live-order-after-all-attacks")


def test_swapped_bytes(site, device, score: Score) -> None:
    """With the stolen online key a thief orders a real release, but delivers other bytes for it: they are never run."""
    agent = device(holds="small:1")
    site.release("big:1")
    order = site.retained(agent.name)
    release = site.api.get("/releases/big/1")["envelope"].encode()
    with inside(agent) as (offer, supervisor):
        until(lambda: supervisor.clock.least() > 1, "the signed time")
        scene = Scene(site.root, supervisor.record.trust, order, order, supervisor.clock.now())
        listed, frames = cut(scene.trust.fleet, [b"malware" * 1000])
        stream = seal("stream", listed.payload(), [scene.online])
        name = digest_of(stream, "stream")
        before, said = kept(supervisor.record), []  # the log is read, for the manager orders anew at once
        begin(Journal(lambda line: print(line.text) is None and said.append(line) is None))
        offer(*scene.forged(release=release, stream=stream))
        until(lambda: supervisor.record.slots["main"].phase == "fetch", "the order to be taken")
        offer("blk", bytes.fromhex(name) + bytes(4) + frames[0])
        until(lambda: any("verdict" in line.fields for line in said), "the order to end")
        ended = next(line.fields for line in said if "verdict" in line.fields)
        assert (ended["rollout"], ended["reason"]) == ("r-thief", "missing-object")
        assert ended["verdict"] in ("failed", "rolled-back") and not any("big:1 takes" in line.text for line in said)
        assert kept(supervisor.record)[1] == before[1] and agent.serves() == "small:1"
        score.refused("live-swapped-bytes", ended["reason"])
