"""The rules by which a device believes anything. Bytes go in, believed documents come out, else Rejected or Unfit.

1. Root n+1 needs the thresholds of root n's root role and of its own; it is exactly n+1; its epoch never falls.
   Where it leaves a role none of the keys it had, nothing they have signed is believed again, whatever thresholds come later, and
   what the role counts starts again: a version that a thief drove to its end locks nobody out. For the site role that is the site
   version, for the release role the floor version; if the same root raises the epoch, also the floors, which he may have driven
   as far. One key that stays keeps all of it: with a lower threshold some day, old documents of it could be believed. For the
   same reason a key must not come back to a role it once had; a device does not know those any more, the manager refuses it.
2. A site document needs the site threshold and a greater version.
3. Time is believed when signed by the online role for our nonce; it never lies below the time floor, which a raised epoch
   clears.
4. A release needs the release threshold. A floor document needs it too, and a greater version; floors never fall, but by rule 1.
   They are those of 1024 models at most, over all floor documents: more could not be read back from the record.
5. A desired document needs the online threshold, our fleet, id and incarnation, our epoch, and a counter greater than the
   stored one; it must not be expired at `now`. Expiry is looked at when installing, never to stop what runs. So does a command,
   with a stored counter of its own.
6. A slot may take release R in variant V only if R is what desired names, V fits this device's class and runtime, R's version
   is at or above the model's floor.
7. Whatever a document names in `must`, this code has to know, else the device is Unfit for it.
Not handled here: where bytes come from, and where `Trust` is kept (one record with the model pointers, by the agent's disk).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from . import canonical, envelope
from .desired import MAX_FLOORS, CommandDocument, Desired, Floor, SignedTime
from .errors import Rejected, Unfit
from .fields import HEX64, ID, Fields
from .keys import sha256
from .release import Release, Variant
from .root import Root, Site

KNOWN_MUST: frozenset[str] = frozenset({"conditions"})
MAX_ROOT = 24 << 10  # bytes of the payload; its envelope must fit the record it is kept in


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this device is: its class, its ONNX Runtime (major, minor), the newest ONNX IR and opset that loads."""

    device_class: str
    runtime: tuple[int, int]
    max_ir: int = 13
    max_opset: int = 26


@dataclass(frozen=True, slots=True)
class Trust:
    """Everything a device must never forget. `root` is the envelope of the trusted root, `counter` the newest desired seen."""

    fleet: str
    device: str
    incarnation: int
    root: bytes
    site_version: int = 0
    counter: int = 0
    command: int = 0
    floor_version: int = 0
    floors: Mapping[str, int] = field(default_factory=dict)
    time_floor: int = 0

    def payload(self) -> dict[str, Any]:
        """JSON-able form, kept in the device's A/B record."""
        return {
            "fleet": self.fleet, "device": self.device, "incarnation": self.incarnation,
            "root": base64.b64encode(self.root).decode(), "site_version": self.site_version, "counter": self.counter,
            "command": self.command, "floor_version": self.floor_version, "floors": dict(self.floors),
            "time_floor": self.time_floor,
        }  # fmt: skip

    @staticmethod
    def parse(fields: Fields) -> "Trust":
        """Read what `payload` wrote; raises Rejected."""
        try:
            root = base64.b64decode(fields.text("root", most=4 * MAX_ROOT), validate=True)
        except ValueError:
            raise fields.fail("root", "base64") from None
        return Trust(
            fields.text("fleet", ID), fields.text("device", ID), fields.number("incarnation", 1),
            root, fields.number("site_version"), fields.number("counter"),
            fields.number("command"), fields.number("floor_version"), fields.counts("floors", MAX_FLOORS),
            fields.number("time_floor"),
        )  # fmt: skip


def current_root(trust: Trust) -> Root:
    """The trusted root, read from our own record without verifying it again."""
    return _trusted_root(trust.root)


@lru_cache(8)
def _trusted_root(data: bytes) -> Root:
    """Asked for with every document, and the same bytes for years."""
    return _read_root(envelope.split(data, "root")[0])


def versions(trust: Trust) -> dict[str, int]:
    """Which versions of the documents a device keeps it has; its birth says so, and the manager sends what it lacks."""
    return {"root": current_root(trust).version, "site": trust.site_version, "floor": trust.floor_version}


def _read_root(body: bytes) -> Root:
    if len(body) > MAX_ROOT:
        raise Rejected("too-large", f"the root document has {len(body)} bytes, {MAX_ROOT} are allowed")
    fields = Fields.of(canonical.decode(body, "root"), "root")
    return Root.parse(fields)


