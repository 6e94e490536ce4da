"""Root n+1 by the rules, for any keys, thresholds and signatures; the first trust of a device in a later root of the chain."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeops.wire import envelope
from edgeops.wire.desired import Floor
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer, is_encrypted, private_pem, public_from_text, public_pem, signer_from_pem
from edgeops.wire.root import ROLES, Role, Root
from edgeops.wire.rotation import Change, next_root, read_root, wanting
from edgeops.wire.trust import Trust, accept_floor, accept_site, advance_root, current_root, pin_chain, pin_root

from . import world as w

FLEET = "orchard"
POOL = [Signer.from_seed(hashlib.sha256(b"%d" % number).digest()) for number in range(8)]
REST = [Signer.from_seed(hashlib.sha256(role.encode()).digest()) for role in ROLES[1:]]
NUMBERS = st.integers(0, 7)
sets = st.sets(NUMBERS, min_size=1, max_size=5)
DEEDS = st.tuples(st.sampled_from(ROLES), NUMBERS, st.sampled_from(["add", "remove", "two", "epoch"]))


def root_of(version: int, holders: set[int], threshold: int, epoch: int = 0) -> Root:
    """A root held by some of the pool; the other roles have a key each."""
    keys = {one.id: one.public for one in [*(POOL[number] for number in holders), *REST]}
    roles = {role: Role((signer.id,), 1) for role, signer in zip(ROLES[1:], REST, strict=True)}
    held = Role(tuple(POOL[number].id for number in sorted(holders)), min(threshold, len(holders)))
    return Root(FLEET, version, epoch, 1000 + version, keys, {"root": held, **roles})


def trust_in(root: Root, holders: set[int]) -> Trust:
    """A device that believes this root."""
    sealed = envelope.seal("root", root.payload(), [POOL[number] for number in holders])
    return Trust(FLEET, "d", 1, sealed, counter=7, command=3, time_floor=5000)


@settings(max_examples=300, deadline=None)
@given(sets, sets, st.sets(NUMBERS, min_size=1), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 2))
def test_exactly_the_rule(
    old: set[int], new: set[int], signed: set[int], t_old: int, t_new: int, step: int, epoch: int
) -> None:
    """Root m is believed after root n if and only if m = n + 1, its epoch is no lower, all who signed are keys of one of both, and
    at least the threshold of each have signed. A raised epoch clears counters and time floor, nothing else does.
    """
    before, after = root_of(4, old, t_old, 1), root_of(3 + step, new, t_new, epoch)
    sealed = envelope.seal("root", after.payload(), [POOL[number] for number in signed])
    enough = len(signed & old) >= min(t_old, len(old)) and len(signed & new) >= min(t_new, len(new))
    right = signed <= old | new and enough and step == 2 and epoch >= 1
    assert (wanting(envelope.signers_of(sealed, "root"), [before, after], "root") == 0) == enough
    try:
        trust = advance_root(trust_in(before, old), sealed)
    except Rejected as error:
        assert not right, error
        assert error.reason in ("threshold", "unknown-key", "root-version", "epoch")
    else:
        assert right
        kept = (trust.counter, trust.command, trust.time_floor)
        assert kept == ((0, 0, after.issued) if epoch > 1 else (7, 3, 5000))


@settings(max_examples=200, deadline=None)
@given(st.lists(DEEDS, max_size=8))
def test_every_proposal_can_be_believed(steps: list[tuple[str, int, str]]) -> None:
    """Whatever is proposed from whatever root: when it is made at all, devices believe it, signed by all root keys of both."""
    root = root_of(1, {0, 1}, 1)
    signers = {one.id: one for one in [*POOL, *REST]}
    trust = trust_in(root, {0, 1})
    for role, number, what in steps:
        key = POOL[number]
        change = {
            "add": Change(((role, key.public),)), "remove": Change(remove=((role, key.id[:9]),)),
            "two": Change(thresholds={role: 2}), "epoch": Change(raise_epoch=True),
        }[what]  # fmt: skip
        try:
            made = next_root(root, change, 0)
        except Misuse as error:
            assert error.reason in ("key-known", "two-roles", "unknown-key", "role-too-small", "no-change", "too-many-keys")
            continue
        holders = {*root.roles["root"].keys, *made.roles["root"].keys}
        sealed = envelope.seal("root", made.payload(), [signers[name] for name in holders])
        trust = advance_root(trust, sealed)
        assert current_root(trust) == made == read_root(sealed)
        assert {name for held in made.roles.values() for name in held.keys} == set(made.keys)
        assert made.epoch > root.epoch if what == "epoch" else made.epoch >= root.epoch
        root = made


def test_a_removed_online_key_raises_the_epoch() -> None:
    """Whoever had it may have used up the counters; any other change leaves the epoch."""
    root = root_of(1, {0}, 1)
    online = root.roles["online"].keys[0]
    assert next_root(root, Change((("online", POOL[1].public),), (("online", online),)), 0).epoch == 1
    assert next_root(root, Change((("online", POOL[1].public),)), 0).epoch == 0
    assert next_root(root, Change((("site", POOL[1].public),)), 0).epoch == 0


def held_by(version: int, epoch: int, site: set[int], release: set[int], threshold: int = 1) -> Root:
    """A root whose site and release keys are of the pool; the last of REST is its root and online key."""
    places, publishers = ([POOL[number] for number in sorted(held)] for held in (site, release))
    signers = {"root": [REST[2]], "online": [REST[2]], "site": places, "release": publishers}
    keys = {one.id: one.public for held in signers.values() for one in held}
    roles = {role: Role(tuple(one.id for one in held), min(threshold, len(held))) for role, held in signers.items()}
    return Root(FLEET, version, epoch, 1000, keys, roles)


LAST = 2**53 - 1
RECKLESS = replace(trust_in(root_of(1, {0}, 1), {0}), site_version=LAST, floor_version=LAST, floors={"digits": LAST})


@settings(max_examples=200, deadline=None)
@given(sets, sets, sets, sets, st.integers(1, 2), st.integers(0, 1))
def test_what_a_thief_counted_to_its_end_starts_again(
    site: set[int], next_site: set[int], release: set[int], next_release: set[int], threshold: int, raised: int
) -> None:
    """Versions go back to 0 exactly where a role keeps none of its keys; floors only if the epoch is raised in the same root."""
    before, after = held_by(1, 0, site, release), held_by(2, raised, next_site, next_release, threshold)
    held = replace(RECKLESS, root=envelope.seal("root", before.payload(), [REST[2]]))
    got = advance_root(held, envelope.seal("root", after.payload(), [REST[2]]))
    new_site, new_release = not site & next_site, not release & next_release
    assert got.site_version == (0 if new_site else LAST)
    assert got.floor_version == (0 if new_release else LAST)
    assert got.floors == ({} if new_release and raised else {"digits": LAST})


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(sets, st.integers(1, 3), st.integers(0, 1)), min_size=2, max_size=5), st.data())
def test_no_root_brings_an_old_document_back(steps: list[tuple[set[int], int, int]], data: st.DataObject) -> None:
    """Along any chain of roots in which no key comes back to its role: what was believed once is never believed again, also with
    some of its signatures taken off, and no floor falls by a document.
    """
    gone, chain, last = set[int](), list[Root](), set[int]()
    for holders, threshold, raised in steps:
        now = holders - gone
        if now:
            gone |= last - now
            chain.append(held_by(len(chain) + 1, chain[-1].epoch + raised if chain else 0, now, now, threshold))
            last = now
    held, seen = replace(RECKLESS, root=b"", site_version=0, floor_version=0, floors={}), list[tuple[str, bytes, list[str]]]()
    for root in chain:
        sealed = envelope.seal("root", root.payload(), [REST[2]])
        held = advance_root(held, sealed) if held.root else replace(held, root=sealed)
        for kind, old, signed in seen:
            some = data.draw(st.sets(st.sampled_from(signed), min_size=1))
            with pytest.raises(Rejected):
                offered(held, kind, envelope.signed_only_by(old, kind, some))
        version = max(held.site_version, held.floor_version) + data.draw(st.integers(1, 5))
        place = replace(w.SITE, fleet=FLEET, version=version)
        signers = [POOL[n] for n in range(len(POOL)) if POOL[n].id in root.roles["site"].keys]
        for kind, document in (("site", place), ("floor", Floor(FLEET, version, {"digits": version}))):
            made = envelope.seal(kind, document.payload(), signers)
            held = offered(held, kind, made)
            seen.append((kind, made, [one.id for one in signers]))


def offered(trust: Trust, kind: str, data: bytes) -> Trust:
    """What a device trusts after a site or a floor."""
    return accept_site(trust, data)[0] if kind == "site" else accept_floor(trust, data)


def test_a_root_is_dated_when_it_is_made() -> None:
    """A wrong clock once does not date all later roots: devices take a root's date as their time where it raises the epoch."""
    far = replace(root_of(1, {0}, 1), issued=2**40)
    assert next_root(far, Change(raise_epoch=True), 5000).issued == 5000


