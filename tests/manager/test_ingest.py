"""What devices send: believed only under their own key, in order, once."""

from dataclasses import replace

import numpy as np
import pytest
from manager_house import FLEET, NOW, Clock, FakeDevice, Fleet

from edgeops.manager import devices, enrol, reconcile, register, status, telemetry
from edgeops.manager.hub import Hub
from edgeops.sketch.build import build_reference
from edgeops.sketch.latency import LatencyHistogram
from edgeops.sketch.reference import ReferenceProfile
from edgeops.sketch.window import SketchWindow, Tally
from edgeops.store import audit
from edgeops.wire import topics
from edgeops.wire.envelope import seal
from edgeops.wire.errors import Misuse
from edgeops.wire.messages import Bundle, Presence, SlotReport, seal_tele
from edgeops.wire.token import Token

IDLE = {"main": SlotReport("idle")}


@pytest.fixture
def fleet(hub: Hub, clock: Clock) -> Fleet:
    """One enrolled device that has not connected yet."""
    return Fleet(hub, clock, ["a"])


def refused(fleet: Fleet) -> dict[str, int]:
    """Refusals by reason."""
    return {name.removeprefix("refused."): count for name, count in fleet.ingest.counts.items() if name.startswith("refused.")}


def test_a_birth_without_a_wish_is_answered_by_time_alone(fleet: Fleet) -> None:
    """The signed time comes on doc, once, for this nonce."""
    fleet.births()
    letters = fleet.letters()
    assert [(letter.topic, letter.retain) for letter in letters] == [(topics.down("a", "doc"), False)]
    _, documents = fleet.devices["a"].read(letters[0].payload, 0)
    assert set(documents) == {"time"}


def test_a_birth_with_a_wish_is_answered_in_one_readable_order(fleet: Fleet) -> None:
    """Time, release, stream, desired: each document comes after what it needs, in one message that is not retained."""
    fleet.births()
    fleet.publish(1)
    fleet.start()
    fleet.letters()
    fleet.births()
    (letter,) = fleet.letters()
    assert (letter.topic, letter.retain) == (topics.down("a", "desired"), False)
    assert [kind for kind, _ in Bundle.decode(letter.payload).documents] == ["time", "release", "stream", "desired"]
    assert fleet.devices["a"].read(letter.payload, 0)[0] is not None


def test_a_second_birth_repeats_the_same_document(fleet: Fleet) -> None:
    """Without a new wish the counter stays, so that the device need not start over."""
    fleet.births()
    fleet.publish(1)
    fleet.start()
    pushed = dict(Bundle.decode(fleet.letters()[-1].payload).documents)["desired"]
    fleet.births()
    again = dict(Bundle.decode(fleet.letters()[-1].payload).documents)["desired"]
    assert again == pushed


def test_a_document_past_half_its_life_is_renewed_at_birth(fleet: Fleet, clock: Clock) -> None:
    """A device that comes back late gets a fresh expiry and a higher counter."""
    fleet.births()
    fleet.publish(1)
    fleet.start(policy={"dwell_s": 0, "rollout_deadline_s": 60 * 86_400})
    first = fleet.deliver()["a"]
    clock.now += 16 * 86_400
    fleet.births()
    second = fleet.deliver()["a"]
    assert second.counter == first.counter + 1 and second.expires == clock.now + 30 * 86_400


def test_who_is_out_does_not_count_as_online(fleet: Fleet) -> None:
    """A device that spoke a moment ago and was revoked since is counted as revoked."""
    fleet.births()
    sums = status.overview(fleet.hub, None)["presence"]
    enrol.revoke(fleet.hub, "me", "a")
    assert status.overview(fleet.hub, "id=a")["presence"] == {"revoked": 1} and "revoked" not in sums


