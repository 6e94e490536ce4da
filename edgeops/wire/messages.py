"""What travels on the topics besides signed documents of the manager: births, state reports, wants, telemetry, enrolment.

Births, states and telemetry are signed with the device's identity key, since they steer rollouts.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import canonical, envelope
from .errors import Rejected
from .fields import HEX32, HEX64, ID, Fields
from .keys import Signer, is_signed, key_id

PHASES = ("idle", "waiting", "fetch", "verify", "install", "ready", "trial", "proven", "committed", "rollback")
VERDICTS = ("", "committed", "committed-unproven", "rolled-back", "failed", "unfit", "cancelled", "removed", "prefetched")
KINDS = ("birth", "goodbye", "gone")
MAX_BUNDLE = 2 * envelope.MAX_ENVELOPE
TELE_TYPE = "application/vnd.edgeops.tele.v1"


@dataclass(frozen=True, slots=True)
class SlotReport:
    """One slot as the device reports it: what runs, the outcome of the latest rollout in it, the last words of a worker that died
    since the agent started.
    """

    phase: str
    model: str = ""
    version: int = 0
    release: str = ""
    variant: str = ""
    rollout: str = ""
    verdict: str = ""
    reason: str = ""
    detail: str = ""
    target: str = ""
    crash: str = ""

    def payload(self) -> dict[str, Any]:
        """The JSON payload; empty fields are left out."""
        full = {name: getattr(self, name) for name in SlotReport.__slots__}
        return {name: value for name, value in full.items() if value or name == "phase"}

    @staticmethod
    def parse(fields: Fields) -> "SlotReport":
        """Read one slot report; raises Rejected."""
        report = SlotReport(
            fields.text("phase"), fields.text("model", ID, default=""), fields.number("version", default=0),
            fields.text("release", HEX64, default=""), fields.text("variant", ID, default=""),
            fields.text("rollout", ID, default=""), fields.text("verdict", default=""), fields.text("reason", default="", most=128),
            fields.text("detail", default="", most=512), fields.text("target", HEX64, default=""),
            fields.text("crash", default="", most=512),
        )  # fmt: skip
        if report.phase not in PHASES or report.verdict not in VERDICTS:
            raise fields.fail("phase", "a known phase, and verdict a known verdict")
        return report


@dataclass(frozen=True, slots=True)
class OutcomeReport:
    """How an order ended in a slot; repeated in every state until the manager has acknowledged it."""

    slot: str
    order: int
    rollout: str
    release: str
    verdict: str
    reason: str = ""
    detail: str = ""

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {name: getattr(self, name) for name in OutcomeReport.__slots__}

    @staticmethod
    def parse(fields: Fields) -> "OutcomeReport":
        """Read one outcome; raises Rejected."""
        if not fields.text("verdict") or fields.text("verdict") not in VERDICTS:
            raise fields.fail("verdict", "a known verdict")
        return OutcomeReport(
            fields.text("slot", ID), fields.number("order"), fields.text("rollout", ID, default=""),
            fields.text("release", HEX64, default=""), fields.text("verdict"), fields.text("reason", most=128),
            fields.text("detail", most=512),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """A device's full reported state; (incarnation, boot, seq) orders reports.

    `counter` and `command` are the newest desired document and the newest command it accepted, `documents` the versions of root,
    site and floor it has; an old agent says nothing of those.
    """

    fleet: str
    device: str
    incarnation: int
    boot: str
    seq: int
    counter: int
    slots: Mapping[str, SlotReport]
    counters: Mapping[str, int] = field(default_factory=dict)
    command: int = 0
    outcomes: tuple[OutcomeReport, ...] = ()
    documents: Mapping[str, int] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {
            "fleet": self.fleet, "device": self.device, "incarnation": self.incarnation, "boot": self.boot, "seq": self.seq,
            "counter": self.counter, "slots": {name: s.payload() for name, s in self.slots.items()},
            "counters": dict(self.counters), "command": self.command,
            "outcomes": [outcome.payload() for outcome in self.outcomes], "documents": dict(self.documents),
        }  # fmt: skip

    @staticmethod
    def parse(fields: Fields) -> "State":
        """Read a state payload; raises Rejected."""
        return State(
            fields.text("fleet", ID), fields.text("device", ID), fields.number("incarnation", 1), fields.text("boot", HEX32),
            fields.number("seq", 1), fields.number("counter"), fields.each("slots", SlotReport.parse, 16),
            fields.counts("counters", 128), fields.number("command"), fields.objects("outcomes", OutcomeReport.parse, 256),
            fields.counts("documents", 8),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Presence:
    """Birth on every connect, goodbye before leaving, gone as last will. `nonce` asks for a signed time; `documents` as in State.

    `seq` of a birth grows from one to the next, so that nobody can bring a device back to life with an old one.
    """

    fleet: str
    device: str
    incarnation: int
    boot: str
    kind: str
    nonce: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, int] = field(default_factory=dict)
    seq: int = 0

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {
            "fleet": self.fleet, "device": self.device, "incarnation": self.incarnation, "boot": self.boot, "kind": self.kind,
            "nonce": self.nonce, "capabilities": dict(self.capabilities), "facts": dict(self.facts),
            "documents": dict(self.documents), "seq": self.seq,
        }  # fmt: skip

    @staticmethod
    def parse(fields: Fields) -> "Presence":
        """Read a presence payload; raises Rejected."""
        if fields.text("kind") not in KINDS:
            raise fields.fail("kind", ", ".join(KINDS))
        return Presence(
            fields.text("fleet", ID), fields.text("device", ID), fields.number("incarnation", 1), fields.text("boot", HEX32),
            fields.text("kind"), fields.text("nonce", HEX64, default=""), fields.mapping("capabilities", 64, {}),
            fields.mapping("facts", 64, {}), fields.counts("documents", 8), fields.number("seq", default=0),
        )  # fmt: skip


def open_report(data: bytes, name: str, public: bytes) -> Fields:
    """The fields of a device-signed `state`, `presence` or `renew` envelope; raises Rejected."""
    return envelope.open_sealed(data, name, {key_id(public): public}, 1).fields


def seal_tele(body: bytes, signer: Signer) -> bytes:
    """Telemetry: 64 bytes of signature, then the window's own bytes."""
    return signer.sign(envelope.pae(TELE_TYPE, body)) + body


