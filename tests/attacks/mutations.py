"""Documents changed in every way we could think of, each of which must be refused: unsigned changes, and what a thief with the right
key could sign. Every one is (what was done, an offer).
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeops.wire import canonical, envelope
from edgeops.wire.keys import Signer

from ..wire import world as w
from .documents import Offer

Mutant = tuple[str, Offer]
KEYS: Mapping[str, tuple[Signer, ...]] = {
    "root": w.ROOTS[:2], "site": w.SITES, "release": w.RELEASES, "floor": w.RELEASES, "desired": (w.ONLINE,), "time": (w.ONLINE,),
    "command": (w.ONLINE,),
}  # fmt: skip
HONEST: Mapping[str, bytes] = {
    "root": w.seal_root(w.root_of(2)), "site": w.sealed("site", w.SITE), "release": w.sealed("release", w.RELEASE),
    "floor": w.sealed("floor", w.FLOOR), "desired": w.sealed("desired", w.DESIRED), "time": w.sealed("time", w.TIME),
    "command": w.sealed("command", w.COMMAND),
}  # fmt: skip
WRONG = (None, True, -1, 1.5, "", "\x00", [], {}, [[]], {"": 0}, 2**53, 10**400, "x" * 5000, "é" * 70)
# Text that means the same to a lenient reader.
RESPELLED: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    ("a space after a colon", lambda b: b.replace(b":", b": ", 1)), ("a space after a comma", lambda b: b.replace(b",", b", ", 1)),
    ("a line feed at the end", lambda b: b + b"\n"), ("a space in front", lambda b: b" " + b), ("a byte order mark", lambda b: b"\xef\xbb\xbf" + b),
    ("a zero byte at the end", lambda b: b + b"\0"), ("a second value behind", lambda b: b + b), ("a comma too many", lambda b: b[:-1] + b",}"),
    ("a comment", lambda b: b + b"//"), ("an escaped letter", lambda b: b.replace(b'"fleet"', b'"\\u0066leet"', 1)),
    ("an escaped slash", lambda b: b.replace(b'"orchard"', b'"orch\\u0061rd"', 1)), ("upper-case escape", lambda b: b.replace(b"orchard", b"\\u004Frchard", 1)),
    ("minus zero", lambda b: b[:-1] + b',"zz":-0}'), ("a float", lambda b: b[:-1] + b',"zz":1.0}'), ("an exponent", lambda b: b[:-1] + b',"zz":1e2}'),
    ("a leading zero", lambda b: b[:-1] + b',"zz":01}'), ("NaN", lambda b: b[:-1] + b',"zz":NaN}'), ("Infinity", lambda b: b[:-1] + b',"zz":-Infinity}'),
    ("a lone surrogate", lambda b: b[:-1] + b',"zz":"\\ud800"}'), ("raw control character", lambda b: b[:-1] + b',"zz":"\x01"}'),
    ("bytes that are no text", lambda b: b[:-1] + b',"zz":"\xff"}'), ("an overlong encoding", lambda b: b[:-1] + b',"zz":"\xc0\xaf"}'),
    ("not NFC", lambda b: b[:-1] + ',"zz":"e\u0301"}'.encode()), ("keys out of order", lambda b: b[:-1] + b',"aa":1}'),
    ("a key twice", lambda b: b[:-1] + b',"zz":1,"zz":1}'), ("a key twice, first hidden", lambda b: b[:1] + b'"fleet":"barn",' + b[1:]),
    ("an empty key", lambda b: b[:1] + b'"":1,' + b[1:]), ("a key that is no ASCII", lambda b: b[:-1] + ',"é":1}'.encode()),
    ("a huge integer", lambda b: b[:-1] + b',"zz":9007199254740992}'), ("10,000 digits", lambda b: b[:-1] + b',"zz":' + b"9" * 10_000 + b"}"),
    ("endless nesting", lambda b: b[:-1] + b',"zz":' + b"[" * 9999 + b"]" * 9999 + b"}"), ("cut in the middle", lambda b: b[: len(b) // 2]),
    ("only an array of it", lambda b: b"[" + b + b"]"), ("nothing", lambda b: b""), ("true", lambda b: b"true"), ("null", lambda b: b"null"),
)  # fmt: skip


def offer(name: str, data: bytes) -> Offer:
    """One document to a device that would take the honest one; desired comes with the release it names."""
    if name == "command":
        return Offer((("command", data),), "command")
    if name == "desired":
        return Offer((("release", HONEST["release"]), ("desired", data)))
    return Offer(((name, data),))


def mutants() -> Iterator[Mutant]:
    """All of them."""
    for name in HONEST:
        yield from flipped(name)
        yield from swapped(name)
        yield from respelled(name)
        yield from confused(name)
        yield from missigned(name)


def flipped(name: str) -> Iterator[Mutant]:
    """Bytes of the envelope changed: bits, doubled and lost bytes; no signature is made anew."""
    data = HONEST[name]
    for at in range(len(data)):
        for bit in (0x01, 0x02, 0x20):
            changed = bytearray(data)
            changed[at] ^= bit
            if changed.isascii():
                yield f"{name}: bit {bit:#x} of byte {at} flipped", offer(name, bytes(changed))
        if at % 7 == 0:
            yield f"{name}: byte {at} left out", offer(name, data[:at] + data[at + 1 :])
            yield f"{name}: cut after byte {at}", offer(name, data[:at])
        if at % 7 == 0 and data[at : at + 1] != data[at - 1 : at]:
            yield f"{name}: byte {at} doubled", offer(name, data[:at] + data[at : at + 1] + data[at:])


def body_of(name: str) -> bytes:
    """The payload of the honest document."""
    return base64.b64decode(json.loads(HONEST[name])["payload"])


def swapped(name: str) -> Iterator[Mutant]:
    """Two fields change places, or one takes another's value, under the old signature; envelopes swap payload, type, signatures."""
    payload, outer = json.loads(body_of(name)), json.loads(HONEST[name])
    for one in payload:
        for other in payload:
            if one != other and payload[one] != payload[other]:
                body = canonical.encode(payload | {one: payload[other], other: payload[one]})
                yield f"{name}: {one} and {other} swapped", offer(name, w.tweak(HONEST[name], payload=base64.b64encode(body).decode()))
    for other in HONEST:
        for part in ("payload", "payloadType", "signatures"):
            if other != name and outer[part] != json.loads(HONEST[other])[part]:
                yield f"{name}: {part} of {other}", offer(name, w.tweak(HONEST[name], **{part: json.loads(HONEST[other])[part]}))
        if other != name:
            yield f"{name}: a whole {other} in its place", offer(name, HONEST[other])


