"""Orders that wait: what is sent, who is unfit for it, what is shown, and how long patience lasts."""

import json
from collections.abc import Callable

import pytest
from manager_house import Clock, Fleet

from edgeops.api.rollouts import NewRollout
from edgeops.manager import approvals, reconcile, rollouts
from edgeops.manager.hub import Hub
from edgeops.store import rows
from edgeops.store.tables import rollouts as rollout_table
from edgeops.wire.conditions import Conditions
from edgeops.wire.errors import Misuse
from edgeops.wire.messages import SlotReport

GATES = {"fetch_when": "!metered,battery>=30", "activate_when": "parked", "offline_commit": "wait", "commit_wait_s": 3_600}


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """Four devices that are online."""
    return online(hub, clock)


def online(hub: Hub, clock: Clock) -> Fleet:
    """Four enrolled devices that are online."""
    made = Fleet(hub, clock, ["a", "b", "c", "d"])
    made.births()
    made.letters()
    return made


def test_an_order_carries_its_conditions_and_says_that_they_must_be_understood(fleet: Fleet) -> None:
    """Every device is sent the same conditions, named in `must`; an order without them names nothing."""
    fleet.publish(1)
    fleet.start(1, conditions=GATES)
    wanted = Conditions(("!metered", "battery>=30"), ("parked",), ("online",), "", 7 * 86_400, 3_600)
    found = fleet.deliver()
    assert {name: (one.slots["main"].conditions, one.must) for name, one in found.items()} == dict.fromkeys(
        "abcd", (wanted, ("conditions",))
    )
    fleet.publish(2, model="other")
    fleet.start(2, model="other", slot="second")
    assert {one.must for one in fleet.deliver().values()} == {("conditions",)}


def test_an_order_without_conditions_asks_for_nothing(fleet: Fleet) -> None:
    """Old agents go on getting the orders they always got."""
    fleet.publish(1)
    fleet.start(1)
    assert {one.must for one in fleet.deliver().values()} == {()}


@pytest.mark.parametrize("understands", [(), ("something-else",)])
def test_an_agent_that_would_not_wait_is_unfit(fleet: Fleet, understands: tuple[str, ...]) -> None:
    """It is sent nothing, least of all the release without its conditions; the others are not kept from it."""
    fleet.up("a", "presence", fleet.devices["a"].presence(understands=understands))
    fleet.letters()
    release = fleet.publish(1)
    rollout = fleet.start(1, conditions=GATES)
    (row,) = [row for row in fleet.show(rollout)["devices"] if row["device"] == "a"]
    assert (row["status"], row["verdict"], row["reason"]) == ("settled", "unfit", "conditions")
    assert "update the agent" in row["detail"]
    assert set(fleet.deliver()) == {"b", "c", "d"}
    for name in "bcd":
        fleet.commit(name, rollout, release)
    assert fleet.show(rollout)["status"] == "finished"


def test_one_agent_that_would_not_wait_breaks_a_barrier(fleet: Fleet) -> None:
    """Everybody or nobody: a wave with a device that can never commit begins and ends at once."""
    fleet.up("a", "presence", fleet.devices["a"].presence(understands=()))
    fleet.letters()
    fleet.publish(1)
    rollout = fleet.start(1, conditions={"barrier": True})
    assert fleet.show(rollout)["status"] == "halted"
    assert all(one.slots["main"].action == "none" for one in fleet.deliver().values())


def test_a_first_birth_may_show_that_a_device_is_unfit(hub: Hub, clock: Clock) -> None:
    """A device nobody has heard of is offered what it must understand; when it turns out that it does not, that is taken away."""
    fleet = Fleet(hub, clock, ["a", "b"])
    fleet.publish(1)
    rollout = fleet.start(1, conditions=GATES)
    fleet.letters()
    fleet.up("a", "presence", fleet.devices["a"].presence(understands=()))
    fleet.up("b", "presence", fleet.devices["b"].presence())
    fleet.letters()
    reconcile.tick(hub)
    assert {row["device"]: row["verdict"] for row in fleet.show(rollout)["devices"]} == {"a": "unfit", "b": ""}
    assert {name: one.slots["main"].action for name, one in fleet.deliver().items()} == {"a": "none"}


