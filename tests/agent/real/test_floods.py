"""Whoever holds the manager's broker credential, but no signing key, can send anything: the device counts it and serves on.

Floods are put where the link puts what it hears; all else is the real supervisor with its worker, connected to its manager.
"""

import contextlib
import json
import os
import threading
import time

import psutil
import pytest

from edgeops.wire import topics
from edgeops_agent.core import record as records
from edgeops_agent.shell.inbox import Message
from edgeops_agent.shell.supervisor import Options, Supervisor

from .site import until

pytestmark = pytest.mark.real


def saves(agent):
    """How often the record has been saved since it was made."""
    copies = [(agent.folder / f"record.{name}").read_bytes().partition(b"\n")[0] for name in ("a", "b")]
    return max(records.decode(copy)[0] for copy in copies if copy.startswith(b"{"))


@contextlib.contextmanager
def inside(agent):
    """The agent in this process: gives (offer, supervisor)."""
    agent.end()
    supervisor = Supervisor(Options(agent.folder, port=agent.port, socket=agent.folder / "run.sock", collect_s=1.0))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    until(lambda: supervisor.link.connected and agent.serves(), "the agent to serve")
    yield lambda noun, data: supervisor.inbox.offer(Message(topics.down(agent.name, noun), data)), supervisor
    supervisor.stop()
    thread.join(30)
    assert not thread.is_alive()


def nonsense():
    """(noun, payload) of everything that is not what the device expects; none of it is signed rightly."""
    deep = b"[" * 50_000 + b"]" * 50_000
    bundle = json.dumps([["desired", {}, {}], ["release", "x", {}], ["root", "", {"a": "b"}]], separators=(",", ":")).encode()
    for noun in ("desired", "doc", "cmd"):
        for data in (b"", b"\0", os.urandom(500), b"x" * (1 << 20), deep, b"null", b"[[]]", b'{"a":1}', bundle, b'"\\ud800"'):
            yield noun, data
    for data in (b"", b"x", bytes(36), os.urandom(60_000), bytes(32) + b"\xff\xff\xff\xff" + bytes(10), b"x" * (1 << 20)):
        yield "blk", data


def test_nonsense_of_every_kind_over_the_broker(site, device):
    """Garbage, a megabyte, deep nesting, empty and odd messages on every topic: nothing but counters changes."""
    agent = device(holds="small:1")
    before = agent.record()
    with site.thief() as put:
        for noun, data in nonsense():
            put(topics.down(agent.name, noun), data)
        for stream, number in (("0" * 64, "0"), ("x", "1"), ("0" * 64, "-1"), ("0" * 64, "999999999"), ("..", "0")):
            put(f"e/1/b/all/{stream}/{number}", b"not a frame")
    until(lambda: site.device(agent.name)["counters"].get("refused_blocks", 0) >= 6, "the refusals to be reported", 90)
    assert agent.serves() == "small:1"
    assert agent.end() == 0
    after = agent.record()
    assert (after.trust.root, after.trust.counter) == (before.trust.root, before.trust.counter)
    assert after.slots["main"].current == before.slots["main"].current
    assert sum(count for name, count in after.counters.items() if "." not in name) >= 36
    assert "Traceback" not in agent.log


def test_a_flood_of_refused_messages(site, device):
    """Ten thousand refused messages cost a few saves and reports and lines, and no count is lost at exit."""
    agent = device(holds="small:1")
    until(lambda: not agent.main().outbox, "the outcome to be acknowledged")
    with inside(agent) as (offer, supervisor):
        published, real = [], supervisor.link.publish
        supervisor.link.publish = lambda topic, *rest: published.append(topic) or real(topic, *rest)
        started, began = saves(agent), time.monotonic()
        for number in range(5000):
            offer("blk", bytes(31) + b"\1" + number.to_bytes(4, "big") + b"x" * 100)
            offer("desired", b'[["desired",{},{}]]')
            if number % 500 == 0:
                until(lambda least=number - 400: supervisor.record.counters.get("refused_blocks", 0) > least, "it to keep up")
                assert agent.serves() == "small:1"
        until(lambda: supervisor.record.counters.get("refused_desired") == 5000, "all to be refused")
        until(lambda: site.device(agent.name)["counters"].get("refused_desired") == 5000, "the refusals to be reported")
        seconds = time.monotonic() - began
        assert sum(topic.endswith("/state") for topic in published) < seconds + 10
        assert saves(agent) - started <= seconds / 30 + 3
        assert supervisor.inbox.dropped == 0
    counters = agent.record().counters
    assert (counters["refused_desired"], counters["refused_blocks"]) == (5000, 5000)


def test_a_flood_of_large_messages_during_an_update(site, device):
    """While megabytes of nonsense rain down an update still comes through, and the memory of the agent stays bounded."""
    agent = device(holds="small:1")
    with inside(agent) as (offer, supervisor):
        process = psutil.Process()
        before = largest = process.memory_info().rss
        site.order(agent.name, "small:2")
        number = 0
        while agent.runs() != "small:2":
            offer("doc", b"[" * 40_000 + b"]" * 40_000 if number % 2 else bytes(1 << 20))
            offer("desired", b"{" * 500_000)
            largest, number = max(largest, process.memory_info().rss), number + 1
            assert number < 200_000
        assert supervisor.record.counters["refused_message"] > 0
        assert largest - before < 100 << 20
        assert agent.serves() == "small:2"


def test_old_orders_again_and_again(site, device):
    """The newest order delivered hundreds of times more, and the one before it, change nothing and are not saved each."""
    agent = device(holds="small:1")
    old = site.retained(agent.name)
    site.order(agent.name, "small:2")
    agent.ended("committed-unproven", "small:2")
    until(lambda: not agent.main().outbox, "the outcome to be acknowledged")
    new = site.retained(agent.name)
    assert new != old
    with inside(agent) as (offer, supervisor):
        started, documents = saves(agent), {path: path.stat().st_mtime_ns for path in (agent.folder / "documents").iterdir()}
        for _ in range(300):
            offer("desired", new)
            offer("desired", old)
        until(lambda: supervisor.record.counters.get("refused_desired.replay", 0) >= 300, "the replays to be refused")
        until(lambda: supervisor.record.counters.get("duplicate_desired", 0) >= 300, "the duplicates to be counted")
        assert saves(agent) - started <= 5
        assert documents == {path: path.stat().st_mtime_ns for path in (agent.folder / "documents").iterdir()}
    assert agent.runs() == "small:2"
    assert agent.record().counters["duplicate_desired"] >= 300
