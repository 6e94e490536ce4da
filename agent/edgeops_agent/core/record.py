"""The record that must survive power cuts: trust state and all slots, in two copies A and B, newest valid one wins.

Bytes of one copy: canonical JSON {"body", "seq", "sha256"} where sha256 covers seq and body.
The caller always overwrites the older copy.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from edgeops.wire import canonical
from edgeops.wire.conditions import Conditions
from edgeops.wire.errors import Rejected
from edgeops.wire.fields import HEX64, Fields
from edgeops.wire.keys import sha256
from edgeops.wire.trust import Trust

from .slot import Build, Outcome, Slot, Target

MAX_COUNTERS = 96
MAX_OUTCOMES = 32


@dataclass(frozen=True, slots=True)
class Record:
    """Everything the agent may never lose or see torn: trust, slots, the counters of what it refused.

    `sites` are digests of the site documents to reach the manager by: the newest, then the last one that has proven itself.
    `unsure` means that a newer record may have existed: no order is taken until the manager has answered our nonce.
    """

    trust: Trust
    slots: Mapping[str, Slot] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    report_seq: int = 0
    sites: tuple[str, ...] = ()
    unsure: bool = False

    def with_slot(self, name: str, slot: Slot) -> "Record":
        """A copy with one slot replaced, without the oldest outcomes when there are more than MAX_OUTCOMES in all slots."""
        slots = {**self.slots, name: slot}
        waiting = sorted((one.order, where, at) for where, each in slots.items() for at, one in enumerate(each.outbox))
        for _, where, _ in waiting[: max(0, len(waiting) - MAX_OUTCOMES)]:
            slots[where] = replace(slots[where], outbox=slots[where].outbox[1:])
        return replace(self, slots=slots)

    def counted(self, name: str, by: int = 1) -> "Record":
        """A copy with one counter raised. There are MAX_COUNTERS at most, since whoever sends nonsense chooses the names."""
        if name not in self.counters and len(self.counters) >= MAX_COUNTERS - 1:
            name = "others"
        return replace(self, counters={**self.counters, name: self.counters.get(name, 0) + by})

    def noted(self, report: int) -> "Record":
        """A copy in which every outcome that is new knows that no report up to the number `report` tells of it."""
        if all(outcome.after >= 0 for slot in self.slots.values() for outcome in slot.outbox):
            return self
        return self._with_after(lambda outcome: report if outcome.after < 0 else outcome.after)

    def untold(self, report: int) -> "Record":
        """A copy in which no outcome counts as told by any report up to `report`."""
        return self._with_after(lambda outcome: report)

    def _with_after(self, after: Callable[[Outcome], int]) -> "Record":
        slots = {}
        for name, slot in self.slots.items():
            slots[name] = replace(slot, outbox=tuple(replace(outcome, after=after(outcome)) for outcome in slot.outbox))
        return replace(self, slots=slots)


def encode(record: Record, seq: int) -> bytes:
    """The bytes of one copy."""
    body = {
        "trust": record.trust.payload(), "slots": {name: asdict(slot) for name, slot in record.slots.items()},
        "counters": dict(record.counters), "report_seq": record.report_seq, "sites": list(record.sites),
        "unsure": int(record.unsure),
    }  # fmt: skip
    plain = canonical.encode({"body": body, "seq": seq})
    return plain[:-1] + _seal(plain)


def decode(data: bytes) -> tuple[int, Record]:
    """(seq, record) of one copy; raises Rejected when a byte is wrong."""
    copy = Fields.of(canonical.decode(data, "record", 4 << 20), "record")
    seq, plain = copy.number("seq"), data[: -len(_seal(b""))] + b"}"
    if not data.endswith(_seal(plain)):
        raise Rejected("record-torn", "the state record does not match its checksum")
    inner = copy.sub("body")
    slots = {name: _slot(Fields.of(raw, f"record.slots.{name}")) for name, raw in inner.mapping("slots").items()}
    return seq, Record(
        Trust.parse(inner.sub("trust")), slots, inner.counts("counters", 128), inner.number("report_seq"),
        inner.texts("sites", HEX64, 2, ()), inner.number("unsure", default=0) > 0,
    )  # fmt: skip


def lasting(record: Record) -> Record:
    """What a device should still know when both copies are gone: whom it trusts, and which models have proven themselves."""
    slots = {
        name: Slot(current=s.current, previous=s.previous, order=s.order, bad=s.bad, untried=s.untried)
        for name, s in record.slots.items()
    }
    trust = replace(record.trust, counter=0, command=0, time_floor=0)
    return Record(trust, slots, sites=record.sites)


def restored(kept: Record) -> Record:
    """The record to go on with when only `lasting` parts are left."""
    return replace(kept, slots=lasting(kept).slots, unsure=True).counted("records_restored")


def is_torn(data: bytes | None) -> bool:
    """Whether this is a copy that was written, but cannot be read."""
    return data is not None and newest({"": data}) is None


def newest(copies: Mapping[str, bytes | None]) -> tuple[str, int, Record] | None:
    """(which copy, seq, record) of the newest valid copy; None when there is none."""
    found = []
    for name, data in copies.items():
        try:
            if data is not None:
                found.append((name, *decode(data)))
        except Rejected:
            continue
    return max(found, key=lambda item: item[1]) if found else None


def _seal(plain: bytes) -> bytes:
    """What follows the body and number of a copy, whose canonical bytes are `plain`: their checksum is its last key."""
    return b',"sha256":"%s"}' % sha256(plain).encode()


def _slot(kept: Fields) -> Slot:
    """A slot; what a newer agent has added to it is left out, so that going back to this one is possible."""
    raw = dict(kept.data)
    try:
        raw["current"] = _maybe(Build, raw["current"])
        raw["previous"] = _maybe(Build, raw["previous"])
        target = raw["target"]
        raw["target"] = None if target is None else _target(target)
        raw["outbox"] = tuple(_made(Outcome, item) for item in raw["outbox"])
        raw["last"] = _maybe(Outcome, raw["last"])
        raw["failure"], raw["bad"] = (raw["failure"][0], raw["failure"][1]), tuple(raw["bad"])
        made: Slot = _made(Slot, raw)
        return made
    except (KeyError, TypeError, IndexError) as error:
        raise Rejected("malformed", f"{kept.where}: {error}") from None


def _target(raw: Mapping[str, Any]) -> Target:
    conditions = Conditions.parse(Fields.of(raw.get("conditions", {}), "record.conditions"))
    made: Target = _made(Target, {**raw, "build": _maybe(Build, raw["build"]), "conditions": conditions})
    return made


def _maybe(kind: type, raw: Mapping[str, Any] | None) -> Any:
    return None if raw is None else _made(kind, raw)


def _made(kind: type, raw: Mapping[str, Any]) -> Any:
    return kind(**{one.name: raw[one.name] for one in fields(kind) if one.name in raw})
