"""Round trips: canonical JSON, every document, messages, tokens, topics, golden vectors."""

import json
import unicodedata
from contextlib import suppress
from dataclasses import replace
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.wire import canonical, envelope, topics
from edgeops.wire.conditions import MAX_WAIT_S, Conditions
from edgeops.wire.desired import ACTIONS, COMMANDS, TRIAL_BOUNDS, CommandDocument, Desired, Floor, SignedTime, SlotWish, Trial
from edgeops.wire.device_class import CLASSES, check_options, classify
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import Fields
from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance, compare
from edgeops.wire.keys import Signer
from edgeops.wire.messages import KINDS, PHASES, VERDICTS, Bundle, OutcomeReport, Presence, SlotReport, State, Want
from edgeops.wire.release import KINDS as RELEASE_KINDS
from edgeops.wire.release import Release, Side, Tensor, Variant
from edgeops.wire.root import Root, Site
from edgeops.wire.token import Token

from . import world as w

ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
hex64 = st.binary(min_size=32, max_size=32).map(bytes.hex)
hex32 = st.binary(min_size=16, max_size=16).map(bytes.hex)
counts = st.integers(0, canonical.LIMIT)
ones = st.integers(1, canonical.LIMIT)
nfc = st.text(max_size=40).map(lambda text: unicodedata.normalize("NFC", text))
keys = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.LIMIT, canonical.LIMIT) | nfc,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20,
)  # fmt: skip
sides = st.builds(Side, hex64, st.integers(0, 512 << 20))
tensors = st.lists(
    st.builds(Tensor, keys, ids, st.lists(st.integers(-1, 9), max_size=4).map(tuple)),
    min_size=1, max_size=4, unique_by=lambda tensor: tensor.name,
).map(tuple)  # fmt: skip
variants = st.builds(
    Variant, st.lists(st.sampled_from([*CLASSES, "any"]), min_size=1, max_size=3).map(tuple),
    st.dictionaries(st.just("session.qdqisint8allowed"), st.sampled_from("01")), sides, counts, counts,
)  # fmt: skip
musts = st.lists(keys, max_size=3).map(tuple)
releases = st.builds(
    Release, ids, st.sampled_from(RELEASE_KINDS), ids, ones, counts, tensors, tensors, st.integers(3, 99), st.integers(1, 99),
    st.from_regex(r"[0-9]{1,4}\.[0-9]{1,4}", fullmatch=True), st.dictionaries(ids, variants, min_size=1, max_size=3),
    st.dictionaries(ids, sides, max_size=3), musts,
)  # fmt: skip
urls = st.sampled_from(["mqtts://m:1", "wss://m.example:443", "https://[::1]:8443"])
trials = st.builds(Trial, **{name: st.integers(*bounds) for name, bounds in TRIAL_BOUNDS.items()})
terms = st.sampled_from(["parked", "!metered", "power=external", "battery>=30", "window=sat-sun@22:00-06:00", "consent"])
gates = st.lists(terms, max_size=3).map(tuple)
conditions = st.builds(Conditions, gates, gates, gates, ids | st.just(""), st.integers(1, MAX_WAIT_S), st.integers(1, MAX_WAIT_S))
wishes = st.builds(
    SlotWish, st.sampled_from([a for a in ACTIONS if a != "none"]), hex64, ids, hex64 | st.just(""), ids | st.just(""), trials,
    conditions, counts,
) | st.builds(SlotWish, st.just("none"), rollout=ids | st.just(""))  # fmt: skip
desireds = st.builds(
    Desired, ids, ids, ones, counts, ones, counts, counts, st.dictionaries(ids, wishes, max_size=3), ids,
    st.lists(urls, max_size=3).map(tuple), musts,
)  # fmt: skip
times = st.builds(SignedTime, ids, ids, hex64, counts, counts, counts)
floors = st.builds(Floor, ids, ones, st.dictionaries(ids, counts, max_size=3))
endpoints = st.lists(urls, min_size=1, max_size=3).map(tuple)
brokers = st.lists(st.sampled_from(["mqtts://m:1", "wss://m.example:443"]), min_size=1, max_size=3).map(tuple)
managers = st.lists(st.sampled_from(["https://m", "https://[::1]:8443"]), min_size=1, max_size=3).map(tuple)
sites = st.builds(Site, ids, ones, counts, st.just((w.PEM,)), brokers, managers)
reports = st.builds(
    SlotReport, st.sampled_from(PHASES), ids | st.just(""), counts, hex64 | st.just(""), ids | st.just(""), ids | st.just(""),
    st.sampled_from(VERDICTS), nfc, nfc, hex64 | st.just(""), nfc,
)  # fmt: skip
outcomes = st.builds(
    OutcomeReport, ids, counts, ids | st.just(""), hex64 | st.just(""), st.sampled_from([v for v in VERDICTS if v]), nfc, nfc
)
states = st.builds(
    State, ids, ids, ones, hex32, ones, counts, st.dictionaries(ids, reports, max_size=3),
    st.dictionaries(keys, counts, max_size=3), counts, st.lists(outcomes, max_size=3).map(tuple),
)  # fmt: skip
presences = st.builds(
    Presence, ids, ids, ones, hex32, st.sampled_from(KINDS), hex64 | st.just(""), st.dictionaries(keys, json_values, max_size=2),
    st.dictionaries(keys, json_values, max_size=2),
)  # fmt: skip
roots = st.builds(lambda v, e, i: w.root_of(v, e, issued=i), ones, counts, counts)
DOCUMENTS = {
    "root": (roots, Root), "site": (sites, Site), "release": (releases, Release), "desired": (desireds, Desired),
    "command": (st.builds(CommandDocument, ids, ids, ones, counts, ones, st.sampled_from(COMMANDS), counts), CommandDocument),
    "time": (times, SignedTime), "floor": (floors, Floor), "state": (states, State), "presence": (presences, Presence),
}  # fmt: skip