def respelled(name: str) -> Iterator[Mutant]:
    """The same value spelled otherwise: in the payload, truly signed, and in the envelope."""
    body = body_of(name)
    for how, change in RESPELLED:
        if change(body) != body:
            yield f"{name}: payload with {how}, truly signed", offer(name, w.raw(name, change(body), *KEYS[name]))
            changed = change(HONEST[name])
            if changed != HONEST[name] and _is_text(changed):
                yield f"{name}: envelope with {how}", offer(name, changed)


def _is_text(data: bytes) -> bool:
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another thing at that place; `...` takes it away."""
    made = json.loads(json.dumps(value))
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return made


def spelled_out(name: str) -> Any:
    """The honest payload with the fields that are usually left out, so that each is tried with other kinds too."""
    payload = json.loads(body_of(name)) | {"must": []}
    if name == "desired":
        payload["channel"] = "all"
        payload["slots"]["main"] |= {"conditions": {}, "budget_bytes": 0}
    return payload


def confused(name: str) -> Iterator[Mutant]:
    """Every field in turn missing or of another kind, truly signed. What an honest reader may take is left out."""
    payload = spelled_out(name)
    for path in places(payload):
        for wrong in (..., *WRONG):
            changed = put(payload, path, wrong)
            if changed == payload or may_be(name, path, wrong):
                continue
            body = json.dumps(changed, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
            said = "missing" if wrong is ... else f"= {str(wrong)[:12]!r}"
            yield f"{name}: {'.'.join(map(str, path))} {said}, truly signed", offer(name, w.raw(name, body, *KEYS[name]))


def missigned(name: str) -> Iterator[Mutant]:
    """The honest payload under every wrong set of keys, the wrong type, and with signatures bent."""
    body = body_of(name)
    everybody = {**{f"root {n}": (k,) for n, k in enumerate((*w.ROOTS, *w.NEXT))}, "site": w.SITES, "release": w.RELEASES,
                 "online": (w.ONLINE,), "stranger": (w.STRANGER,), "nobody": ()}  # fmt: skip
    for who, signers in everybody.items():
        if not {signer.id for signer in KEYS[name]} <= {signer.id for signer in signers}:
            yield f"{name}: signed by {who}", offer(name, w.raw(name, body, *signers))
        if signers:
            extra = (*KEYS[name], *(s for s in signers if s.id not in {k.id for k in (*KEYS[name], *(w.ROOTS if name == "root" else ()))}))
            if len(extra) > len(KEYS[name]):
                yield f"{name}: {who} signs along", offer(name, w.raw(name, body, *extra))
    for other in envelope.TYPES:
        if other != name:
            yield f"{name}: signed as {other}", offer(name, w.raw(other, body, *KEYS[name], kind=name))
            yield f"{name}: labelled {other}", offer(name, w.raw(name, body, *KEYS[name], kind=other))
    for how, bend in BENT:
        yield f"{name}: {how}", offer(name, w.tweak(HONEST[name], signatures=lambda found, bend=bend: [bend(one) for one in found]))


BENT: tuple[tuple[str, Callable[[dict[str, str]], dict[str, Any]]], ...] = (
    ("empty signatures", lambda s: s | {"sig": ""}), ("zero signatures", lambda s: s | {"sig": base64.b64encode(bytes(64)).decode()}),
    ("signatures of 63 bytes", lambda s: s | {"sig": base64.b64encode(base64.b64decode(s["sig"])[:63]).decode()}),
    ("signatures of 65 bytes", lambda s: s | {"sig": base64.b64encode(base64.b64decode(s["sig"]) + b"\0").decode()}),
    ("signatures as URL base64", lambda s: s | {"sig": base64.urlsafe_b64encode(b"\xff" * 64).decode()}),
    ("unpadded signatures", lambda s: s | {"sig": s["sig"].rstrip("=")}), ("key ids in capitals", lambda s: s | {"keyid": s["keyid"].upper()}),
    ("key ids cut", lambda s: s | {"keyid": s["keyid"][:-1]}), ("no key ids", lambda s: {"sig": s["sig"]}),
    ("no signatures in signatures", lambda s: {"keyid": s["keyid"]}), ("a number for a signature", lambda s: s | {"sig": 1}),
    ("an extra field", lambda s: s | {"cert": ""}),
)  # fmt: skip


# What an honest signer might have written as well: fields with a default, lists and tables of any length.
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "root": ("roles.root.keys.2",),
    "release": ("inputs.0.shape", "inputs.0.shape.0", "inputs.0.shape.1", "outputs.0.shape", "outputs.0.shape.0", "outputs.0.shape.1",
                "sides", "sides.lineage", "variants.small.memory", "variants.small.options",
                "variants.small.options.session.x64quantprecision"),
    "floor": ("floors", "floors.pears"),
    "desired": ("channel", "slots", "slots.main", "slots.main.budget_bytes", "slots.main.conditions", "slots.main.rollout",
                "slots.main.stream", "slots.main.trial", *(f"slots.main.trial.{name}" for name in w.DESIRED.slots["main"].trial.payload()),
                "sources", "sources.0"),
}  # fmt: skip


def may_be(name: str, path: tuple[Any, ...], wrong: Any) -> bool:
    """Whether this change leaves a document that an honest signer might have made."""
    if path == ("must",):
        return wrong is ...
    if ".".join(map(str, path)) not in OPTIONAL.get(name, ()):
        return False
    kind = wrong is ... or (wrong == {} and path[-1] in ("sides", "options", "floors", "slots", "trial", "conditions"))
    return kind or (wrong == [] and path[-1] in ("shape", "sources")) or (wrong == "" and path[-1] in ("rollout", "stream")) or (
        wrong == -1 and wrong is not True and "shape" in path)


def case_of(made: Offer) -> Mapping[str, Any]:
    """The offer as the judge takes it."""
    from .vectors import state

    return {"kind": made.kind, "state": state(made), "documents": [[kind, data.decode()] for kind, data in made.documents]}