def test_the_phases_are_counted_and_said(fleet: Fleet) -> None:
    """Waiting is offered and not started, ready and proven are started; what for is the device's own word, or the order's."""
    release = fleet.publish(1)
    rollout = fleet.start(1, conditions=GATES)
    fleet.deliver()
    detail = SlotReport("waiting", rollout=rollout, target=release, detail="battery>=30 (it is 12)")
    fleet.up("a", "state", fleet.devices["a"].state({"main": detail}, 1))
    fleet.report("b", rollout, "waiting", release)
    fleet.report("c", rollout, "ready", release)
    fleet.report("d", rollout, "proven", release)
    shown = fleet.show(rollout)
    assert shown["phases"] == {"waiting": 2, "ready": 1, "proven": 1} == rollouts.listed(fleet.hub)[0]["phases"]
    found = {row["device"]: (row["status"], row["phase"], row["waits"]) for row in shown["devices"]}
    assert found == {
        "a": ("offered", "waiting", "battery>=30 (it is 12)"), "b": ("offered", "waiting", "!metered, battery>=30"),
        "c": ("started", "ready", "parked"), "d": ("started", "proven", "online"),
    }  # fmt: skip
    assert (shown["counts"]["started"], shown["conditions"]) == (2, GATES)


def test_lawful_waiting_is_not_lateness(fleet: Fleet, clock: Clock) -> None:
    """The device deadline is extended by what the conditions allow, and not by more."""
    release = fleet.publish(1)
    conditions = {"activate_when": "parked", "wait_s": 5_000, "offline_commit": "wait", "commit_wait_s": 3_000}
    rollout = fleet.start(1, conditions=conditions, policy={"dwell_s": 0, "device_deadline_s": 1_000})
    fleet.deliver()
    fleet.report("a", rollout, "ready", release)
    began = clock.now
    for after, failed in ((8_999, 0), (9_000, 1)):
        clock.now = began + after
        fleet.report("a", rollout, "ready", release)
        reconcile.tick(fleet.hub)
        assert fleet.show(rollout)["counts"]["failed"] == failed


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({"fetch_when": "battery=>30"}, "fetch_when: 'battery=>30' is no condition: write a fact, !fact, or fact and value"),
        ({"activate_when": "parked,window=25:00-06:00"}, "activate_when: 'window=25:00-06:00' is no condition: write window="),
        ({"activate_when": "parked,,consent"}, "activate_when: '' is no condition"),
        ({"offline_commit": "maybe"}, "offline_commit must be allow or wait, not 'maybe'"),
        ({"barier": True}, "did you mean barrier?"),
        ({"barrier": "yes"}, "barrier must be true or false"),
        ({"fetch_when": True}, "fetch_when must be text"),
        ({"fetch_when": "parked", "wait_s": 0}, "wait_s = 0 is out of bounds"),
        ({"wait_s": 5}, "wait_s without fetch_when and activate_when: there is nothing to wait for"),
        ({"fetch_when": "parked", "commit_wait_s": 5}, "commit_wait_s without barrier and offline_commit = wait"),
        ({"fetch_when": ",".join(f"fact{n}" for n in range(17))}, "17 terms, at most 16"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_at_once(fleet: Fleet, conditions: dict[str, object], says: str) -> None:
    """The mistake is named with the way to write it, and nothing is stored."""
    fleet.publish(1)
    with pytest.raises(Misuse, match="conditions-") as caught:
        fleet.start(1, conditions=conditions)
    assert says in str(caught.value)
    assert rollouts.listed(fleet.hub) == []


def test_conditions_are_part_of_what_another_approves(template_hub: Callable[[], Hub], clock: Clock) -> None:
    """Two proposals that differ only in what devices wait for have different digests; one without names nothing new."""
    plans = []
    for conditions in ({}, {"fetch_when": "!metered"}, {"barrier": True}):
        hub = template_hub()
        fleet = Fleet(hub, clock, ["a"])
        fleet.publish(1)
        rollout = fleet.start(1, conditions=conditions, approvals=2)
        with hub.store.read() as tx:
            plans.append(approvals.plan_of(tx, rows.get(tx, rollout_table, id=rollout) or {}))
        hub.close()
    assert [plan.get("conditions") for plan in plans] == [None, {"fetch_when": "!metered"}, {"barrier": True}]
    same = {name: value for name, value in plans[0].items() if name not in ("conditions", "release")}
    assert all(same.items() <= plan.items() for plan in plans)
    assert len({approvals.digest_of({**plan, "release": ""}) for plan in plans}) == 3


def test_a_request_keeps_the_kinds_of_its_settings() -> None:
    """What the API hands on is what was written: true is not 1, a number is no text; a fraction is refused."""
    body = {"model": "digits", "version": 1, "to": "all", "conditions": {"barrier": True, "wait_s": 5, "fetch_when": "battery>=30"}}
    read = NewRollout.model_validate_json(json.dumps(body)).model_dump()["conditions"]
    assert [(name, type(value), value) for name, value in read.items()] == [
        ("barrier", bool, True), ("wait_s", int, 5), ("fetch_when", str, "battery>=30"),
    ]  # fmt: skip
    with pytest.raises(ValueError):
        NewRollout.model_validate_json(json.dumps(body | {"conditions": {"wait_s": 1.5}}))