@given(json_values)
def test_canonical_round_trip(value: Any) -> None:
    """Any value we can write reads back equal, from the one byte string it has."""
    data = canonical.encode(value)
    assert canonical.decode(data) == value
    assert canonical.encode(json.loads(data)) == data
    assert not data.startswith(b" ")


@given(json_values.filter(lambda value: isinstance(value, dict | list) and len(value) > 0))
def test_other_spellings_are_refused(value: Any) -> None:
    """The same value with white space is refused."""
    with pytest.raises(Rejected, match="re-encode"):
        canonical.decode(json.dumps(value, ensure_ascii=False, sort_keys=True).encode() + b" ")


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_canonical_decode_raises_only_rejected(data: bytes) -> None:
    """Arbitrary bytes are read or Rejected; what is read re-encodes to the same bytes."""
    try:
        value = canonical.decode(data)
    except Rejected:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize("value", [1.0, float("nan"), 2**53, {1: 2}, {"é": 1}, {"": 1}, "e\u0301", "\ud800", b"x", {"k" * 129: 1}])
def test_not_canonical_values_are_misuse(value: Any) -> None:
    """What has no canonical form cannot be signed."""
    with pytest.raises(Misuse, match="not-canonical"):
        canonical.encode([value])


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
@given(data=st.data())
def test_document_round_trip(name: str, data: st.DataObject) -> None:
    """Every document survives payload, canonical bytes, signature and parse."""
    documents, kind = DOCUMENTS[name]
    document: Any = data.draw(documents)
    opened = envelope.open_sealed(envelope.seal(name, document.payload(), [w.ONLINE]), name, {w.ONLINE.id: w.ONLINE.public}, 1)
    assert kind.parse(opened.fields) == document
    assert opened.digest == envelope.sha256(canonical.encode(document.payload()))


def test_what_is_usual_is_left_out_and_read_all_the_same() -> None:
    """Documents say no more than they must; whoever spells the rest out means the same; a trial's limits are always said."""
    wish = SlotWish("run", "a" * 64, "v", "b" * 64, "r")
    desired = replace(w.DESIRED, slots={"main": wish}, sources=())
    release = replace(w.RELEASE, variants={"v": replace(w.RELEASE.variants["small"], options={}, memory=0)})
    for document, left_out, inner in (
        (desired, {"channel": "all", "sources": [], "must": []}, {"conditions": {}, "budget_bytes": 0}),
        (release, {"must": []}, {"options": {}, "memory": 0}),
    ):
        payload = document.payload()
        part = "slots" if "slots" in payload else "variants"
        ((name, small),) = payload[part].items()
        assert not left_out.keys() & payload.keys() and not inner.keys() & small.keys()
        spelled_out = {**payload, **left_out, part: {name: small | inner}}
        assert type(document).parse(Fields.of(spelled_out, "x")) == type(document).parse(Fields.of(payload, "x")) == document
    assert wish.payload()["trial"].keys() == set(Trial.__slots__)


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
@given(data=st.data())
def test_spoiled_document_is_rejected_or_read(name: str, data: st.DataObject) -> None:
    """A document with a field replaced by anything, or gone, is read or Rejected; nothing else is ever raised."""
    documents, kind = DOCUMENTS[name]
    payload = dict(data.draw(documents).payload())
    field = data.draw(st.sampled_from(sorted(payload)))
    if data.draw(st.booleans()):
        payload[field] = data.draw(json_values)
    else:
        del payload[field]
    with suppress(Rejected):
        kind.parse(Fields.of(payload, name))