def test_a_reissued_id_forgets_what_the_old_machine_ran(fleet: Fleet) -> None:
    """Another machine under the id of a decommissioned one runs nothing until it says so."""
    fleet.births()
    fleet.up("a", "state", fleet.devices["a"].state({"main": SlotReport("idle")}))
    assert devices.show(fleet.hub, "a")["reported"]
    enrol.decommission(fleet.hub, "me", "a")
    register.register(fleet.hub, "me", "a", register.Wanted({}, reissue=True))
    shown = devices.show(fleet.hub, "a")
    assert (shown["reported"], shown["slots"], shown["reported_at"], shown["counters"]) == ({}, {}, None, {})


def test_only_the_devices_own_key_is_believed(fleet: Fleet) -> None:
    """A report sealed with another key changes nothing and is counted."""
    stranger = FakeDevice("a")
    fleet.up("a", "state", stranger.state(IDLE))
    fleet.up("a", "presence", stranger.presence())
    fleet.up("a", "tele", seal_tele(window(0).to_bytes(), stranger.identity))
    assert refused(fleet) == {"unknown-key": 2, "bad-signature": 1}
    assert devices.show(fleet.hub, "a")["presence"] == "never"


def test_a_message_of_one_device_is_not_taken_for_another(hub: Hub, clock: Clock) -> None:
    """A validly signed report under another device's topic is refused."""
    fleet = Fleet(hub, clock, ["a", "b"])
    fleet.up("b", "state", fleet.devices["a"].state(IDLE))
    device = fleet.devices["b"]
    lie = Presence(FLEET, "a", 1, device.boot, "birth", device.nonce)
    fleet.up("b", "presence", seal("presence", lie.payload(), [device.identity]))
    assert refused(fleet) == {"unknown-key": 1, "wrong-device": 1}


def test_old_reports_and_other_incarnations_are_refused(fleet: Fleet) -> None:
    """A replayed report does not turn the clock back."""
    device = fleet.devices["a"]
    old = device.state(IDLE)
    fleet.up("a", "state", device.state({"main": SlotReport("idle", "digits", 2, "f" * 64)}))
    fleet.up("a", "state", old)
    device.incarnation = 2
    fleet.up("a", "state", device.state(IDLE))
    assert refused(fleet) == {"stale-report": 1, "incarnation": 1}
    assert devices.show(fleet.hub, "a")["slots"] == {"main": "digits:2"}