def pin_root(data: bytes, fleet: str, pin: str, device: str, incarnation: int) -> Trust:
    """First trust: a self-signed root envelope whose payload digest is `pin`, which came with the enrolment token."""
    body, _ = envelope.split(data, "root")
    if sha256(body) != pin:
        raise Rejected("root-pin", "the root document is not the one the enrolment token names; register the device again")
    root = _read_root(body)
    opened = envelope.open_sealed(data, "root", root.keys_of("root"), root.roles["root"].threshold)
    if root.fleet != fleet:
        raise Rejected("wrong-fleet", f"the root document is of fleet {root.fleet}")
    _check_must(opened.fields, "root")
    return Trust(fleet, device, incarnation, data, time_floor=root.issued)


def pin_chain(chain: Sequence[bytes], fleet: str, pin: str, device: str, incarnation: int) -> Trust:
    """First trust in the root that `pin` names, then in those after it, each by rule 1. Raises Rejected as both.

    The pinned root may carry signatures of the keys before it, which nobody here can know: they are left out.
    """
    found = next((index for index, data in enumerate(chain) if envelope.digest_of(data, "root") == pin), 0)
    first, *later = chain[found:] or [b""]
    own = _read_root(envelope.split(first, "root")[0]).roles["root"].keys
    trust = pin_root(envelope.signed_only_by(first, "root", own), fleet, pin, device, incarnation)
    for data in later:
        trust = advance_root(trust, data)
    return trust


def advance_root(trust: Trust, data: bytes) -> Trust:
    """Rule 1."""
    old = current_root(trust)
    new = _read_root(envelope.split(data, "root")[0])
    opened = envelope.open_sealed(data, "root", old.keys_of("root") | new.keys_of("root"), 1)
    for which, root in (("old", old), ("new", new)):
        signed = len(opened.signed_by & set(root.roles["root"].keys))
        if signed < root.roles["root"].threshold:
            raise Rejected("threshold", f"root {new.version}: {signed} of {root.roles['root'].threshold} {which} root keys signed")
    if new.fleet != trust.fleet:
        raise Rejected("wrong-fleet", f"root is of fleet {new.fleet}")
    if new.version != old.version + 1:
        raise Rejected("root-version", f"root {new.version} cannot follow root {old.version}")
    if new.epoch < old.epoch:
        raise Rejected("epoch", f"root {new.version} lowers the epoch from {old.epoch} to {new.epoch}")
    _check_must(opened.fields, "root")
    after = replace(trust, root=data)
    if is_replaced(old, new, "site"):
        after = replace(after, site_version=0)
    if is_replaced(old, new, "release"):
        after = replace(after, floor_version=0, floors={} if new.epoch > old.epoch else trust.floors)
    if new.epoch > old.epoch:
        after = replace(after, counter=0, command=0, time_floor=new.issued)
    return after


def is_replaced(old: Root, new: Root, role: str) -> bool:
    """Whether `new` leaves a role none of its keys, so that nothing signed under `old` can be believed any more."""
    return not set(old.roles[role].keys) & set(new.roles[role].keys)


def _open(trust: Trust, data: bytes, name: str, role: str) -> envelope.Opened:
    root = current_root(trust)
    opened = envelope.open_sealed(data, name, root.keys_of(role), root.roles[role].threshold)
    if opened.fields.text("fleet", ID) != trust.fleet:
        raise Rejected("wrong-fleet", f"{name} is of fleet {opened.fields.text('fleet')}, this device belongs to {trust.fleet}")
    return opened


def accept_site(trust: Trust, data: bytes) -> tuple[Trust, Site]:
    """Rule 2."""
    opened = _open(trust, data, "site", "site")
    site = Site.parse(opened.fields)
    if site.version <= trust.site_version:
        raise Rejected("site-version", f"site {site.version} is not newer than {trust.site_version}")
    _check_must(opened.fields, "site")
    return replace(trust, site_version=site.version), site


def accept_time(trust: Trust, data: bytes, nonce: str) -> tuple[Trust, SignedTime]:
    """Rule 3: a signed time for our `nonce` (64 hex digits)."""
    opened = _open(trust, data, "time", "online")
    time = SignedTime.parse(opened.fields)
    if time.device != trust.device or not HEX64.fullmatch(nonce) or time.nonce != nonce:
        raise Rejected("nonce", "the signed time answers another question")
    if time.epoch != current_root(trust).epoch:
        raise Rejected("epoch", f"signed time of epoch {time.epoch}")
    if time.now < trust.time_floor:
        raise Rejected("time-floor", f"signed time {time.now} lies before {trust.time_floor}")
    _check_must(opened.fields, "time")
    return replace(trust, time_floor=time.now), time


