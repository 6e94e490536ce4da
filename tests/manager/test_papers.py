"""What is published: no root that devices could not get out of again, nothing without an entry in the log, all as devices do."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from manager_house import Clock, Fleet, release_signer

from edgeops.manager import documents
from edgeops.manager.hub import Hub, open_hub
from edgeops.manager.setup import load_signer
from edgeops.manager.site import read_site
from edgeops.store import audit
from edgeops.wire.desired import Floor
from edgeops.wire.envelope import seal
from edgeops.wire.errors import Misuse
from edgeops.wire.keys import Signer
from edgeops.wire.rotation import Change, next_root
from edgeops.wire.trust import accept_floor, accept_site, advance_root, current_root

LAST = 2**53 - 1
NEW = {role: Signer.from_seed(role.encode().ljust(32, b".")) for role in ("site", "release", "other")}


def made_root(hub: Hub, change: Change, now: int) -> bytes:
    """The next root with a change, signed."""
    return seal("root", next_root(hub.root, change, now).payload(), [load_signer(hub.layout.key("root"))])


def published(hub: Hub) -> list[tuple[str, str]]:
    """Who published what, by the log."""
    with hub.store.read() as tx:
        return [(entry["who"], entry["subject"]) for entry in audit.page(tx, 50) if entry["action"].endswith("-publish")]


def replaced(hub: Hub, *roles: str) -> Change:
    """New keys in place of all old ones of these roles, and a raised epoch."""
    return Change(
        tuple((role, NEW[role].public) for role in roles),
        tuple((role, name) for role in roles for name in hub.root.roles[role].keys), raise_epoch=True,
    )  # fmt: skip


def test_a_root_from_the_future_is_not_published(hub: Hub, clock: Clock) -> None:
    """Made on a laptop with a wrong clock, it would leave devices without any time they could believe; a day is forgiven."""
    with pytest.raises(Misuse, match="root-ahead"):
        documents.publish(hub, "me", "root", made_root(hub, Change(raise_epoch=True), clock.now + 86_401))
    assert hub.root.version == 1 and not hub.layout.document("root-2").exists() and not published(hub)
    assert documents.publish(hub, "me", "root", made_root(hub, Change(raise_epoch=True), clock.now + 86_400))["epoch"] == 1


@pytest.mark.parametrize("role", ["site", "release"])
def test_no_key_comes_back(hub: Hub, clock: Clock, role: str) -> None:
    """A device that has begun to count anew would believe old documents of a key that comes back to its role."""
    (old,) = (hub.root.keys[name] for name in hub.root.roles[role].keys)
    documents.publish(hub, "me", "root", made_root(hub, replaced(hub, role), clock.now))
    with pytest.raises(Misuse, match="key-returned"):
        documents.publish(hub, "me", "root", made_root(hub, Change(((role, old),)), clock.now))
    documents.publish(hub, "me", "root", made_root(hub, Change(((role, NEW["other"].public),)), clock.now))


def test_what_a_thief_drove_to_its_end_is_taken_back(hub: Hub, clock: Clock) -> None:
    """A device with the last site, floor version and floors there are follows the manager's next root, site and floor."""
    fleet = Fleet(hub, clock, ["a"])
    fleet.births()
    fleet.deliver()
    held = fleet.devices["a"].trust
    assert held is not None
    site = read_site(hub.site_document)
    theirs = seal("site", replace(site, version=LAST).payload(), [load_signer(hub.layout.key("site"))])
    flood = seal("floor", Floor(site.fleet, LAST, {"digits": LAST}).payload(), [release_signer(hub.layout.root)])
    held = accept_floor(accept_site(held, theirs)[0], flood)
    documents.publish(hub, "me", "root", made_root(hub, replaced(hub, "site", "release"), clock.now))
    assert hub.papers.stale == ("site",)
    held = advance_root(held, hub.root_document)
    assert (held.site_version, held.floor_version, held.floors) == (0, 0, {})
    documents.publish(hub, "me", "site", seal("site", replace(site, version=2).payload(), [NEW["site"]]))
    documents.publish(hub, "me", "floor", seal("floor", Floor(site.fleet, 1, {}).payload(), [NEW["release"]]))
    for kind, data in hub.papers.after({"root": 2, "site": held.site_version, "floor": held.floor_version}):
        held = accept_site(held, data)[0] if kind == "site" else accept_floor(held, data)
    mine = hub.trust
    assert (held.site_version, held.floor_version, held.floors) == (2, 1, {})
    assert (mine.site_version, mine.floor_version, mine.floors) == (2, 1, {})
    assert current_root(held) == hub.root
    again = open_hub(hub.layout.root, clock)
    try:
        assert again.trust == mine
    finally:
        again.close()


def full(*_args: object, **_more: object) -> None:
    """A disk that takes no more."""
    raise OSError(28, "No space left on device")


def dies_after_the_file(hub: Hub, sealed: bytes, patch: pytest.MonkeyPatch) -> None:
    """Publish a root; the power goes once its file is there and before the store has kept anything."""
    real: Callable[[Path, bytes], None] = documents.write_whole

    def write(path: Path, data: bytes) -> None:
        real(path, data)
        full()

    with patch.context() as once, pytest.raises(OSError):
        once.setattr(documents, "write_whole", write)
        documents.publish(hub, "mallory", "root", sealed)


def test_what_the_log_cannot_keep_is_not_published(hub: Hub, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk too full for the entry: no file, no root; once there is room it is published, and the log says by whom."""
    sealed = made_root(hub, Change(raise_epoch=True), clock.now)
    with monkeypatch.context() as once, pytest.raises(OSError):
        once.setattr(documents.audit, "write", full)
        documents.publish(hub, "mallory", "root", sealed)
    assert hub.root.version == 1 and not hub.layout.document("root-2").exists()
    for _ in range(2):
        documents.publish(hub, "mallory", "root", sealed)
    assert published(hub) == [("mallory", "root 2")]


def test_a_root_found_at_start_gets_its_entry(hub: Hub, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager dies between the file and the entry: the next start logs it, once; so does whoever publishes it again first."""
    dies_after_the_file(hub, made_root(hub, Change(raise_epoch=True), clock.now), monkeypatch)
    assert not published(hub)
    again = open_hub(hub.layout.root, clock)
    try:
        for _ in range(2):
            documents.log_missing(again)
        assert published(again) == [(documents.LATER, "root 2")]
        dies_after_the_file(again, made_root(again, Change(raise_epoch=True), clock.now), monkeypatch)
    finally:
        again.close()
    last = open_hub(hub.layout.root, clock)
    try:
        documents.publish(last, "mallory", "root", last.root_document)
        assert published(last)[1:] == [("mallory", "root 3")]
    finally:
        last.close()