def open_tele(data: bytes, public: bytes) -> bytes:
    """The window bytes of a telemetry message; raises Rejected."""
    if not 64 < len(data) <= 64 << 10 or not is_signed(public, data[:64], envelope.pae(TELE_TYPE, data[64:])):
        raise Rejected("bad-signature", "telemetry is not signed by this device")
    return data[64:]


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes down on `desired` and `doc`: envelopes by kind, in the order they are to be read.

    On the way each is [kind, payload, {key id: signature}]: two thirds of an envelope's bytes, and readable with any MQTT client.
    """

    documents: tuple[tuple[str, bytes], ...]

    def encode(self) -> bytes:
        """Canonical JSON; raises Rejected for what is no envelope of its kind."""
        return canonical.encode([[name, *envelope.apart(data, name)] for name, data in self.documents])

    @staticmethod
    def decode(data: bytes) -> "Bundle":
        """Read a bundle; raises Rejected."""
        items = canonical.decode(data, "bundle", MAX_BUNDLE)
        if not isinstance(items, list) or len(items) > 64:
            raise Rejected("malformed", "a bundle is a list of at most 64 documents")
        documents = []
        for item in items:
            if not isinstance(item, list) or len(item) != 3 or not isinstance(item[0], str) or not _are_texts(item[2]):
                raise Rejected("malformed", "a bundle entry is [kind, payload, {key id: signature}]")
            if item[0] not in envelope.TYPES:
                raise Rejected("wrong-type", f"no document kind {item[0]!r}")
            documents.append((item[0], envelope.together(*item)))
        return Bundle(tuple(documents))


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


@dataclass(frozen=True, slots=True)
class Want:
    """The frames a device misses of one stream: bit i of `bits` (most significant first) set means frame i is missing."""

    stream: str
    bits: bytes

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical.encode({"stream": self.stream, "bits": base64.b64encode(self.bits).decode()})

    @staticmethod
    def decode(data: bytes) -> "Want":
        """Read a want; raises Rejected."""
        fields = Fields.of(canonical.decode(data, "want", 64 << 10), "want")
        try:
            bits = base64.b64decode(fields.text("bits", most=32 << 10), validate=True)
        except ValueError:  # binascii.Error, and plain ValueError for what is not ASCII
            raise Rejected("malformed", "want.bits is not base64") from None
        return Want(fields.text("stream", HEX64), bits)