def accept_floor(trust: Trust, data: bytes) -> Trust:
    """Rule 4: floors rise, never fall."""
    opened = _open(trust, data, "floor", "release")
    floor = Floor.parse(opened.fields)
    if floor.version <= trust.floor_version:
        raise Rejected("floor-version", f"floor {floor.version} is not newer than {trust.floor_version}")
    _check_must(opened.fields, "floor")
    raised = {m: max(floor.floors.get(m, 0), trust.floors.get(m, 0)) for m in floor.floors.keys() | trust.floors.keys()}
    if len(raised) > MAX_FLOORS:
        raise Rejected("too-many-floors", f"floor {floor.version} would make {len(raised)} floors, {MAX_FLOORS} can be kept")
    return replace(trust, floor_version=floor.version, floors=raised)


def accept_release(trust: Trust, data: bytes) -> tuple[str, Release]:
    """Rule 4: (digest, release) of a release envelope."""
    opened = _open(trust, data, "release", "release")
    return opened.digest, Release.parse(opened.fields)


def accept_command(trust: Trust, data: bytes) -> tuple[Trust, CommandDocument]:
    """Rule 5 for commands, which have a counter of their own and never expire."""
    opened = _open(trust, data, "command", "online")
    command = CommandDocument.parse(opened.fields)
    if command.device != trust.device or command.incarnation != trust.incarnation:
        raise Rejected("wrong-device", f"command is for {command.device}, incarnation {command.incarnation}")
    if command.epoch != current_root(trust).epoch:
        raise Rejected("epoch", f"command of epoch {command.epoch}")
    if command.counter <= trust.command:
        raise Rejected("replay", f"command {command.counter} is not newer than {trust.command}")
    _check_must(opened.fields, "command")
    return replace(trust, command=command.counter), command


def accept_desired(trust: Trust, data: bytes, now: int) -> tuple[Trust, Desired]:
    """Rule 5. `now` is what the device believes, Unix seconds. The returned trust holds the new counter: save it, then act."""
    opened = _open(trust, data, "desired", "online")
    desired = Desired.parse(opened.fields)
    if desired.device != trust.device:
        raise Rejected("wrong-device", f"desired is for {desired.device}")
    if desired.incarnation != trust.incarnation:
        raise Rejected("incarnation", f"desired is for incarnation {desired.incarnation}, this is {trust.incarnation}")
    if desired.epoch != current_root(trust).epoch:
        raise Rejected("epoch", f"desired of epoch {desired.epoch}")
    if desired.counter <= trust.counter:
        raise Rejected("replay", f"desired {desired.counter} is not newer than {trust.counter}")
    if desired.expires <= max(now, trust.time_floor):
        raise Rejected("expired", f"desired {desired.counter} expired at {desired.expires}")
    _check_must(opened.fields, "desired")
    return replace(trust, counter=desired.counter), desired


def admit(trust: Trust, wanted: str, variant: str, digest: str, release: Release, device: Capabilities) -> Variant:
    """Rule 6: the variant this device may install; raises Rejected (publisher) or Unfit (device)."""
    if digest != wanted:
        raise Rejected("wrong-release", f"desired names release {wanted[:12]}, got {digest[:12]}")
    if release.version < trust.floors.get(release.model, 0):
        raise Rejected("below-floor", f"{release.model}:{release.version} lies below the floor {trust.floors[release.model]}")
    _known(release.must, "release")
    found = release.variants.get(variant)
    if found is None:
        raise Rejected("no-variant", f"{release.model}:{release.version} has no variant {variant}")
    if not found.fits(device.device_class):
        raise Unfit("device-class", f"variant {variant} is for {', '.join(found.classes)}; this device is {device.device_class}")
    major, minor = (int(part) for part in release.runtime.split("."))
    if device.runtime < (major, minor):
        raise Unfit("runtime", f"needs ONNX Runtime {release.runtime}, this device has {device.runtime[0]}.{device.runtime[1]}")
    if release.ir > device.max_ir or release.opset > device.max_opset:
        raise Unfit("opset", f"needs ONNX IR {release.ir}, opset {release.opset}")
    return found


def _check_must(fields: Fields, what: str) -> None:
    _known(fields.texts("must", most=32, default=()), what)


def _known(must: tuple[str, ...], what: str) -> None:
    unknown = sorted(set(must) - KNOWN_MUST)
    if unknown:
        raise Unfit("must", f"this agent does not understand {', '.join(unknown)} of the {what}; update the agent first")