def test_seal_refuses_what_nobody_would_open() -> None:
    """The largest payload can be sealed and opened; one byte more is Misuse at the sender, not a surprise at every device."""
    largest = {"x": "y" * (canonical.MAX_BYTES - len('{"x":""}'))}
    data = envelope.seal("stream", largest, [w.ONLINE, *w.ROOTS, *w.NEXT])
    keyring = {signer.id: signer.public for signer in (w.ONLINE, *w.ROOTS, *w.NEXT)}
    assert envelope.open_sealed(data, "stream", keyring, 7).fields.data == largest
    assert Bundle.decode(Bundle((("stream", data),)).encode()).documents == (("stream", data),)
    with pytest.raises(Misuse, match="too-large"):
        envelope.seal("stream", {"x": largest["x"] + "y"}, [w.ONLINE])


@given(st.lists(st.sampled_from(sorted(envelope.TYPES)), max_size=5))
def test_bundle_round_trip(names: list[str]) -> None:
    """A bundle keeps its documents in order."""
    bundle = Bundle(tuple((name, envelope.seal(name, {"n": i}, [w.ONLINE])) for i, name in enumerate(names)))
    assert Bundle.decode(bundle.encode()) == bundle


@pytest.mark.parametrize(
    "data", [b"{}", b"1", b'[["x","y"]]', b'[["root"]]', b'[["root",1]]', b"[1]", b"[" + b'["root",""],' * 64 + b'["root",""]]']
)
def test_bad_bundle_is_rejected(data: bytes) -> None:
    """A bundle of another shape is Rejected."""
    with pytest.raises(Rejected):
        Bundle.decode(data)


@given(hex64, st.binary(max_size=2000))
def test_want_round_trip(stream: str, bits: bytes) -> None:
    """A want keeps its bitmap."""
    assert Want.decode(Want(stream, bits).encode()) == Want(stream, bits)


@given(nfc)
def test_bad_want_is_rejected(text: str) -> None:
    """A bitmap of any text is read or Rejected, also where the text is not ASCII."""
    try:
        Want.decode(canonical.encode({"stream": "a" * 64, "bits": text}))
    except Rejected as error:
        assert error.reason == "malformed"
    with pytest.raises(Rejected):
        Want.decode(canonical.encode({"stream": "a" * 64, "bits": text + "é"}))


@given(st.builds(Token, endpoints, ids, ids, hex64, hex64, hex64, counts))
def test_token_round_trip(token: Token) -> None:
    """A token survives being printed, wrapped in white space and pasted."""
    assert Token.decode(f"  {token.encode()}\n") == token


@given(st.text(max_size=60), st.integers(0, 400))
def test_damaged_token_is_misuse(text: str, at: int) -> None:
    """A token that is cut or mixed with anything is Misuse that says what to paste."""
    whole = Token(("https://m:1",), "f", "d", "a" * 64, "b" * 64, "c" * 64, 9).encode()
    for bad in (text, "edgeops1." + text, whole[: at % len(whole)], whole[: at % len(whole)] + "é" + whole[at % len(whole) :]):
        with pytest.raises(Misuse) as caught:
            Token.decode(bad)
        assert caught.value.reason == "token-malformed"