@pytest.mark.parametrize("noun", ["state", "presence", "tele", "want"])
@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff" * 300, b"[" * 3000, b"0" * (1 << 20)])
def test_garbage_never_escapes(fleet: Fleet, noun: str, payload: bytes) -> None:
    """Whatever bytes come, they are counted as refused and nothing else happens."""
    fleet.up("a", noun, payload)
    assert sum(refused(fleet).values()) == 1


@pytest.mark.parametrize("topic", ["", "e/1", "e/1/00/d/a/up/state", "e/1/b/all/x/1", "x" * 300])
def test_odd_topics_are_counted(fleet: Fleet, topic: str) -> None:
    """A topic of another shape, or of a wrong shard, is refused."""
    fleet.ingest.take(topic, b"")
    assert refused(fleet) == {"bad-topic": 1}


def test_strangers_and_revoked_devices_are_not_heard(fleet: Fleet) -> None:
    """A device that is not enrolled (any more) changes nothing."""
    fleet.up("ghost", "state", FakeDevice("ghost").state(IDLE))
    enrol.revoke(fleet.hub, "me", "a")
    fleet.up("a", "state", fleet.devices["a"].state(IDLE))
    assert refused(fleet) == {"unknown-device": 2}


def twin(device: FakeDevice) -> FakeDevice:
    """A copy of a device's folder in another machine: same keys, same numbers, a boot of its own."""
    return replace(device, boot="c" * 32)


def standing(fleet: Fleet) -> str:
    """How the manager sees device `a`."""
    return str(devices.show(fleet.hub, "a")["status"])


def test_a_clone_is_put_in_quarantine_until_somebody_looks(fleet: Fleet) -> None:
    """Two boots take turns: not believed, offered nothing, told once in the log and in the status; released, heard again."""
    fleet.births()
    device = fleet.devices["a"]
    other = twin(device)
    fleet.up("a", "state", device.state(IDLE))
    fleet.up("a", "state", other.state(IDLE))
    assert standing(fleet) == "enrolled"
    fleet.up("a", "state", device.state({"main": SlotReport("idle", "digits", 2, "f" * 64)}))
    assert standing(fleet) == "clone" and refused(fleet) == {"stale-report": 1, "clone": 1}
    assert devices.show(fleet.hub, "a")["slots"] == {"main": ""} and status.overview(fleet.hub, None)["clones"] == 1
    fleet.publish(1)
    with pytest.raises(Misuse, match="selector-empty"):
        fleet.start()
    for one in (device, other):
        fleet.up("a", "state", one.state(IDLE))
        fleet.up("a", "presence", one.presence())
        fleet.up("a", "tele", seal_tele(window(0).to_bytes(), one.identity))
    assert refused(fleet)["quarantine"] == 6
    with fleet.hub.store.read() as tx:
        assert [entry["action"] for entry in audit.page(tx, 100)].count("device-clone") == 1
    enrol.release(fleet.hub, "me", "a")
    fleet.up("a", "state", device.state({"main": SlotReport("idle", "digits", 3, "f" * 64)}))
    assert standing(fleet) == "enrolled" and devices.show(fleet.hub, "a")["slots"] == {"main": "digits:3"}


def test_a_clone_is_told_apart_by_enrolling_one_of_them_anew(fleet: Fleet) -> None:
    """With a new token one of the two becomes the next incarnation; the other's reports and renewals are worthless."""
    device = fleet.devices["a"]
    other = twin(device)
    for one in (device, other, device):
        fleet.up("a", "state", one.state(IDLE))
    assert standing(fleet) == "clone"
    token = Token.decode(register.reissue(fleet.hub, "me", "a")["token"])
    enrol.redeem(fleet.hub, replace(device, identity=FakeDevice("a").identity).enrolment(token.secret))
    assert standing(fleet) == "enrolled"
    fleet.up("a", "state", other.state(IDLE))
    assert refused(fleet)["unknown-key"] == 1
    with pytest.raises(Misuse, match="renew-refused"):
        enrol.renew(fleet.hub, other.renewal())


def test_late_and_doubled_messages_of_the_boot_before_are_no_clone(fleet: Fleet) -> None:
    """A restart whose old messages come after the new ones, twice: stale, and nothing else."""
    device = fleet.devices["a"]
    late = [device.state(IDLE) for _ in range(5)]
    device.boot = "d" * 32
    fresh = [device.state(IDLE) for _ in range(5)]
    for old, new in zip(late, fresh, strict=True):
        for message in (new, old, old, new):
            fleet.up("a", "state", message)
    assert standing(fleet) == "enrolled" and set(refused(fleet)) == {"stale-report"}


def test_quarantine_outlives_a_restart(fleet: Fleet) -> None:
    """What was heard before a restart counts: the second turn may come after it."""
    device = fleet.devices["a"]
    fleet.up("a", "state", device.state(IDLE))
    other = replace(twin(device), seq=0)
    fleet.up("a", "state", other.state(IDLE))
    fleet.reopen()
    fleet.up("a", "state", device.state(IDLE))
    assert standing(fleet) == "clone"


def test_the_dead_are_mentioned_once(fleet: Fleet, clock: Clock) -> None:
    """Messages in the name of a decommissioned device are dropped; one line in the log, over restarts too."""
    fleet.births()
    enrol.decommission(fleet.hub, "me", "a")
    for _ in range(3):
        clock.now += 5
        fleet.up("a", "state", fleet.devices["a"].state(IDLE))
        fleet.up("a", "presence", b"whatever")
    assert refused(fleet) == {"decommissioned": 6}
    fleet.reopen()
    fleet.up("a", "state", fleet.devices["a"].state(IDLE))
    with fleet.hub.store.read() as tx:
        assert [entry["action"] for entry in audit.page(tx, 100)].count("device-after-end") == 1


@pytest.mark.parametrize("counter", [2**52, 2**53 - 1])
def test_an_absurd_counter_is_not_adopted(fleet: Fleet, counter: int) -> None:
    """A device cannot count its own manager out of numbers."""
    fleet.up("a", "state", fleet.devices["a"].state(IDLE, counter))
    fleet.up("a", "state", fleet.devices["a"].state(IDLE, command=counter))
    assert refused(fleet) == {"absurd-counter": 2} and devices.show(fleet.hub, "a")["counter"] == 0


def test_presence_follows_birth_goodbye_and_will(fleet: Fleet, clock: Clock) -> None:
    """A birth is online, a goodbye offline, a will unknown; a will of an earlier boot says nothing about this one."""
    device = fleet.devices["a"]

    def seen() -> str:
        return str(devices.show(fleet.hub, "a")["presence"])

    stale_will = device.presence("gone")
    device.boot = "b" * 32
    fleet.births()
    fleet.up("a", "presence", stale_will)
    assert seen() == "online"
    clock.now += 1
    fleet.up("a", "presence", device.presence("gone"))
    assert seen() == "unknown"
    fleet.up("a", "state", device.state(IDLE))
    assert seen() == "online"
    fleet.up("a", "presence", device.presence("goodbye"))
    assert seen() == "offline"
    clock.now += 5
    fleet.births()
    assert seen() == "online"
    clock.now += 1000
    assert seen() == "offline"


def test_a_manager_from_a_backup_goes_on_from_the_devices_counter(fleet: Fleet) -> None:
    """A device that has seen a newer counter makes the manager sign above it, and the adoption is audited."""
    fleet.births()
    fleet.publish(1)
    fleet.start()
    fleet.letters()
    device = fleet.devices["a"]
    assert device.trust
    device.trust = replace(device.trust, counter=41)
    fleet.up("a", "state", device.state(IDLE, 41))
    assert fleet.deliver()["a"].counter == 42
    with fleet.hub.store.read() as tx:
        assert any(entry["action"] == "counter-adopted" for entry in audit.page(tx, 10))


def test_lost_orders_are_sent_again(fleet: Fleet, clock: Clock) -> None:
    """A device that goes on reporting an older counter gets its orders again every ten seconds, and none once it has them."""
    fleet.births()
    fleet.publish(1)
    fleet.start()
    fleet.letters()
    device, sent = fleet.devices["a"], []
    for seconds in (0, 5, 5, 5, 5):
        clock.now += seconds
        fleet.up("a", "state", device.state(IDLE, 0))
        sent.append([letter.topic for letter in fleet.letters()])
    orders = [topics.down("a", "desired")]
    assert sent == [[], [], orders, [], orders]
    clock.now += 60
    fleet.up("a", "state", device.state(IDLE, 1))
    assert not fleet.letters()


RNG = np.random.default_rng(7)
PROFILE = build_reference(RNG.normal(size=(2000, 4)), seed=1)


def window(seq: int, release: str = "0" * 64, profile: ReferenceProfile = PROFILE, shift: float = 0.0) -> SketchWindow:
    """A telemetry window of 400 calls."""
    rows = RNG.normal(size=(400, 4)) + shift
    tally = Tally(400, 400, 2, 0, 0, profile.count(rows), LatencyHistogram.of(np.full(400, 900)))
    return SketchWindow(bytes.fromhex(release)[:8], profile.hash8, b"b" * 16, seq, NOW * 1000 + seq * 1000, 1000, 1, tally)


def test_windows_are_kept_once_and_gaps_counted(fleet: Fleet) -> None:
    """A window that arrives twice counts once; a missing number is a gap."""
    device = fleet.devices["a"]
    for seq in (0, 1, 1, 3, 0):
        fleet.up("a", "tele", seal_tele(window(seq).to_bytes(), device.identity))
    (row,) = telemetry.listed(fleet.hub)
    assert (row["windows"], row["gaps"], row["calls"], row["errors"]) == (3, 1, 1200, 6)
    assert row["p50_us"] == pytest.approx(900, rel=0.05) and row["p99_us"] == pytest.approx(900, rel=0.05)


def test_a_repeated_window_brings_nobody_back_and_counts_once(fleet: Fleet, clock: Clock) -> None:
    """Neither one the manager knows nor one it has forgotten; one of a device without a clock is taken however old it looks."""
    device = fleet.devices["a"]
    recorded = [seal_tele(window(seq).to_bytes(), device.identity) for seq in (0, 1)]
    fleet.births()
    fleet.up("a", "tele", recorded[0])
    clock.now += 100 * 86_400
    for _ in range(2):
        for one in recorded:
            fleet.up("a", "tele", one)
        assert devices.show(fleet.hub, "a")["presence"] == "offline"
        reconcile.renew(fleet.hub)
    assert refused(fleet) == {"stale-window": 4} and telemetry.listed(fleet.hub) == []
    unset = replace(window(2), start_ms=5_000)
    fleet.up("a", "tele", seal_tele(unset.to_bytes(), device.identity))
    assert telemetry.listed(fleet.hub)[0]["windows"] == 1


def test_windows_of_many_devices_merge_exactly(hub: Hub, clock: Clock) -> None:
    """By release and for the fleet, calls and gaps add up and quantiles are of all calls together, not of devices' quantiles."""
    fleet = Fleet(hub, clock, ["a", "b"])
    for name, release, seqs in (("a", "0" * 64, (0, 1)), ("b", "0" * 64, (0, 2)), ("b", "1" * 64, (3,))):
        for seq in seqs:
            fleet.up(name, "tele", seal_tele(window(seq, release).to_bytes(), fleet.devices[name].identity))
    found = telemetry.listed(fleet.hub, by="release")
    assert [(row["device"], row["devices"], row["calls"], row["gaps"]) for row in found] == [("", 2, 1600, 1), ("", 1, 400, 0)]
    (total,) = telemetry.listed(fleet.hub, by="fleet")
    assert (total["devices"], total["calls"], total["gaps"]) == (2, 2000, 1)
    assert [row["calls"] for row in telemetry.listed(fleet.hub, "b", "fleet")] == [1200]
    assert total["p50_us"] == pytest.approx(900, rel=0.05)


def running_with_reference(fleet: Fleet) -> str:
    """The device runs a release that carries a reference profile."""
    release = fleet.publish(1, reference=PROFILE.to_bytes())
    device = fleet.devices["a"]
    fleet.up("a", "state", device.state({"main": SlotReport("idle", "digits", 1, release, "base")}))
    return release


@pytest.mark.parametrize(("shift", "alarm"), [(0.0, False), (0.8, True)])
def test_drift_is_seen_where_there_is_some(fleet: Fleet, shift: float, alarm: bool) -> None:
    """Traffic that left the reference raises the alarm with an effect and a probe; traffic like the reference does not."""
    release = running_with_reference(fleet)
    for seq in range(4):
        fleet.up("a", "tele", seal_tele(window(seq, release, shift=shift).to_bytes(), fleet.devices["a"].identity))
    (row,) = telemetry.drift(fleet.hub)
    assert (row["alarm"], row["windows"], row["n"] > 0) == (alarm, 4, True)
    assert (row["effect"] > 0.2) == alarm and row["probes"][0]["probe"]


def test_drift_looks_only_at_the_running_release(fleet: Fleet) -> None:
    """Windows of an older release do not count against the new one."""
    release = running_with_reference(fleet)
    device = fleet.devices["a"]
    for seq in range(4):
        fleet.up("a", "tele", seal_tele(window(seq, "1" * 64, shift=3.0).to_bytes(), device.identity))
    assert telemetry.drift(fleet.hub)[0]["verdict"] == "no-telemetry"
    fleet.up("a", "tele", seal_tele(window(9, release).to_bytes(), device.identity))
    assert telemetry.drift(fleet.hub)[0]["alarm"] is False


def test_a_release_without_reference_is_not_judged(fleet: Fleet) -> None:
    """No reference, no verdict, and it says so."""
    release = fleet.publish(1)
    report = SlotReport("idle", "digits", 1, release, "base")
    fleet.up("a", "state", fleet.devices["a"].state({"main": report}))
    (row,) = telemetry.drift(fleet.hub)
    assert (row["verdict"], row["alarm"]) == ("no-reference", None)
