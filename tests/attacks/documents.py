"""Attacks with documents, as data: what is sent to a device in which state, and what it must say to it.

`edgeops/wire/vectors/documents.json` is made from these rows (`python -m tests.attacks.vectors`), for other implementations.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgeops.parcel.stream import cut
from edgeops.wire import canonical, envelope
from edgeops.wire.desired import Desired, Floor, Trial
from edgeops.wire.release import Release
from edgeops.wire.trust import Trust

from ..wire import world as w

Documents = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """Documents offered to a device: `kind` is bundle, command or pin; `kept` are documents it had on disk already."""

    documents: Documents
    kind: str = "bundle"
    trust: Trust = w.TRUST
    now: int = w.NOW
    nonce: str = w.NONCE
    device: Any = w.DEVICE_CAN
    kept: Mapping[str, bytes] = field(default_factory=dict)
    pin: str = ""
    fleet: str = w.FLEET
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One attack: the last document must be refused with `reason`; by an Unfit device it is the slot that ends so."""

    id: str
    attack: str
    reason: str
    offer: Offer
    by: str = "Rejected"


PARTS: Documents = (("release", w.sealed("release", w.RELEASE)), ("stream", w.LISTED))
"""What an order names, as it comes with the order."""


def desired(data: bytes | None = None, trust: Trust = w.TRUST, now: int = w.NOW, **changes: Any) -> Offer:
    """Offer a desired document with the release it names, honest but for `changes`."""
    document = data or w.sealed("desired", replace(w.DESIRED, **changes))
    return Offer((*PARTS, ("desired", document)), trust=trust, now=now)


def root(data: bytes) -> Offer:
    """Offer a next root."""
    return Offer((("root", data),))


def site(data: bytes) -> Offer:
    """Offer a site document."""
    return Offer((("site", data),))


def time(data: bytes, nonce: str = w.NONCE) -> Offer:
    """Offer a signed time."""
    return Offer((("time", data),), nonce=nonce)


def command(data: bytes) -> Offer:
    """Offer a command."""
    return Offer((("command", data),), "command")


def floor(data: bytes) -> Offer:
    """Offer a floor document."""
    return Offer((("floor", data),))


def release(data: bytes) -> Offer:
    """Offer a release document."""
    return Offer((("release", data),))


def pin(data: bytes, digest: str = "", fleet: str = w.FLEET) -> Offer:
    """Offer a first root to a device whose token names `digest`."""
    return Offer((("root", data),), "pin", pin=digest or envelope.digest_of(data, "root"), fleet=fleet)


def admit(
    device: Any = w.DEVICE_CAN, variant: str = "small", wanted: str = "", before: Documents = (), listed: bytes = w.LISTED,
    epoch: int = w.DESIRED.epoch, **changes: Any,
) -> Offer:  # fmt: skip
    """Order a release into a slot, honest but for `changes`; `wanted` names other bytes that lie on disk under that name."""
    what: Release = replace(w.RELEASE, **changes)
    sealed = w.sealed("release", what)
    names = {"release": wanted or w.digest(what), "stream": envelope.digest_of(listed, "stream")}
    wish = replace(w.DESIRED.slots["main"], variant=variant, **names)
    order = w.sealed("desired", replace(w.DESIRED, epoch=epoch, slots={"main": wish}))
    kept = {wanted: sealed} if wanted else {}
    return Offer((*before, ("stream", listed), ("release", sealed), ("desired", order)), device=device, kept=kept)


def streamed(size: int) -> Offer:
    """An order with its stream list, of so many bytes; the release says 30."""
    return admit(listed=w.sealed("stream", cut(w.FLEET, [bytes(size)])[0]))


HONEST = w.sealed("desired", w.DESIRED)
BODY = canonical.encode(w.DESIRED.payload())
EPOCH2 = w.root_of(2, 2, w.NEXT)
STALE: Desired = replace(w.DESIRED, expires=15_000)
OUTER = json.loads(HONEST)


def swapped(old: bytes, new: bytes) -> bytes:
    """Desired with other payload bytes, correctly signed by the (stolen) online key: two readings of one signature."""
    assert BODY.count(old) == 1, old
    return w.raw("desired", BODY.replace(old, new), w.ONLINE)


