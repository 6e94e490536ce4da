"""Keys and documents change while straws run: the real manager, the real core, and a thief who has one key of it."""

import dataclasses
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection

from edgeops.manager import documents, reconcile, releases, rollouts
from edgeops.manager.files import write_whole
from edgeops.manager.papers import read_papers
from edgeops.manager.setup import load_signer
from edgeops.manager.site import read_site
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.desired import Floor
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer, private_pem
from edgeops.wire.messages import Bundle
from edgeops.wire.rotation import Change, next_root
from edgeops.wire.trust import versions

from .world import Founded, Weather, World

FAR = 2**53 - 2


@pytest.fixture
def world(small: Founded, worlds: Callable[..., World]) -> World:
    """Six straws that run release 1, online; what is sent to a device comes in its order, as a broker delivers it."""
    made = worlds(small, 0, Weather(late_s=0.0))
    made.called = True  # an order signed anew for what runs already ends as committed at once
    made.begin()
    made.air.run(3.0)
    return made


def new_root(world: World, change: Change) -> None:
    """Publish the root that follows from a change, signed by the root key."""
    layout = world.hub.layout
    made = next_root(world.hub.root, change, world.hub.now())
    sealed = envelope.seal("root", made.payload(), [load_signer(layout.key("root"))])
    documents.publish(world.hub, "me", "root", sealed)


def rotate_online(world: World) -> None:
    """What `edgeops key rotate online` does."""
    private = Ed25519PrivateKey.generate()
    made = Signer.of(private)
    write_whole(world.hub.layout.key(f"online-{made.id[:8]}"), private_pem(private), 0o600)
    new_root(world, Change((("online", made.public),), (("online", world.hub.online.id),)))


def raise_floor(world: World, version: int) -> None:
    """Publish a floor for the model of these straws, signed by the release key."""
    floor = Floor(world.hub.settings.fleet, world.hub.trust.floor_version + 1, {"digits": version})
    documents.publish(world.hub, "me", "floor", envelope.seal("floor", floor.payload(), [signer(world, "release")]))


def signer(world: World, role: str) -> Signer:
    """A key of the manager's folder."""
    return load_signer(world.hub.layout.key(role))


def finishes(world: World, version: int) -> None:
    """A rollout of this version goes to its end on all straws."""
    rollout = world.start(version)
    assert world.until(lambda: world.status(rollout) == "finished", 120), world.refused
    world.air.run(world.clock.at + 5)
    assert world.whole(version) == len(world.straws)


def stored(tx: Connection, digest: str) -> bytes:
    """A release as it is signed now."""
    return bytes(releases.rows.get(tx, releases.releases, digest=digest)["envelope"])  # type: ignore[index]


def has(world: World) -> set[tuple[int, ...]]:
    """The document versions of all straws."""
    return {tuple(versions(made.record.trust).values()) for made in world.straws.values()}


def test_devices_follow_a_new_online_key(world: World) -> None:
    """The online key is replaced under enrolled devices: they take the root, then orders of the new key; nothing is refused."""
    old = world.hub.online
    rotate_online(world)
    assert world.hub.online.id != old.id
    world.air.run(world.clock.at + 5)
    assert has(world) == {(2, 1, 0)}
    with world.hub.store.read() as tx:
        kept = [bytes(row[0]) for row in tx.exec_driver_sql("select desired from devices")]
        told = [row[0] for row in tx.exec_driver_sql("select documents from devices")]
    assert {envelope.signers_of(sealed, "desired") for sealed in kept} == {frozenset({world.hub.online.id})}
    assert all('"root": 2' in text for text in told)
    finishes(world, 2)
    assert [line for line in world.refused if "time-floor" not in line] == []  # this world began a second early