@pytest.fixture
def chain() -> list[bytes]:
    """Root 1 of key 0, root 2 of key 1, root 3 of key 2, each signed by the one before and by itself."""
    roots = [root_of(number + 1, {number}, 1) for number in range(3)]
    signers = [[POOL[0]], POOL[:2], POOL[1:3]]
    return [envelope.seal("root", root.payload(), signed) for root, signed in zip(roots, signers, strict=True)]


def test_a_device_may_begin_anywhere_in_the_chain(chain: list[bytes]) -> None:
    """Whichever root its token names, it ends with the newest; it believes no chain that its root does not stand in."""
    for index, data in enumerate(chain):
        trust = pin_chain(chain, FLEET, envelope.digest_of(data, "root"), "d", 1)
        assert current_root(trust).version == 3
        assert pin_chain(chain[index:], FLEET, envelope.digest_of(data, "root"), "d", 1) == trust
    with pytest.raises(Rejected, match="root-pin"):
        pin_chain(chain, FLEET, "0" * 64, "d", 1)
    with pytest.raises(Rejected, match="unknown-key"):
        pin_chain([chain[0], chain[2]], FLEET, envelope.digest_of(chain[0], "root"), "d", 1)


def test_a_removed_root_key_misleads_no_new_device(chain: list[bytes]) -> None:
    """A thief with root 1's key makes a chain of his own; a token that names root 2 does not begin there."""
    forged = replace(root_of(2, {5}, 1), epoch=9)
    mine = envelope.seal("root", forged.payload(), [POOL[0], POOL[5]])
    assert current_root(pin_chain([chain[0], mine], FLEET, envelope.digest_of(chain[0], "root"), "d", 1)).epoch == 9
    with pytest.raises(Rejected, match="root-pin"):
        pin_chain([chain[0], mine], FLEET, envelope.digest_of(chain[1], "root"), "d", 1)