@given(ids, st.sampled_from(topics.DOWN), st.sampled_from(topics.UP))
def test_device_topics_round_trip(device: str, below: str, above: str) -> None:
    """A device topic reads back, has six slashes, and lies under the device's own filter."""
    down, up = topics.down(device, below), topics.up(device, above)
    assert topics.parse(down) == topics.DeviceTopic(device, "dn", below)
    assert topics.parse(up) == topics.DeviceTopic(device, "up", above)
    assert down.count("/") == up.count("/") == 6
    assert down.startswith(topics.downs_of(device).removesuffix("+"))
    other = f"{int(topics.shard(device)) ^ 1:02d}"
    with pytest.raises(Rejected):
        topics.parse(up.replace(f"/{topics.shard(device)}/", f"/{other}/", 1))


@given(ids, hex64, st.integers(0, 999_999))
def test_frame_topics_round_trip(channel: str, stream: str, index: int) -> None:
    """A frame topic reads back and lies under its stream's filter."""
    topic = topics.frame(channel, stream, index)
    assert topics.parse(topic) == topics.FrameTopic(channel, stream, index)
    assert topic.startswith(topics.frames_of(channel, stream).removesuffix("+"))


parts = st.sampled_from(["e", "1", "b", "d", "dn", "up", "state", "00", "٣", "+", "#", ""])


@given(st.text(max_size=80) | st.lists(parts).map("/".join))
def test_foreign_topics_are_rejected(topic: str) -> None:
    """Any other topic is read as one of ours and rebuilt to the same string, or Rejected."""
    try:
        found = topics.parse(topic)
    except Rejected:
        return
    again = (
        topics.frame(found.channel, found.stream, found.frame) if isinstance(found, topics.FrameTopic)
        else topics._device(found.device, found.direction, found.noun, topics.UP + topics.DOWN)
    )  # fmt: skip
    assert again == topic


@pytest.mark.parametrize("bad", ["", "a/b", "+", "#", "é", "x" * 65, "a\n"])
def test_bad_ids_make_no_topic(bad: str) -> None:
    """An id that could climb out of its topic makes none."""
    for build in (lambda: topics.down(bad, "cmd"), lambda: topics.up(bad, "ack"), lambda: topics.frame(bad, "s", 0)):
        with pytest.raises(Misuse, match="bad-topic"):
            build()
    with pytest.raises(Misuse):
        topics.up("ok", "desired")


def test_device_classes() -> None:
    """CPU flags map to classes, the cautious one where unsure; session options off the list are refused."""
    assert classify("x86_64", ["AVX512_VNNI"]) == "x86-vnni"
    assert classify("AMD64", ["avx2"]) == "x86-novnni"
    assert classify("arm64", ["asimddp"]) == "arm-dot"
    assert classify("aarch64", []) == classify("riscv64", ["dotprod"]) == "arm-nodot"
    assert classify("wasm32", []) == "wasm"
    check_options({"session.x64quantprecision": "1"})
    for options in ({"session.x64quantprecision": "2"}, {"session.use_ort_model_bytes_for_initializers": "1"}):
        with pytest.raises(Rejected, match="session-option"):
            check_options(options)


def test_runtime_is_ascii() -> None:
    """A runtime in other scripts' digits, which a browser would not read as a number, is refused."""
    payload = replace(w.RELEASE, runtime="1.٢٠").payload()
    with pytest.raises(Rejected, match="runtime"):
        Release.parse(Fields.of(payload, "release"))


def test_a_seed_has_32_bytes() -> None:
    """A seed of another length is Rejected."""
    with pytest.raises(Rejected):
        Signer.from_seed(b"short")


Y = np.array([[0.1, 0.9], [0.5, 0.5000001]], np.float32)
LABEL = np.array([1, 1], np.int64)
CASE = GoldenCase({"x": np.zeros((2, 3), np.float32)}, {"y": Y, "label": LABEL})
LIMIT = Tolerance(1000, 1000, 10, True)


def test_golden_round_trip() -> None:
    """A golden set reads back with its arrays, and its class or the wider guess is found."""
    golden = GoldenSet((CASE,), {"any": Tolerance(), "x86-vnni": LIMIT})
    again = GoldenSet.decode(golden.encode())
    assert again.encode() == golden.encode()
    np.testing.assert_array_equal(again.cases[0].outputs["y"], Y)
    assert again.tolerance_for("x86-vnni") == LIMIT
    assert not again.tolerance_for("wasm").measured
    with pytest.raises(Rejected, match="golden-no-tolerance"):
        GoldenSet((CASE,), {}).tolerance_for("wasm")


