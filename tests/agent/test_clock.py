"""Believed time: signed time and the monotonic clock once there is one, the wall above the floor before."""

from edgeops.wire.desired import SignedTime
from edgeops_agent.shell.clock import Clock

NOW, Y2038 = 1_800_000_000, 2_147_483_000


class Hands:
    """Two clocks that are set by hand."""

    wall, monotonic = 0.0, 100.0


def made(floor: int, wall: float = 0.0) -> tuple[Clock, Hands]:
    """A clock and its hands."""
    hands = Hands()
    hands.wall = wall
    return Clock(floor, lambda: hands.wall, lambda: hands.monotonic), hands


def answer(now: int) -> SignedTime:
    """What the manager says."""
    return SignedTime("berlin", "pi-01", "a" * 64, now, 0, 0)


def test_before_a_signed_time_the_wall_counts_above_the_floor() -> None:
    """1970 is lifted to the floor; a wall clock alone makes nothing certain."""
    clock, hands = made(NOW)
    assert (clock.now(), clock.least(), clock.sure) == (NOW, NOW, False)
    hands.wall = NOW + 50
    assert (clock.now(), clock.least()) == (NOW + 50, NOW)


def test_a_signed_time_counts_from_the_question_whatever_the_wall_does() -> None:
    """Held back or not, wall clock at 1970 or 2038: it goes on from when it was asked for, and never back within a boot."""
    clock, hands = made(0)
    clock.ask("a" * 64)
    hands.monotonic += 30
    clock.believe(answer(NOW))
    assert (clock.now(), clock.least(), clock.sure, clock.nonce) == (NOW + 30, NOW + 30, True, "")
    for wall in (0.0, float(Y2038)):
        hands.wall = wall
        hands.monotonic += 10
    assert clock.now() == NOW + 50
    clock.ask("b" * 64)
    clock.believe(answer(NOW - 1000))
    assert clock.now() == NOW + 50


def test_a_new_epoch_takes_the_anchor_away() -> None:
    """What was signed before the epoch was raised says nothing any more, in this boot either."""
    clock, _ = made(0, NOW + 5)
    clock.ask("a" * 64)
    clock.believe(answer(Y2038))
    assert clock.now() == Y2038
    clock.forget(NOW)
    assert (clock.now(), clock.least(), clock.sure) == (NOW + 5, NOW, False)