def test_strangers_signatures_still_count_for_nothing(chain: list[bytes]) -> None:
    """The first root alone is taken only as it is: a signature nobody can check spoils it."""
    sealed = envelope.countersign(chain[0], "root", [POOL[6]])
    with pytest.raises(Rejected, match="unknown-key"):
        pin_root(sealed, FLEET, envelope.digest_of(sealed, "root"), "d", 1)


@given(st.permutations(range(4)))
def test_holders_may_sign_in_any_order(order: list[int]) -> None:
    """One after the other or all at once: the envelope is the same, and a second signature of one key changes nothing."""
    payload = root_of(1, {0, 1, 2, 3}, 2).payload()
    sealed = envelope.seal("root", payload, [])
    for number in order:
        sealed = envelope.countersign(sealed, "root", [POOL[number]])
    assert sealed == envelope.seal("root", payload, POOL[:4])
    assert envelope.countersign(sealed, "root", [POOL[order[0]]]) == sealed
    assert envelope.signed_only_by(sealed, "root", [POOL[0].id]) == envelope.seal("root", payload, [POOL[0]])


def test_keys_in_files() -> None:
    """PEM, with and without a passphrase, gives the same signer back; what is not a key is named."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = Ed25519PrivateKey.generate()
    for word in ("", "pass word"):
        pem = private_pem(private, word)
        assert is_encrypted(pem) == bool(word)
        assert signer_from_pem(pem, "it", word).public == public_from_text(public_pem(Signer.of(private).public).decode(), "it")
    other = ec.generate_private_key(ec.SECP256R1())
    foreign = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    for pem in (foreign, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(Misuse, match="bad-key"):
            signer_from_pem(pem, "it")
    for text in (public, "", "00", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(Misuse, match="bad-key"):
            public_from_text(text, "it")
