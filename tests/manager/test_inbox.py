"""The inbox: a flood hurts only the one who floods."""

import threading

import pytest

from edgeops.manager.inbox import Inbox, sender_of
from edgeops.wire import topics


def put(inbox: Inbox, device: str, *payloads: bytes) -> None:
    """Messages of one device arrive."""
    for payload in payloads:
        inbox.put(topics.up(device, "tele"), payload)


def drained(inbox: Inbox, most: int = 1) -> list[tuple[str, bytes]]:
    """Everything that waits, as (device, payload), `most` at a time."""
    found = []
    while inbox.waiting:
        found += [(sender_of(topic), payload) for topic, payload in inbox.get(most)]
    return found


@pytest.mark.parametrize("most", [1, 3, 100])
def test_senders_take_turns_and_keep_their_order(most: int) -> None:
    """One message of each in turn, however many another has; each device's own messages stay in order."""
    inbox = Inbox()
    put(inbox, "loud", *(b"%d" % number for number in range(5)))
    put(inbox, "quiet", b"a", b"b")
    got = drained(inbox, most)
    assert [name for name, _ in got] == ["loud", "quiet", "loud", "quiet", "loud", "loud", "loud"]
    assert [data for name, data in got if name == "loud"] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(("limits", "size"), [((50, 1 << 30), 10), ((10_000, 5_000), 100)])
def test_only_the_flooding_sender_loses(limits: tuple[int, int], size: int) -> None:
    """Over the bound of messages, or of bytes, the flood's oldest go; what others sent before and after is all there."""
    inbox = Inbox(*limits)
    put(inbox, "first", b"x" * size)
    put(inbox, "loud", *[b"y" * size] * 500)
    put(inbox, "last", b"z" * size)
    assert inbox.waiting <= limits[0] and inbox.dropped == 502 - inbox.waiting
    assert {"first", "last"} <= {name for name, _ in drained(inbox)}


def test_loud_names_who_sent_more_than_allowed() -> None:
    """What was dropped counts too."""
    inbox = Inbox(10)
    put(inbox, "loud", *[b""] * 30)
    put(inbox, "quiet", *[b""] * 20)
    assert inbox.loud(20) == ["loud"]
    inbox.count_anew()
    assert inbox.loud(0) == []


def test_closing_wakes_whoever_waits() -> None:
    """A waiting reader gets nothing, and so does everyone after."""
    inbox = Inbox()
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(inbox.get()))
    reader.start()
    inbox.close()
    reader.join(5)
    put(inbox, "a", b"late")
    assert got == [[]] and inbox.get() == []


@pytest.mark.parametrize("topic", ["", "e/1", "e/1/b/all/x/1", "x" * 300])
def test_a_topic_of_no_device_has_no_sender(topic: str) -> None:
    """Such messages share one queue."""
    assert sender_of(topic) == ""
