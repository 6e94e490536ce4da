"""The trust rules: honest documents pass and change what they should. The attacks stand in tests/attacks."""

from dataclasses import replace

import pytest

from edgeops.wire import trust as rules
from edgeops.wire.desired import Floor
from edgeops.wire.errors import Rejected
from edgeops.wire.fields import Fields

from . import world as w

HONEST = w.sealed("desired", w.DESIRED)


def test_honest_desired() -> None:
    """Desired that is newer, ours and in time is believed, and its counter is kept."""
    trust, desired = rules.accept_desired(w.TRUST, HONEST, w.NOW)
    assert desired == w.DESIRED
    assert trust == replace(w.TRUST, counter=6)
    with pytest.raises(Rejected, match="replay"):
        rules.accept_desired(trust, HONEST, w.NOW)


def test_unknown_fields_are_ignored() -> None:
    """A field of a later version is ignored unless `must` names it."""
    _, desired = rules.accept_desired(w.TRUST, w.sealed("desired", w.DESIRED, later={"x": 1}), w.NOW)
    assert desired == w.DESIRED
    assert rules.accept_site(w.TRUST, w.sealed("site", w.SITE, later=1))[1] == w.SITE


def test_honest_release_is_admitted() -> None:
    """A release at the floor, in a variant that fits, is admitted under the digest that desired names."""
    digest, release = rules.accept_release(w.TRUST, w.sealed("release", w.RELEASE))
    assert (digest, release) == (w.digest(), w.RELEASE)
    assert rules.admit(w.TRUST, w.digest(), "small", digest, release, w.DEVICE_CAN) == w.RELEASE.variants["small"]
    at_floor = replace(w.RELEASE, version=4)
    assert rules.admit(w.TRUST, "", "small", "", at_floor, replace(w.DEVICE_CAN, runtime=(2, 0)))


def test_honest_site_time_and_floor() -> None:
    """Newer site, time and floor documents are believed and remembered; floors take the greater of old and new."""
    trust, site = rules.accept_site(w.TRUST, w.sealed("site", w.SITE))
    assert (trust.site_version, site) == (4, w.SITE)
    trust, time = rules.accept_time(trust, w.sealed("time", w.TIME), w.NONCE)
    assert (trust.time_floor, time) == (w.NOW, w.TIME)
    assert rules.accept_command(trust, w.sealed("command", w.COMMAND)) == (replace(trust, command=4), w.COMMAND)
    trust = rules.accept_floor(trust, w.sealed("floor", Floor(w.FLEET, 3, {"pears": 1, "plums": 2})))
    assert (trust.floor_version, trust.floors) == (3, {"pears": 4, "plums": 2})


def test_honest_roots() -> None:
    """A root follows its predecessor; a raised epoch clears counters and the time floor, nothing else does."""
    second = rules.advance_root(w.TRUST, w.seal_root(w.root_of(2), w.ROOTS[1:]))
    assert second == replace(w.TRUST, root=second.root)
    third = w.root_of(3, 2, w.NEXT)
    trust = rules.advance_root(second, w.seal_root(third, [*w.ROOTS[:2], *w.NEXT[:2]]))
    assert (trust.counter, trust.command, trust.time_floor) == (0, 0, 1000)
    assert (trust.floors, trust.site_version) == (w.TRUST.floors, 3)
    assert rules.current_root(trust) == third


def test_trust_survives_its_record() -> None:
    """What the device keeps reads back the same; a damaged record is Rejected, not a crash."""
    kept = w.TRUST.payload()
    assert rules.Trust.parse(Fields.of(kept, "record")) == w.TRUST
    for damage in ("x", "é", "====", 5, None):
        with pytest.raises(Rejected):
            rules.Trust.parse(Fields.of(kept | {"root": damage}, "record"))
