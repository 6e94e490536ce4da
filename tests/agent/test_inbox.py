"""Floods: own events get in and go first, messages are bounded by bytes and by number, and what must come again is noticed."""

from edgeops_agent.shell.inbox import MAX_MESSAGES, Inbox, Message


def test_messages_are_bounded_by_bytes_and_number() -> None:
    """A flood of large or of many messages is dropped and counted; what was taken makes room."""
    inbox = Inbox(most_bytes=1000)
    for _ in range(50):
        inbox.offer(Message("e/1/00/d/x/dn/blk", bytes(100)))
    assert inbox.dropped == 40
    assert isinstance(inbox.take(0), Message)
    inbox.offer(Message("e/1/00/d/x/dn/blk", bytes(100)))
    assert inbox.dropped == 40
    small = Inbox()
    for _ in range(MAX_MESSAGES + 5):
        small.offer(Message("t", b""))
    assert small.dropped == 5


def test_own_events_get_in_and_go_first() -> None:
    """However full of messages, an event of the agent's own threads is the next thing taken."""
    inbox = Inbox(most_bytes=10)
    inbox.offer(Message("t", bytes(10)))
    inbox.put(("main", "done"))
    assert inbox.take(0) == ("main", "done")
    assert inbox.take(0) == Message("t", bytes(10))
    assert inbox.take(0) is None


def test_a_dropped_order_is_noticed_a_dropped_frame_is_not() -> None:
    """Frames are wanted again by themselves; a dropped order, document or command must be asked for."""
    inbox = Inbox(most_bytes=0)
    inbox.offer(Message("e/1/b/all/s/1", b"x"))
    inbox.offer(Message("e/1/00/d/x/dn/blk", b"x"))
    assert not inbox.missed
    inbox.offer(Message("e/1/00/d/x/dn/desired", b"x"))
    assert inbox.missed