def twice(signatures: list[dict[str, str]]) -> list[dict[str, str]]:
    """The first signature once more, in front."""
    return [signatures[0], *signatures]


def loose(text: str) -> str:
    """Another base64 spelling of the same bytes: the unused bits of the last character set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    at = len(text.rstrip("=")) - 1
    assert at < len(text) - 1
    return text[:at] + alphabet[alphabet.index(text[at]) | 1] + text[at + 1 :]


ROWS = [
    # first trust
    Row("pin-other", "a root other than the token's", "root-pin", pin(w.seal_root(w.root_of(issued=7)), w.PIN)),
    Row("pin-fleet", "the root of another fleet", "wrong-fleet", pin(w.seal_root(w.root_of(fleet="barn")))),
    Row("pin-short", "a first root signed by one key of two", "threshold", pin(w.seal_root(w.root_of(), w.ROOTS[:1]))),
    Row("pin-must", "a first root with a rule we do not know", "must", pin(w.seal_root(w.root_of(), must=["x"])), "Unfit"),
    Row("pin-huge", "a root too large for the record", "too-large", pin(w.seal_root(w.root_of(), pad="x" * 30_000))),
    # next roots
    Row("root-skip", "version 3 after version 1", "root-version", root(w.seal_root(w.root_of(3)))),
    Row("root-same", "version 1 after version 1, other bytes", "root-version", root(w.seal_root(w.root_of(1, issued=5)))),
    Row("root-no-old", "only the new keys sign", "threshold", root(w.seal_root(EPOCH2, w.NEXT[:2]))),
    Row("root-one-old", "one old key and the new ones", "threshold", root(w.seal_root(EPOCH2, [*w.NEXT[:2], w.ROOTS[0]]))),
    Row("root-no-new", "only the old keys sign", "threshold", root(w.seal_root(EPOCH2, w.ROOTS[:2]))),
    Row("root-epoch", "the epoch is lowered", "epoch", root(w.seal_root(w.root_of(2, 0)))),
    Row("root-fleet", "the next root is another fleet's", "wrong-fleet", root(w.seal_root(w.root_of(2, fleet="barn")))),
    Row("root-bystander", "a stranger signs along", "unknown-key", root(w.seal_root(w.root_of(2), [*w.ROOTS[:2], w.STRANGER]))),
    Row("root-must", "a root with a rule we do not know", "must", root(w.seal_root(w.root_of(2), must=["x"])), "Unfit"),
    # site
    Row("site-rollback", "an older site", "site-version", site(w.sealed("site", replace(w.SITE, version=2)))),
    Row("site-same", "the same version again", "site-version", site(w.sealed("site", replace(w.SITE, version=3)))),
    Row("site-stolen", "one stolen site key", "threshold", site(w.sealed("site", w.SITE, w.SITES[0]))),
    Row("site-online", "the online key moves the fleet", "unknown-key", site(w.sealed("site", w.SITE, w.ONLINE))),
    Row("site-fleet", "another fleet's site", "wrong-fleet", site(w.sealed("site", replace(w.SITE, fleet="barn")))),
    Row("site-nowhere", "a site without any broker", "malformed", site(w.sealed("site", replace(w.SITE, mqtt=())))),
    Row("site-no-port", "a manager at a port that there is none of", "malformed",
        site(w.sealed("site", replace(w.SITE, https=("https://manager:99999",))))),
    Row("site-scheme", "a broker in the place of a manager", "malformed",
        site(w.sealed("site", replace(w.SITE, https=("mqtts://manager:8443",))))),
    Row("site-must", "a site with a rule we do not know", "must", site(w.sealed("site", w.SITE, must=["x"])), "Unfit"),
    Row("site-after-root", "the old site again, after a root that keeps the site keys", "site-version",
        Offer((("root", w.seal_root(w.root_of(2))), ("site", w.sealed("site", replace(w.SITE, version=3)))))),
    # time
    Row("time-nonce", "the answer to another nonce", "nonce", time(w.sealed("time", w.TIME), "cd" * 32)),
    Row("time-empty", "no question was asked", "nonce", time(w.sealed("time", w.TIME), "")),
    Row("time-device", "another device's answer", "nonce", time(w.sealed("time", replace(w.TIME, device="dev-2")))),
    Row("time-earlier", "a time before the floor", "time-floor", time(w.sealed("time", replace(w.TIME, now=9_999)))),
    Row("time-epoch", "a time of another epoch", "epoch", time(w.sealed("time", replace(w.TIME, epoch=2)))),
    Row("time-key", "a release key tells the time", "unknown-key", time(w.sealed("time", w.TIME, *w.RELEASES))),
    Row("time-must", "a time with a rule we do not know", "must", time(w.sealed("time", w.TIME, must=["x"])), "Unfit"),
    # commands
    Row("command-device", "another device's command", "wrong-device",
        command(w.sealed("command", replace(w.COMMAND, device="dev-2")))),
    Row("command-older", "a command from before the re-flash", "wrong-device",
        command(w.sealed("command", replace(w.COMMAND, incarnation=1)))),
    Row("command-epoch", "a command from before the epoch was raised", "epoch",
        command(w.sealed("command", replace(w.COMMAND, epoch=0)))),
    Row("command-replay", "the newest command once more", "duplicate", command(w.sealed("command", replace(w.COMMAND, counter=3)))),
    Row("command-old", "an older command", "replay", command(w.sealed("command", replace(w.COMMAND, counter=2)))),
    Row("command-fleet", "another fleet's command", "wrong-fleet", command(w.sealed("command", replace(w.COMMAND, fleet="barn")))),
    Row("command-kind", "a command nobody knows", "malformed", command(w.sealed("command", replace(w.COMMAND, kind="wipe")))),
    Row("command-key", "a release key commands", "unknown-key", command(w.sealed("command", w.COMMAND, *w.RELEASES))),
    Row("command-must", "a command with a rule we do not know", "must",
        command(w.sealed("command", w.COMMAND, must=["x"])), "Unfit"),
    # floors
    Row("floor-replay", "the same floor again", "floor-version", floor(w.sealed("floor", replace(w.FLOOR, version=2)))),
    Row("floor-online", "the online key lowers floors", "unknown-key", floor(w.sealed("floor", w.FLOOR, w.ONLINE))),
    Row("floor-lowered", "a newer floor with a lower version", "below-floor",
        admit(before=(("floor", w.sealed("floor", Floor(w.FLEET, 3, {"pears": 1}))),), version=3)),
    Row("floor-must", "a floor with a rule we do not know", "must", floor(w.sealed("floor", w.FLOOR, must=["x"])), "Unfit"),
    Row("floor-flood", "more models than a record can be read with, a document at a time", "too-many-floors",
        Offer((("floor", w.sealed("floor", Floor(w.FLEET, 4, {f"n{n}": 1 for n in range(1024)}))),))),
    Row("floor-after-root", "an old floor again, after a root that keeps the release keys", "floor-version",
        Offer((("root", w.seal_root(w.root_of(2))), ("floor", w.sealed("floor", replace(w.FLOOR, version=2)))))),
    Row("floors-after-epoch", "a release below the floor, after a root that raises the epoch and keeps the release keys",
        "below-floor", admit(before=(("root", w.seal_root(w.root_of(2, 2))),), epoch=2, version=3)),
    # releases
    Row("release-short", "one stolen release key", "threshold", release(w.sealed("release", w.RELEASE, w.RELEASES[0]))),
    Row("release-online", "the online key releases", "unknown-key", release(w.sealed("release", w.RELEASE, w.ONLINE))),
    Row("release-fleet", "another fleet's release", "wrong-fleet", release(w.sealed("release", replace(w.RELEASE, fleet="barn")))),
    Row("release-twice", "one release key signs twice", "malformed",
        release(w.tweak(w.sealed("release", w.RELEASE, w.RELEASES[0]), signatures=twice))),
    Row("release-option", "a session option off the list", "session-option", release(w.sealed("release", w.RELEASE, variants={
        "small": w.RELEASE.variants["small"].payload() | {"options": {"session.load_custom_library": "/tmp/x.so"}}}))),
    # desired
    Row("replay", "the newest desired once more", "duplicate", desired(counter=5)),
    Row("replay-old", "an older desired", "replay", desired(counter=4)),
    Row("other-device", "another device's desired", "wrong-device", desired(device="dev-2")),
    Row("other-fleet", "another fleet's desired", "wrong-fleet", desired(fleet="barn")),
    Row("older-self", "desired for this device before it was re-flashed", "incarnation", desired(incarnation=1)),
    Row("epoch-old", "desired of an epoch that was ended", "epoch", desired(epoch=0, counter=99)),
    Row("epoch-new", "desired of an epoch that has not begun", "epoch", desired(epoch=2)),
    Row("expired", "desired past its end", "expired", desired(now=30_000)),
    Row("clock-back", "the clock was set back below the time floor", "expired",
        desired(w.sealed("desired", STALE), replace(w.TRUST, time_floor=15_000), now=0)),
    Row("list-cut-out", "the stream list of an order is taken out, so that it would fail", "missing-stream",
        Offer((PARTS[0], ("desired", HONEST)))),
    Row("desired-must", "desired with a rule we do not know", "must", desired(must=("x",)), "Unfit"),
    Row("desired-stranger", "an unknown key signs desired", "unknown-key", desired(w.sealed("desired", w.DESIRED, w.STRANGER))),
    Row("desired-release-key", "a stolen release key steers a device", "unknown-key",
        desired(w.sealed("desired", w.DESIRED, w.RELEASES[0]))),
    Row("desired-twice", "the online key signs twice", "malformed", desired(w.tweak(HONEST, signatures=twice))),
    Row("desired-bare", "no signature at all", "threshold", desired(w.tweak(HONEST, signatures=[]))),
    # a record that was damaged: nobody knows what it had seen
    Row("unsure-order", "an old order to a device that lost its newest record", "resync", replace(desired(), unsure=True)),
    Row("unsure-command", "an old command to it", "resync", replace(command(w.sealed("command", w.COMMAND)), unsure=True)),
    Row("unsure-time", "it is brought back with a recorded answer", "nonce",
        replace(time(w.sealed("time", w.TIME), "cd" * 32), unsure=True)),
    Row("unsure-behind", "it is brought back, then offered what the answer says is old", "replay",
        Offer((("time", w.sealed("time", replace(w.TIME, counter=9))), ("desired", HONEST)), unsure=True)),
    # admission
    Row("wrong-release", "another release than desired names", "wrong-release", admit(wanted="e" * 64)),
    Row("below-floor", "a released version below the floor", "below-floor", admit(version=3)),
    Row("no-variant", "a variant that is not in the release", "no-variant", admit(variant="large")),
    Row("wrong-class", "a variant for other hardware", "device-class",
        admit(replace(w.DEVICE_CAN, device_class="arm-dot")), "Unfit"),
    Row("old-runtime", "an ONNX Runtime too old", "runtime", admit(replace(w.DEVICE_CAN, runtime=(1, 19))), "Unfit"),
    Row("older-major", "an ONNX Runtime of an older major", "runtime", admit(replace(w.DEVICE_CAN, runtime=(0, 99))), "Unfit"),
    Row("new-ir", "an ONNX IR too new", "opset", admit(replace(w.DEVICE_CAN, max_ir=9)), "Unfit"),
    Row("new-opset", "an opset too new", "opset", admit(replace(w.DEVICE_CAN, max_opset=20)), "Unfit"),
    Row("release-must", "a release with a rule we do not know", "must", admit(must=("x",)), "Unfit"),
    Row("endless-stream", "the stolen online key lists more bytes than the signed release has", "endless",
        streamed(31)),
    # envelopes
    Row("other-type", "a site envelope given as desired", "wrong-type", desired(w.sealed("site", w.SITE))),
    Row("relabelled", "a good signature under another label", "wrong-type", desired(w.tweak(HONEST, payloadType="text/plain"))),
    Row("type-confusion", "desired signed as `state`, labelled desired", "bad-signature",
        Offer((("desired", w.raw("state", canonical.encode(replace(w.DESIRED, slots={}).payload()), w.ONLINE, kind="desired")),))),
    Row("forged", "a signature of other bytes", "bad-signature",
        desired(w.tweak(HONEST, payload=base64.b64encode(BODY.replace(b'"counter":6', b'"counter":9')).decode()))),
    Row("zeroes", "an all-zero signature", "bad-signature", desired(w.tweak(HONEST, signatures=[
        {"keyid": w.ONLINE.id, "sig": base64.b64encode(bytes(64)).decode()}]))),
    Row("outer-extra", "a field beside the payload", "malformed", desired(w.tweak(HONEST, extra=1))),
    Row("inner-extra", "a field beside a signature", "malformed", desired(w.tweak(HONEST, signatures=lambda s: [s[0] | {"x": 1}]))),
    Row("unsorted", "signatures in another order", "malformed",
        release(w.tweak(w.sealed("release", w.RELEASE), signatures=lambda s: s[::-1]))),
    Row("loose-base64", "another spelling of the same signature", "not-canonical",
        desired(w.tweak(HONEST, signatures=lambda s: [s[0] | {"sig": loose(s[0]["sig"])}]))),
    Row("spaced-envelope", "white space in the envelope", "not-canonical", desired(HONEST.replace(b":", b": ", 1))),
    Row("truncated", "half an envelope", "not-canonical", desired(HONEST[: len(HONEST) // 2])),
    Row("trailing", "bytes after the envelope", "not-canonical", desired(HONEST + b"\n")),
    Row("empty", "nothing at all", "not-canonical", desired(b"{")),
    Row("huge", "more bytes than allowed", "too-large", desired(b" " * (envelope.MAX_ENVELOPE + 1))),
    Row("spaces", "white space in the payload", "not-canonical", desired(swapped(b'"counter":6', b'"counter": 6'))),
    Row("float", "a float in the payload", "not-canonical", desired(swapped(b'"counter":6', b'"counter":6.0'))),
    Row("exponent", "an exponent in the payload", "not-canonical", desired(swapped(b'"counter":6', b'"counter":6e0'))),
    Row("nan", "NaN in the payload", "not-canonical", desired(swapped(b'"counter":6', b'"counter":NaN'))),
    Row("huge-int", "an integer no browser holds", "not-canonical", desired(swapped(b'"counter":6', b'"counter":%d' % 2**53))),
    Row("digits", "an integer of 10,000 digits", "not-canonical", desired(swapped(b'"counter":6', b'"counter":' + b"9" * 10_000))),
    Row("duplicate-key", "a key twice, two readings", "not-canonical",
        desired(swapped(b'"counter":6', b'"counter":6,"counter":6'))),
    Row("unsorted-keys", "keys out of order", "not-canonical", desired(w.raw("desired", b'{"b":1,"a":1}', w.ONLINE))),
    Row("escaped", "an escape where none is needed", "not-canonical", desired(swapped(b'"dev-1"', b'"\\u0064ev-1"'))),
    Row("not-nfc", "a string that is not NFC", "not-canonical",
        desired(swapped(b'"slots":', '"note":"e\u0301","slots":'.encode()))),
    Row("deep", "arrays nested without end", "not-canonical", desired(w.raw("desired", b"[" * 5000 + b"]" * 5000, w.ONLINE))),
    Row("not-utf8", "bytes that are no text", "not-canonical", desired(w.raw("desired", b'"\xff"', w.ONLINE))),
    Row("no-object", "a payload that is a number", "malformed", desired(w.raw("desired", b"1", w.ONLINE))),
    Row("no-device", "a field is missing", "malformed", desired(swapped(b'"device":"dev-1",', b""))),
    Row("trial-endless", "a trial whose end no record can hold: the agent would die of saving it, at every start", "malformed",
        desired(slots={"main": replace(w.DESIRED.slots["main"], trial=Trial(window_s=2**53 - 1))})),
    Row("trial-tries", "a trial that may begin without end", "malformed",
        desired(slots={"main": replace(w.DESIRED.slots["main"], trial=Trial(attempts=21))})),
    Row("bool-counter", "true for a number", "malformed", desired(swapped(b'"counter":6', b'"counter":true'))),
]  # fmt: skip