@given(st.binary(max_size=80), st.integers(0, 10_000), st.integers(0, 255))
def test_damaged_golden_is_rejected(data: bytes, at: int, byte: int) -> None:
    """Any bytes, cut sets and sets with one byte changed are read or Rejected, nothing else."""
    whole = GoldenSet((CASE,), {"any": Tolerance()}).encode()
    at %= len(whole)
    for bad in (data, whole[:at], whole[:at] + bytes([byte]) + whole[at + 1 :]):
        try:
            GoldenSet.decode(bad)
        except Rejected as error:
            assert error.reason == "golden-malformed"


def test_golden_case_without_outputs_is_rejected() -> None:
    """A case that expects nothing could never fail, so it is refused."""
    with pytest.raises(Rejected, match="cannot fail"):
        GoldenSet.decode(GoldenSet((GoldenCase({"x": Y}, {}),), {}).encode())
    with pytest.raises(Rejected):
        GoldenSet.decode(cbor2.dumps({"v": 2, "cases": [], "tolerances": {}}))


def test_golden_controls() -> None:
    """What is equal or within tolerance passes, and a near tie may fall either way."""
    assert compare(CASE.outputs, CASE.outputs, LIMIT) == ()
    assert compare(CASE.outputs, {"y": Y + np.float32(1e-6), "label": LABEL, "more": Y}, LIMIT) == ()
    assert compare(CASE.outputs, {"y": Y[:, ::1], "label": np.array([1, 0])}, LIMIT) == ()
    turned = np.array([[0.1, 0.9], [0.5000001, 0.5]], np.float32)
    assert compare(CASE.outputs, {"y": turned, "label": np.array([1, 0])}, LIMIT) == ()


@pytest.mark.parametrize(
    ("got", "says"),
    [
        ({"y": Y}, "label is missing"),
        ({"y": Y[:1], "label": LABEL}, "has shape"),
        ({"y": Y + np.float32(0.01), "label": LABEL}, "off by up to"),
        ({"y": Y * np.float32("nan"), "label": LABEL}, "not finite"),
        ({"y": Y + np.float32("inf"), "label": LABEL}, "not finite"),
        ({"y": Y[:, ::-1], "label": LABEL}, "another top-1"),
        ({"y": Y, "label": np.array([0, 1])}, "differs in 1"),
        ({"y": Y, "label": np.array([0, 0])}, "differs in 2"),
    ],
)
def test_golden_faults_are_found(got: dict[str, Any], says: str) -> None:
    """Each kind of wrong output is named; a near tie in one row does not excuse another row."""
    assert any(says in problem for problem in compare(CASE.outputs, got, LIMIT))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_expecting_what_is_not_finite_never_passes(value: str) -> None:
    """An expectation that is not finite would accept anything; it accepts nothing."""
    wrong = {"y": np.array([[float(value), 1.0]], np.float32)}
    assert compare(wrong, {"y": np.array([[5.0, 1.0]], np.float32)}, LIMIT)
    assert compare(wrong, wrong, LIMIT)


NOWHERE = ["m:99999", "[::1", "a:b:c", "m:8443:1", "m:0", "m:", "", ":8443", "::1", "[m]:1", "m]", "m:65536"]


@pytest.mark.parametrize("place", NOWHERE)
def test_an_address_that_is_none_is_refused(place: str) -> None:
    """One host, one port that there is, brackets around IPv6 only; brokers and managers have schemes of their own."""
    for change in ({"https": [f"https://{place}"]}, {"mqtt": [f"mqtts://{place}"]}):
        with pytest.raises(Rejected, match="list of strings"):
            Site.parse(Fields(w.SITE.payload() | change, "site"))


def test_each_list_of_addresses_has_its_schemes() -> None:
    """A broker among the managers, or a manager among the brokers, is refused; every port and kind of host there is passes."""
    for change in ({"https": ["mqtts://m:1"]}, {"https": ["wss://m:1"]}, {"mqtt": ["https://m:1"]}):
        with pytest.raises(Rejected, match="list of strings"):
            Site.parse(Fields(w.SITE.payload() | change, "site"))
    for place in ("m", "a.b-c.example:1", "127.0.0.1:65535", "[::1]", "[fe80::1]:8883", "m:10000", "m:60000", "m:65530"):
        change = {"https": [f"https://{place}"], "mqtt": [f"mqtts://{place}", f"wss://{place}"]}
        assert Site.parse(Fields(w.SITE.payload() | change, "site")).https == (f"https://{place}",)
