"""The manager dies in any of its transactions, or is asked many things at once: nothing is lost and nothing happens twice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from manager_house import Clock, Fleet
from sqlalchemy import Connection

from edgeops.manager import reconcile, rollouts
from edgeops.manager.hub import Hub, open_hub
from edgeops.store import Store, audit
from edgeops.wire import topics
from edgeops.wire.chain import check_chain
from edgeops.wire.desired import SlotWish
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.messages import SlotReport

ROUNDS = 40


class Died(BaseException):
    """The power went; nothing in the manager may catch it."""


@dataclass
class Fuse:
    """Lets `left` transactions pass; the next one dies, before or after its commit. Burnt only once."""

    left: int
    after_commit: bool
    burnt: bool = False

    def put_into(self, store: Store) -> None:
        """Make `store.write` die when it is time."""
        write = store.write

        @contextmanager
        def dying() -> Iterator[Connection]:
            self.left -= 1
            dies = self.left < 0 and not self.burnt
            self.burnt |= dies
            with write() as tx:
                yield tx
                if dies and not self.after_commit:
                    raise Died
            if dies:
                raise Died

        store.write = dying  # type: ignore[method-assign]


def restarted(fleet: Fleet, clock: Clock, fuse: Fuse) -> None:
    """Open the folder anew, as the next `edgeops up` does."""
    fleet.hub.store.close()
    fleet.hub = open_hub(fleet.hub.layout.root, clock)
    fuse.put_into(fleet.hub.store)
    fleet.reopen()


def round_of(fleet: Fleet, runs: dict[str, str], rollout: str) -> None:
    """Everybody is born and told what to run; who has something new tries and keeps it; all report, again and again."""
    fleet.births()
    reconcile.tick(fleet.hub)
    for letter in fleet.letters():
        parsed = topics.parse(letter.topic)
        assert isinstance(parsed, topics.DeviceTopic)
        name, device = parsed.device, fleet.devices[parsed.device]
        try:
            desired = device.read(letter.payload, fleet.clock.now)[0] if parsed.noun == "desired" else None
        except Rejected as error:
            assert error.reason == "replay"
            continue
        wish = desired.slots["main"] if desired else SlotWish("none")
        if wish.action == "run" and runs[name] != wish.release:
            before, runs[name] = runs[name], wish.release
            fleet.report(name, wish.rollout, "trial", wish.release, runs=before)
    for name, release in runs.items():
        said = SlotReport("idle", "digits" if release else "", int(bool(release)), release, "", rollout if release else "",
                          "committed" if release else "", target=release)  # fmt: skip
        device = fleet.devices[name]
        fleet.up(name, "state", device.state({"main": said}, device.trust.counter if device.trust else 0))


def fly(hub: Hub, clock: Clock, fuse: Fuse) -> tuple[Fleet, str]:
    """Bring a release to three devices in two waves while the fuse burns; the fleet and the rollout."""
    fleet = Fleet(hub, clock, ["a", "b", "c"])
    fleet.publish(1)
    rollout = fleet.start(waves="1,100%")
    runs = dict.fromkeys(fleet.devices, "")
    fuse.put_into(hub.store)
    for _ in range(ROUNDS):
        clock.now += 1
        try:
            if fleet.show(rollout)["status"] == "finished":
                break
            round_of(fleet, runs, rollout)
        except Died:
            restarted(fleet, clock, fuse)
    return fleet, rollout


@pytest.mark.parametrize("after_commit", [False, True])
def test_death_in_any_transaction_neither_loses_nor_repeats(
    template_hub: Callable[[], Hub], clock: Clock, after_commit: bool
) -> None:
    """Whichever transaction the manager dies in: the rollout finishes, each device counts once, and the audit chain holds."""
    calm = Fuse(10**9, after_commit)
    fleet, _ = fly(template_hub(), clock, calm)
    fleet.hub.close()
    transactions = 10**9 - calm.left
    assert transactions > 15
    for left in range(transactions):
        fuse = Fuse(left, after_commit)
        fleet, rollout = fly(template_hub(), clock, fuse)
        shown = fleet.show(rollout)
        assert fuse.burnt
        assert (shown["status"], shown["counts"]["started"], shown["counts"]["committed"]) == ("finished", 3, 3), left
        assert [wave["committed"] for wave in shown["waves"]] == [1, 2], left
        with fleet.hub.store.read() as tx:
            assert check_chain(audit.walk(tx), []).finding is None
            said = [entry["action"] for entry in audit.page(tx, 1000)]
        assert (said.count("rollout-finished"), said.count("wave-passed")) == (1, 2), left
        fleet.hub.close()


def at_once(count: int, call: Callable[[int], object]) -> list[object]:
    """Call from many threads at the same moment; what each returned or the Misuse it raised."""
    gate, answers = threading.Barrier(count), list[object]()

    def one(number: int) -> None:
        gate.wait()
        try:
            answers.append(call(number))
        except Misuse as error:
            answers.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_two_starts_at_once_are_one_rollout(hub: Hub, clock: Clock) -> None:
    """Of many orders for the same devices and slot at the same moment one is carried out, the others are conflicts."""
    fleet = Fleet(hub, clock, ["a", "b"])
    fleet.births()
    fleet.publish(1)
    answers = at_once(8, lambda _: fleet.start())
    assert sorted(getattr(answer, "reason", "started") for answer in answers) == ["rollout-conflict"] * 7 + ["started"]
    assert len(rollouts.listed(hub)) == 1


def test_verbs_at_once_leave_a_state_that_makes_sense(hub: Hub, clock: Clock) -> None:
    """Pause, resume, advance and both aborts race: each is done whole or refused, and the offers agree with the status."""
    for turn in range(6):
        fleet = Fleet(hub, clock, [f"a{turn}", f"b{turn}", f"c{turn}"])
        fleet.births()
        release = fleet.publish(turn + 1)
        rollout = fleet.start(turn + 1, to=f"name in (a{turn},b{turn},c{turn})", waves="1,2,100%")
        verbs = ["pause", "resume", "advance", "pause", "resume", "abort"]
        answers = at_once(6, lambda number, verbs=verbs, at=rollout: rollouts.operate(hub, "me", at, verbs[number]))  # type: ignore[misc]
        assert all(isinstance(answer, dict) or answer.reason == "illegal-transition" for answer in answers)  # type: ignore[attr-defined]
        shown = fleet.show(rollout)
        assert shown["status"] == "aborted"
        assert not [row for row in shown["devices"] if row["status"] == "offered"], shown
        wished = {name: desired.slots["main"].action for name, desired in fleet.deliver().items()}
        assert set(wished.values()) <= {"none"}, (release, wished)
