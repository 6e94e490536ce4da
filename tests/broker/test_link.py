"""The manager's link against both brokers: delivery, bounds, coming back."""

import queue
import threading
from types import SimpleNamespace

import pytest

from edgeops.broker import LinkPlan, ManagerLink, start_broker
from edgeops.broker.backoff import Backoff
from edgeops.wire.errors import Misuse

pytestmark = pytest.mark.real
QUICK = Backoff(base_s=0.05, cap_s=0.2, stable_s=30.0)


def plan_for(pki, port, **more):
    """A link plan for the manager's certificate."""
    cert, key = pki.issue("manager")
    return LinkPlan("127.0.0.1", port, pki.ca_path, cert, key, backoff=QUICK, **more)


@pytest.fixture
def links():
    """Makes links that end with the test."""
    made = []

    def make(plan, **more):
        made.append(ManagerLink(plan, **more))
        return made[-1]

    yield make
    for link in made:
        link.stop()


def test_messages_go_both_ways(site, pki, links):
    """Subscribed before or after the start, messages arrive with their retained flag, and publishes reach the device."""
    got, link = queue.Queue(), links(plan_for(pki, site.broker.port))
    link.on_message = lambda *message: got.put(message)
    link.subscribe([("e/1/+/d/+/up/state", 1)])
    link.start()
    assert link.wait_connected(10)
    device = site.online("dev-a", "e/1/07/d/dev-a/dn/+", "e/1/b/#")
    device.send("e/1/07/d/dev-a/up/state", b"up")
    assert got.get(timeout=10) == ("e/1/07/d/dev-a/up/state", b"up", False)
    assert link.publish("e/1/b/ch/st/0", b"frame", qos=0) and link.publish("e/1/07/d/dev-a/dn/cmd", b"down")
    assert [one[1] for one in device.until(b"down")] == [b"frame", b"down"]
    with pytest.raises(Misuse):
        link.start()


def test_a_failing_callback_does_not_end_the_link(site, pki, links):
    """The message after the one that raised still arrives."""
    got, link = queue.Queue(), links(plan_for(pki, site.broker.port))

    def on_message(topic, payload, retained):
        got.put(payload)
        raise ValueError("bad message")

    link.on_message = on_message
    link.subscribe([("e/1/+/d/+/up/state", 1)])
    link.start()
    assert link.wait_connected(10)
    device = site.online("dev-a")
    for payload in (b"1", b"2"):
        device.send("e/1/07/d/dev-a/up/state", payload)
        assert got.get(timeout=10) == payload


@pytest.mark.parametrize("refused", [False, True])
def test_it_is_up_when_its_subscriptions_are_answered_and_not_before(pki, links, refused):
    """Between CONNACK and SUBACK it is not connected; a refused subscription ends the connection instead."""
    link, calls = links(plan_for(pki, 1)), []
    client = SimpleNamespace(subscribe=calls.append, disconnect=lambda: calls.append("bye"))
    link.on_connect = lambda: calls.append("up")
    link.subscribe([("e/1/x", 1)])
    link._connected(client, None, None, SimpleNamespace(is_failure=False), None)
    assert not link.connected and calls == [[("e/1/x", 1)]]
    for _ in range(2):
        link._subscribed(client, None, 1, [SimpleNamespace(is_failure=refused)], None)
    assert link.connected is not refused and calls[1:] == (["bye", "bye"] if refused else ["up"])


def test_queues_are_bounded_while_offline(pki, links):
    """Without a broker QoS 1 is taken up to the bound and QoS 0 not at all."""
    link = links(plan_for(pki, 1, max_queued=3))
    link.start()
    assert [link.publish("e/1/b/x", b"x", qos=1) for _ in range(5)] == [True, True, True, False, False]
    assert not link.publish("e/1/b/x", b"x", qos=0)
    link.stop()


def test_it_comes_back_after_the_broker_does(kind, pki, tmp_path, links, make_site, eventually):
    """After a restart of the broker the link reconnects, subscribes again and sends what was queued meanwhile."""
    broker = start_broker(kind, pki.plan(tmp_path))
    got, ups, link = queue.Queue(), threading.Semaphore(0), links(plan_for(pki, broker.port))
    link.on_message, link.on_connect = (lambda *message: got.put(message)), ups.release
    link.subscribe([("e/1/+/d/+/up/state", 1)])
    link.start()
    assert ups.acquire(timeout=10)
    broker.stop()
    assert eventually(lambda: not link.connected) and not link.publish("e/1/b/x", b"lost", qos=0)
    site = make_site(start_broker(kind, pki.plan(tmp_path, broker.port)))
    assert ups.acquire(timeout=10)
    device = site.online("dev-a", "e/1/07/d/dev-a/dn/+")
    assert link.publish("e/1/07/d/dev-a/dn/cmd", b"back")
    assert device.until(b"back")
    device.send("e/1/07/d/dev-a/up/state", b"up")
    assert got.get(timeout=10)[1] == b"up"


def test_it_backs_off_when_kicked_after_a_successful_connect(site, pki, links):
    """Every take-over by a rival makes the next delay's ceiling larger, though each connect succeeded."""
    delays, ups = queue.Queue(), threading.Semaphore(0)

    def wait(stopping, seconds):
        delays.put(seconds)
        return stopping.wait(0.01)

    link = links(plan_for(pki, site.broker.port), chance=lambda: 0.5, wait=wait)
    link.on_connect = ups.release
    link.start()
    for ceiling in (0.05, 0.1, 0.2, 0.2):
        assert ups.acquire(timeout=10)
        site.online("manager")
        assert delays.get(timeout=10) == pytest.approx(ceiling / 2)


def test_stop_ends_an_endless_retry(pki, links):
    """A link that waits for its next attempt stops at once."""
    link = links(plan_for(pki, 1))
    link.start()
    link.stop()
    link.stop()
    assert not link.connected
