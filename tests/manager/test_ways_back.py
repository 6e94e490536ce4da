"""Ways back: a raised epoch and a new incarnation make good whatever a stolen key has counted up to."""

from dataclasses import replace

import pytest
from manager_house import FLEET, Clock, FakeDevice, Fleet, Wanted

from edgeops.manager import devices, documents, enrol, register
from edgeops.manager.hub import Hub
from edgeops.manager.ingest import MOST_COUNTER
from edgeops.manager.setup import load_signer
from edgeops.store import rows
from edgeops.store.tables import devices as table
from edgeops.wire import rotation
from edgeops.wire.desired import Desired
from edgeops.wire.envelope import seal
from edgeops.wire.token import Token
from edgeops.wire.trust import accept_desired, accept_site, current_root, pin_chain


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """One device that runs a release."""
    made = Fleet(hub, clock, ["a"])
    made.births()
    roll(made, 1)
    return made


def roll(fleet: Fleet, version: int) -> str:
    """A rollout of a new version to its end; its status."""
    release = fleet.publish(version)
    rollout = fleet.start(version)
    fleet.deliver()
    fleet.commit("a", rollout, release, version)
    fleet.deliver()
    return str(fleet.show(rollout)["status"])


def refused(fleet: Fleet) -> set[str]:
    """The reasons of refusals."""
    return {name.removeprefix("refused.") for name in fleet.ingest.counts if name.startswith("refused.")}


def raise_epoch(fleet: Fleet) -> None:
    """Publish the next root, with a raised epoch; nothing is sent yet."""
    hub = fleet.hub
    root = rotation.next_root(hub.root, rotation.Change(raise_epoch=True), fleet.clock.now)
    documents.publish(hub, "admin", "root", seal("root", root.payload(), [load_signer(hub.layout.key("root"))]))


def enrol_anew(fleet: Fleet, token: str) -> FakeDevice:
    """The same name on a new machine; its first report is in."""
    told, device = Token.decode(token), FakeDevice("a")
    answer = enrol.redeem(fleet.hub, device.enrolment(told.secret))
    device.incarnation = answer["incarnation"]
    chain = [one.encode() for one in (answer["root"], *answer["roots"])]
    trust = pin_chain(chain, FLEET, told.root_pin, "a", device.incarnation)
    device.trust, _ = accept_site(trust, answer["site"].encode())
    fleet.devices["a"] = device
    fleet.births()
    fleet.deliver()
    fleet.up("a", "state", device.state({}, device.trust.counter))
    return device


def led_away(fleet: Fleet, counter: int = MOST_COUNTER - 1) -> None:
    """Somebody with the online key, for one message, sends the device an order with a number far away; the device says so."""
    device, now = fleet.devices["a"], fleet.clock.now
    evil = seal("desired", Desired(FLEET, "a", 1, 0, counter, now, now + 9_999, {}).payload(), [fleet.hub.online])
    device.trust, _ = accept_desired(device.trust, evil, now)
    fleet.up("a", "state", device.state({}, device.trust.counter))


def test_a_stolen_online_key_leaves_a_manager_that_still_goes_on(fleet: Fleet) -> None:
    """What the manager itself has issued is not absurd, however far a thief has led it."""
    led_away(fleet)
    fleet.deliver()
    assert fleet.devices["a"].trust.counter == MOST_COUNTER
    assert roll(fleet, 2) == "finished" and refused(fleet) == set()
    fleet.up("a", "state", fleet.devices["a"].state({}, fleet.devices["a"].trust.counter + 1))
    assert refused(fleet) == {"absurd-counter"}


@pytest.mark.parametrize("counter", [MOST_COUNTER - 1, 2**53 - 1])
def test_a_raised_epoch_counts_from_one_again(fleet: Fleet, counter: int) -> None:
    """Even a device that takes no further order in this epoch takes order 1 of the next."""
    led_away(fleet, counter)
    raise_epoch(fleet)
    fleet.letters()  # lost on the way
    fleet.births()
    fleet.deliver()
    trust = fleet.devices["a"].trust
    assert (current_root(trust).epoch, trust.counter) == (1, 1)
    before = refused(fleet)
    assert roll(fleet, 2) == "finished" and refused(fleet) == before


def test_what_a_device_counts_in_an_earlier_epoch_is_not_adopted(fleet: Fleet) -> None:
    """A device that has yet to get the root speaks of numbers of the old count; ours stays, and the root is sent."""
    led_away(fleet)
    raise_epoch(fleet)
    device = fleet.devices["a"]
    fleet.clock.now += 100
    fleet.up("a", "state", device.state({}, device.trust.counter, command=77))
    with fleet.hub.store.read() as tx:
        row = rows.get(tx, table, id="a") or {}
    assert (row["counter"], row["command"]) == (1, 0)
    # A manager from a backup, in the same epoch, still goes on from what the device says.
    fleet.letters()
    fleet.births()
    fleet.deliver()
    known = {"root": 2, "site": 1, "floor": 0}
    fleet.clock.now += 100
    fleet.up("a", "state", device.state({}, 41, documents=known))
    shown = devices.show(fleet.hub, "a")
    assert (shown["counter"], shown["documents"]) == (42, known)


@pytest.mark.parametrize("end", ["revoke", "decommission"])
def test_a_new_incarnation_counts_from_one_again(fleet: Fleet, end: str) -> None:
    """A thief of the identity key makes a device deaf at its manager with one report; enrolled anew it is heard."""
    fleet.up("a", "state", fleet.devices["a"].state({}, MOST_COUNTER - 1))
    fleet.letters()
    if end == "revoke":
        enrol.revoke(fleet.hub, "me", "a")
        token = register.reissue(fleet.hub, "me", "a")["token"]
    else:
        enrol.decommission(fleet.hub, "me", "a")
        token = register.register(fleet.hub, "me", "a", replace(Wanted({}), reissue=True))["token"]
    fleet.letters()
    device = enrol_anew(fleet, token)
    assert device.trust.counter == 1 and refused(fleet) == set()
    assert roll(fleet, 2) == "finished"