def test_who_was_away_follows_too(world: World) -> None:
    """A device that missed three roots gets them in order in front of its next orders."""
    world.air.cut("straw-00")
    for _ in range(3):
        rotate_online(world)
        world.air.run(world.clock.at + 3)
    assert has(world) == {(4, 1, 0), (1, 1, 0)}
    world._join("straw-00")
    world.air.run(world.clock.at + 3)
    assert has(world) == {(4, 1, 0)}
    finishes(world, 2)


def test_a_stolen_online_key_is_outlived(world: World) -> None:
    """A thief orders with the last counter there is, so that no honest order is newer. A raised epoch brings the devices back, and
    the thief's orders are worthless from then on.
    """
    thief, name = world.hub.online, "straw-03"
    with world.hub.store.read() as tx:
        sealed = tx.exec_driver_sql("select desired from devices where id = ?", (name,)).scalar()
    assert isinstance(sealed, bytes)
    body = canonical.decode(envelope.split(sealed, "desired")[0])
    last = envelope.seal("desired", body | {"counter": FAR}, [thief])
    world.ordered[name][0, FAR] = {world.releases[1]}
    world.air.down(topics.down(name, "desired"), Bundle((("desired", last),)).encode())
    world.air.run(world.clock.at + 2)
    assert world.straws[name].record.trust.counter == FAR
    rollout = world.start(2, to=f"name={name}")
    assert not world.until(lambda: world.status(rollout) == "finished", 30)
    rotate_online(world)
    assert world.hub.root.epoch == 1
    assert world.until(lambda: world.status(rollout) == "finished", 90)
    assert world.straws[name].record.trust.counter < FAR
    again = envelope.seal("desired", body | {"counter": FAR, "epoch": 1}, [thief])
    world.air.down(topics.down(name, "desired"), Bundle((("desired", last), ("desired", again))).encode())
    world.air.run(world.clock.at + 2)
    assert world.straws[name].record.trust.counter < FAR
    assert [line.rpartition("[")[2] for line in world.refused[-2:]] == ["unknown-key]", "unknown-key]"]


def test_a_removed_release_key_is_not_believed(world: World) -> None:
    """What a removed release key has signed is not offered and its rollouts are held; once it is signed anew all goes on."""
    old, hub = signer(world, "release"), world.hub
    rollout = world.start(2)
    world.air.run(world.clock.at + 1)
    fresh = Signer.from_seed(b"f" * 32)
    new_root(world, Change((("release", fresh.public),), (("release", old.id),)))
    assert world.status(rollout) == "paused"
    assert documents.status(hub)["unsigned_releases"] == ["digits:1", "digits:2"]
    with pytest.raises(Misuse, match="release sign") as caught:
        world.start(2, slot="other")
    assert caught.value.reason == "release-unsigned"
    world.air.run(world.clock.at + 5)
    assert has(world) == {(2, 1, 0)}
    assert all(made.running for made in world.straws.values())
    before = list(world.refused)
    for version in (1, 2):
        with hub.store.read() as tx:
            row = stored(tx, world.releases[version])
        releases.accept(hub, "me", envelope.countersign(row, "release", [fresh]))
    assert documents.status(hub)["unsigned_releases"] == []
    rollouts.operate(hub, "me", rollout, "resume")
    assert world.until(lambda: world.status(rollout) == "finished", 120), world.refused
    assert world.refused == before


