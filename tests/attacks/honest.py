"""Honest flows beside the attacks: what must be accepted, and what it changes. A device that refuses everything is not safe."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeops.wire.desired import Floor
from edgeops.wire.root import Role

from ..wire import world as w
from .documents import EPOCH2, HONEST, PARTS, Documents, Offer, admit, command, desired, floor, release, root, site, streamed, time

FETCH = {"main": ("fetch", "")}


@dataclass(frozen=True, slots=True)
class Flow:
    """Documents that must be believed, the members of the trust they change, and where the slots then are."""

    id: str
    story: str
    offer: Offer
    after: Mapping[str, Any] = field(default_factory=dict)
    slots: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def text(data: bytes) -> str:
    """A root as `Trust.payload` has it."""
    return str(replace(w.TRUST, root=data).payload()["root"])


SECOND = w.seal_root(w.root_of(2), w.ROOTS[1:])
RAISED = w.seal_root(EPOCH2, [*w.ROOTS[:2], *w.NEXT[:2]])
OTHERS = (w.key("s-c"), w.key("s-d"), w.key("r-c"), w.key("r-d"))
LAST = 2**53 - 1
FAR = replace(w.TRUST, site_version=LAST, floor_version=LAST, floors={"pears": LAST})


def replaced() -> bytes:
    """Root 2 with other site and release keys and a raised epoch."""
    root = w.root_of(2, 2)
    kept = {name: key for name, key in root.keys.items() if name in root.roles["root"].keys + root.roles["online"].keys}
    keys = kept | {one.id: one.public for one in OTHERS}
    roles = {"site": Role((OTHERS[0].id, OTHERS[1].id), 2), "release": Role((OTHERS[2].id, OTHERS[3].id), 2)}
    return w.seal_root(replace(root, keys=keys, roles={**root.roles, **roles}))


OTHER_KEYS = replaced()
AFRESH = {"root": text(OTHER_KEYS), "counter": 0, "command": 0, "time_floor": 1000}
LOST = replace(w.TRUST, counter=2**53 - 1, command=2**53 - 1, time_floor=2_145_916_800)
AFTER_THEFT = w.sealed("desired", replace(w.DESIRED, epoch=2, counter=1))
ORDER: Documents = (*PARTS, ("desired", HONEST))
CLEARED = {"root": text(RAISED), "counter": 0, "command": 0, "time_floor": EPOCH2.issued}

FLOWS = [
    Flow("order", "an order for this device", desired(), {"counter": 6}, FETCH),
    Flow("order-at-floor", "a release exactly at the floor", admit(version=4), {"counter": 6}, FETCH),
    Flow("order-none", "an order to hold nothing", desired(slots={}), {"counter": 6}),
    Flow("order-gap", "orders may be skipped", desired(counter=900), {"counter": 900}, FETCH),
    Flow("order-again", "the same order delivered twice in one bundle",
         Offer((*ORDER, ORDER[-1])), {"counter": 6}, FETCH, ("desired.duplicate",)),
    Flow("order-later-field", "a field of a later version is ignored",
         desired(w.sealed("desired", w.DESIRED, later={"x": 1})), {"counter": 6}, FETCH),
    Flow("order-spelled-out", "fields that are usually left out are there, with the values they have anyway",
         desired(w.sealed("desired", w.DESIRED, channel="all", must=[])), {"counter": 6}, FETCH),
    Flow("order-with-stream", "a stream list that holds just what the release says", streamed(30), {"counter": 6}, FETCH),
    Flow("order-kept-release", "the release lies on disk already",
         Offer(ORDER[1:], kept={w.digest(): w.sealed("release", w.RELEASE)}), {"counter": 6}, FETCH),
    Flow("order-newer-runtime", "a runtime newer than needed",
         replace(desired(), device=replace(w.DEVICE_CAN, runtime=(2, 0))), {"counter": 6}, FETCH),
    Flow("order-1970", "a clock that was never set, an order within the floor", desired(now=0), {"counter": 6}, FETCH),
    Flow("time", "the answer to our nonce", time(w.sealed("time", w.TIME)), {"time_floor": w.NOW}),
    Flow("time-then-order", "time and order in one bundle",
         Offer((("time", w.sealed("time", w.TIME)), *ORDER), now=0), {"time_floor": w.NOW, "counter": 6}, FETCH),
    Flow("resync", "a device that lost its newest record hears from the manager what is newest, and takes that",
         Offer((("time", w.sealed("time", replace(w.TIME, counter=6))), *ORDER), unsure=True),
         {"time_floor": w.NOW, "counter": 6}, FETCH),
    Flow("site", "the fleet moves", site(w.sealed("site", w.SITE)), {"site_version": 4}),
    Flow("floor", "a floor rises, others stay", floor(w.sealed("floor", Floor(w.FLEET, 3, {"pears": 1, "plums": 2}))),
         {"floor_version": 3, "floors": {"pears": 4, "plums": 2}}),
    Flow("release", "a release by itself changes nothing", release(w.sealed("release", w.RELEASE))),
    Flow("command", "a newer command", command(w.sealed("command", w.COMMAND)), {"command": 4}),
    Flow("pin", "the first root is the token's", Offer((("root", w.FIRST),), "pin", pin=w.PIN)),
    Flow("root-next", "two of three old keys sign the next root", root(SECOND), {"root": text(SECOND)}),
    Flow("root-rotated", "all root keys change and the epoch is raised", root(RAISED), CLEARED),
    Flow("root-after-versions",
         "versions and floors were driven to their end; a root that leaves site and release no key they had frees the device",
         Offer((("root", OTHER_KEYS), ("site", w.sealed("site", w.SITE, *OTHERS[:2])),
                ("floor", w.sealed("floor", w.FLOOR, *OTHERS[2:]))), trust=FAR),
         {**AFRESH, "site_version": 4, "floor_version": 3, "floors": {"pears": 6}}),
    Flow("root-after-theft", "counters and time were driven to their end with a stolen online key; a raised epoch frees the device",
         Offer((("root", RAISED), *PARTS, ("desired", AFTER_THEFT)), trust=LOST), {**CLEARED, "counter": 1}, FETCH),
]  # fmt: skip
