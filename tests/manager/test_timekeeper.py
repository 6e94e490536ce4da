"""The time devices are told: what can be explained is signed, a jump needs an operator's word, nothing goes back in an epoch."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from manager_house import NOW, Clock, Fleet

from edgeops.manager import timekeeper
from edgeops.manager.hub import Hub
from edgeops.manager.reconcile import renew
from edgeops.manager.timekeeper import AHEAD_S, BACK_S, Timekeeper
from edgeops.wire.messages import Bundle

DAY, YEAR, Y2038 = 86_400, 365 * 86_400, 2_147_483_000


class Hands:
    """A monotonic clock that is set by hand."""

    at = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.at


@pytest.fixture
def hands() -> Hands:
    """The monotonic clock of the running manager."""
    return Hands()


@pytest.fixture
def tell(hub: Hub, hands: Hands) -> Callable[..., int | None]:
    """What is signed when the clock says so; `start` begins a new process first."""
    running = [Timekeeper(hands)]

    def ask(now: int, start: bool = False, epoch: int = 0) -> int | None:
        if start:
            running.append(Timekeeper(hands))
        with hub.store.write() as tx:
            return running[-1].tell(tx, replace(hub.root, epoch=epoch), now)

    return ask


def test_time_goes_on(tell: Callable[..., int | None], hands: Hands) -> None:
    """Years of running, weeks off, a clock that is corrected by a minute: signed, and never back."""
    assert tell(NOW) == NOW
    for days in range(0, 3000, 100):
        hands.at += 100 * DAY
        assert tell(NOW + (days + 100) * DAY) == NOW + (days + 100) * DAY
    now = NOW + 3000 * DAY
    assert tell(now - 60) == now
    assert tell(now + AHEAD_S, start=True) == now + AHEAD_S


@pytest.mark.parametrize("start", [True, False])
def test_a_jump_is_not_signed_until_somebody_says_so(hub: Hub, hands: Hands, tell: Callable[..., int | None], start: bool) -> None:
    """2038, or a year off: nothing is signed, before a restart and after; then the operator's word counts, without a restart."""
    assert tell(NOW) == NOW
    for far in (Y2038, NOW + YEAR, NOW + AHEAD_S + 2):
        assert tell(far, start) is None
    assert tell(NOW + 10) == NOW + 10
    with hub.store.write() as tx:
        timekeeper.accept(tx, hub.root, NOW + YEAR)
    assert tell(NOW + YEAR + 5) == NOW + YEAR + 5


def test_small_steps_do_not_add_up(tell: Callable[..., int | None], hands: Hands) -> None:
    """A clock that is set forward by six days again and again is believed once a week of real time, not each time."""
    now, signed = NOW, 0
    assert tell(now) == now
    for _ in range(100):
        hands.at += 1
        now += 6 * DAY
        signed += tell(now) is not None
    assert signed == 1


def test_back_is_refused_and_an_epoch_begins_anew(hub: Hub, tell: Callable[..., int | None]) -> None:
    """After 2038 was accepted by mistake only a raised epoch helps, and it begins where its root was issued."""
    with hub.store.write() as tx:
        timekeeper.accept(tx, hub.root, Y2038)
    assert tell(Y2038) == Y2038
    assert tell(Y2038 - BACK_S - 1) is None and tell(NOW) is None
    assert tell(NOW, epoch=1) == NOW
    assert tell(Y2038, epoch=1) is None


def test_a_birth_is_answered_without_a_time(hub: Hub, clock: Clock) -> None:
    """The manager says nothing of time while its clock has jumped; the device goes on by what it knows."""
    fleet = Fleet(hub, clock, ["pi-01"])
    for jump, signed in ((0, True), (YEAR, False)):
        clock.now += jump
        fleet.births()
        sent = [name for letter in fleet.letters() for name, _ in Bundle.decode(letter.payload).documents]
        assert ("time" in sent) is signed, sent


def test_a_quiet_manager_keeps_the_time(hub: Hub, clock: Clock) -> None:
    """Weeks without a single birth are explained, since each hour leaves a mark."""
    for _ in range(5):
        clock.now += 6 * DAY
        object.__setattr__(hub, "timekeeper", Timekeeper())  # a restart, as far as the monotonic clock goes
        renew(hub)
    with hub.store.read() as tx:
        assert timekeeper.latest(tx, hub.root) == clock.now