def test_a_floor_rises_after_a_rollout(world: World) -> None:
    """No floor above what a finished rollout has brought; until it rises a revert works, afterwards older releases are refused."""
    with pytest.raises(Misuse) as caught:
        raise_floor(world, 2)
    assert caught.value.reason == "floor-unproven"
    rollout = world.start(2, waves="50%,100%", policy={"dwell_s": 3600})
    world.air.run(world.clock.at + 30)
    rollouts.operate(world.hub, "me", rollout, "abort", "revert")
    assert world.until(lambda: world.whole(1) == len(world.straws), 60)
    finishes(world, 2)
    raise_floor(world, 2)
    world.air.run(world.clock.at + 3)
    assert has(world) == {(1, 1, 1)}
    with pytest.raises(Misuse) as caught:
        world.start(1)
    assert caught.value.reason == "below-floor"
    name, made = "straw-01", world.straws["straw-01"]
    with world.hub.store.read() as tx:
        sealed = tx.exec_driver_sql("select desired from devices where id = ?", (name,)).scalar()
    body = canonical.decode(envelope.split(bytes(sealed), "desired")[0])
    wish = body["slots"]["main"] | {"release": world.releases[1]}
    forged = envelope.seal("desired", body | {"counter": body["counter"] + 1, "slots": {"main": wish}}, [world.hub.online])
    with world.hub.store.read() as tx:
        old = stored(tx, world.releases[1])
    world.air.down(topics.down(name, "desired"), Bundle((("release", old), ("desired", forged))).encode())
    world.air.run(world.clock.at + 2)
    assert "[below-floor]" in world.refused[-1]
    assert made.running["main"].release == world.releases[2]


def test_a_floor_leaves_nobody_behind(world: World) -> None:
    """While devices are ordered to run something older, or an older rollout is open, no floor above it is published."""
    finishes(world, 2)
    rollout = world.start(1, to="name=straw-00")
    with pytest.raises(Misuse) as caught:
        raise_floor(world, 2)
    assert caught.value.reason == "floor-busy"
    assert world.until(lambda: world.status(rollout) == "finished", 60)
    with pytest.raises(Misuse, match="straw-00") as caught:
        raise_floor(world, 2)
    assert caught.value.reason == "floor-in-use"
    raise_floor(world, 1)
    with pytest.raises(Misuse) as caught:
        floor = Floor(world.hub.settings.fleet, 2, {"pears": 1})
        documents.publish(world.hub, "me", "floor", envelope.seal("floor", floor.payload(), [signer(world, "release")]))
    assert caught.value.reason == "floor-lowered"


def test_the_work_after_a_root_is_never_lost(world: World) -> None:
    """The manager dies right after a new root was written: the next one does the rest, and devices follow."""
    private = Ed25519PrivateKey.generate()
    made, hub = Signer.of(private), world.hub
    write_whole(hub.layout.key(f"online-{made.id[:8]}"), private_pem(private), 0o600)
    root = next_root(hub.root, Change((("online", made.public),), (("online", hub.online.id),)), hub.now())
    write_whole(hub.layout.document("root-2"), envelope.seal("root", root.payload(), [signer(world, "root")]))
    hub.shelf.papers = read_papers(hub.layout, hub.settings, hub.now())
    reconcile.renew(hub)
    for name in world.straws:
        world.air.cut(name)
        world._join(name)
    world.air.run(world.clock.at + 5)
    assert has(world) == {(2, 1, 0)}
    finishes(world, 2)


def test_a_new_site_reaches_everybody(world: World) -> None:
    """A published site document goes to all who are there; one with ports where nobody answers, or an unknown CA, does not."""
    site = read_site(world.hub.site_document)
    for change, reason in (
        ({"mqtt": ("mqtts://elsewhere:1",)}, "site-stale"), ({"cas": (site.cas[0].replace("M", "N", 1),)}, "unknown-ca"),
        ({"version": 1, "issued": site.issued + 1}, "site-version"),
    ):  # fmt: skip
        wrong = dataclasses.replace(site, **{"version": 2} | change)
        with pytest.raises(Exception) as caught:
            documents.publish(world.hub, "me", "site", envelope.seal("site", wrong.payload(), [signer(world, "site")]))
        assert getattr(caught.value, "reason", "") == reason
    moved = dataclasses.replace(site, version=2, mqtt=("mqtts://new.example:8883", *site.mqtt))
    documents.publish(world.hub, "me", "site", envelope.seal("site", moved.payload(), [signer(world, "site")]))
    world.air.run(world.clock.at + 3)
    assert has(world) == {(1, 2, 0)}
    assert documents.status(world.hub)["have"]["site"] == len(world.straws)
