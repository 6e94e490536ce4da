"""The pure parts: the ACL against MQTT's own matching, the reading of mosquitto's log, the backoff."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.broker.acl import matches, may_publish, may_read, mosquitto_acl
from edgeops.broker.amqtt_guard import check_amqtt
from edgeops.broker.backoff import Backoff
from edgeops.broker.leash import _NOISE
from edgeops.broker.mosquitto import DenialCount, mosquitto_config
from edgeops.broker.ports import BrokerPlan
from edgeops.wire import topics
from edgeops.wire.errors import Misuse

LEVELS = st.sampled_from(["e", "1", "2", "b", "d", "07", "+", "#", "a", "b2", "up", "dn", "state", "cmd", "", "$share"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=8).map("/".join)


def plain_match(wanted, topic):
    """MQTT 3.1.1 §4.7: does the topic match the filter."""
    left, right = wanted.split("/"), topic.split("/")
    for index, level in enumerate(left):
        if level == "#":
            return True
        if index >= len(right) or level not in ("+", right[index]):
            return False
    return len(left) == len(right)


@given(TOPICS, TOPICS)
def test_an_allowed_filter_hears_only_allowed_topics(wanted, topic):
    """Whatever a permitted filter matches, a device may read (so checking the filter is enough)."""
    concrete = topic.replace("+", "x").replace("#", "y")
    if may_read("a", wanted) and plain_match(wanted, concrete):
        assert may_read("a", concrete)


@given(TOPICS, TOPICS)
def test_our_matching_is_mqtts(wanted, topic):
    """The quick match agrees with the plain one for every filter with `#` only at its end."""
    if "#" not in wanted[:-1] and "#" not in topic and "+" not in topic:
        assert matches(wanted, topic.split("/")) == plain_match(wanted, topic)


@given(TOPICS)
def test_what_one_device_may_write_no_other_device_may_read_or_write(topic):
    """Devices have no common topic that any of them writes."""
    if may_publish("a", topic):
        assert not may_publish("b2", topic)
        assert not may_read("a", topic) and not may_read("b2", topic)


def test_the_wires_own_topics_are_allowed():
    """What edgeops.wire builds is what the ACL allows, for the right one only."""
    for noun in topics.UP:
        assert may_publish("dev-a", topics.up("dev-a", noun)) and not may_publish("dev-b", topics.up("dev-a", noun))
    assert may_read("dev-a", topics.downs_of("dev-a")) and not may_read("dev-b", topics.downs_of("dev-a"))
    assert may_read("dev-a", topics.frames_of("ch", "st")) and not may_publish("dev-a", topics.frame("ch", "st", 0))
    assert may_read("manager", topics.ALL_UPS) and may_publish("manager", topics.frame("ch", "st", 0))


def test_a_revoked_name_is_denied_before_the_patterns():
    """mosquitto's file denies revoked users all topics."""
    assert "user dev-a\ntopic deny #\n" in mosquitto_acl(frozenset({"dev-a"}))


LOG = """\
New client connected from 127.0.0.1:1 as dev-b (p2, c1, k60, u'dev-b').
Will message specified (6 bytes) (r0, q1).
\te/1/07/d/dev-a/up/presence
Sending CONNACK to dev-b (0, 0)
Received SUBSCRIBE from dev-b
\te/1/# (QoS 1)
dev-b 1 e/1/#
dev-b 1 e/1/07/d/dev-b/dn/+
Denied PUBLISH from dev-b (d0, q1, r0, m1, 'other', ... (6 bytes))
"""


def test_refusals_are_counted_from_mosquittos_log():
    """A foreign will, a foreign subscription and a denied publish are three; what is allowed does not count."""
    count = DenialCount()
    for line in LOG.splitlines():
        count.read(line)
    assert count.denied == 3


def test_the_leash_passes_on_all_but_the_lines_of_every_message():
    """Lines written per message are dropped, refusals stay."""
    noise = b"Received PUBLISH from a (d0)\nSending PUBACK to a (m1)\nReceived PINGREQ from a\n"
    assert _NOISE.sub(b"", noise + LOG.encode() + noise) == LOG.encode()


def test_a_path_that_breaks_the_configuration_is_refused(tmp_path):
    """A line break in a path must not become a setting."""
    plan = BrokerPlan(tmp_path, "127.0.0.1", 0, Path("a\nallow_anonymous true"), Path("b"), Path("c"))
    with pytest.raises(Misuse, match="plain folder"):
        mosquitto_config(plan, 1, tmp_path / "acl")


def test_this_amqtt_can_be_guarded():
    """All methods our guards replace exist in the installed amqtt."""
    check_amqtt()


def test_backoff_grows_also_after_connections_that_were_kicked():
    """Only a connection that lasted `stable_s` forgets the failures; the delay is uniform below the ceiling."""
    backoff, ceilings = Backoff(base_s=1, cap_s=10, stable_s=30), []
    for lived in (0.0, 2.0, 29.0, 2.0, 2.0, 31.0, 0.0):
        backoff, delay = backoff.after(lived, 0.5)
        ceilings.append(delay * 2)
    assert ceilings == [1, 2, 4, 8, 10, 1, 2]


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1, exclude_max=True)), max_size=80))
def test_a_delay_never_leaves_its_bounds(history):
    """0 <= delay <= cap whatever happens."""
    backoff = Backoff()
    for lived, chance in history:
        backoff, delay = backoff.after(lived, chance)
        assert 0 <= delay <= backoff.cap_s
