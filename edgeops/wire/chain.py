"""The audit log as anybody can check it: what an entry's digest covers, how entries hang together, what a checkpoint says.

An entry carries the digest of the one before; a checkpoint, signed by the online key, says how far the log had come at a time and
names the checkpoint before it. Numbers begin at 1 and have no gaps. The chain alone shows an altered, removed, swapped or inserted
entry; one old checkpoint kept elsewhere also shows a cut tail and a chain that was written anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import canonical, envelope
from .errors import Misuse, Rejected
from .fields import HEX64, ID, Fields
from .keys import sha256
from .root import Root
from .trust import Trust, advance_root, current_root, pin_root

FIRST = "0" * 64
COVERED = ("number", "at", "who", "action", "subject", "detail", "previous")


def entry_digest(entry: Mapping[str, Any]) -> str:
    """The digest of an entry; raises Misuse("not-canonical") where a value is none an entry may hold."""
    return sha256(canonical.encode({name: entry.get(name) for name in COVERED}))


def fits(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is what its own digest says."""
    try:
        return bool(entry.get("digest") == entry_digest(entry))
    except Misuse:
        return False


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """At `at` (Unix seconds) the log ended with entry number `entry`, whose digest is `digest`; `previous` names the one before."""

    fleet: str
    entry: int
    digest: str
    at: int
    previous: str

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {"fleet": self.fleet, "entry": self.entry, "digest": self.digest, "at": self.at, "previous": self.previous}

    @property
    def id(self) -> str:
        """What the next checkpoint calls this one: the digest of its payload."""
        return sha256(canonical.encode(self.payload()))

    @staticmethod
    def parse(fields: Fields) -> "Checkpoint":
        """Read a checkpoint payload; raises Rejected."""
        return Checkpoint(
            fields.text("fleet", ID), fields.number("entry", 1), fields.text("digest", HEX64), fields.number("at"),
            fields.text("previous", HEX64),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong: a stable word, the number of the first bad entry (0: no entry is to blame), and a sentence."""

    reason: str
    entry: int
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many entries hang together from the first on, the digest of the last of them, and the last one under a checkpoint."""

    entries: int
    head: str
    covered: int
    finding: Finding | None


def root_chain(roots: Sequence[bytes], pin: str | None) -> tuple[str, dict[str, bytes], str]:
    """The fleet, every online key (id -> public key) that root 1, 2, … ever named, and the digest of root 1, which must be `pin`.

    Raises Rejected as the device's own rules do, Misuse("no-document") without a root.
    """
    if not roots:
        raise Misuse("no-document", "there is no root document to check signatures with; copy the manager's documents/ too")
    body = envelope.split(roots[0], "root")[0]
    first = Root.parse(Fields.of(canonical.decode(body, "root"), "root"))
    trust: Trust = pin_root(roots[0], first.fleet, pin or sha256(body), "auditor", 1)
    keys = dict(current_root(trust).keys_of("online"))
    for data in roots[1:]:
        trust = advance_root(trust, data)
        keys |= current_root(trust).keys_of("online")
    return first.fleet, keys, sha256(body)


def read_checkpoints(
    lines: Iterable[bytes], fleet: str, keys: Mapping[str, bytes], where: str
) -> tuple[list[Checkpoint], Finding | None]:
    """The checkpoints of a file or table that are to be believed, in order, and what is wrong with the first line that is not.

    A line may have other text in front, as logs do. The first may have any checkpoint before it: one is as good a witness as all.
    """
    found: list[Checkpoint] = []
    bad: list[Finding] = []
    for number, line in enumerate(lines, 1):
        place = f"{where}, line {number}"
        try:
            made = Checkpoint.parse(envelope.open_sealed(line[max(line.find(b"{"), 0) :].strip(), "checkpoint", keys, 1).fields)
        except Rejected as error:
            bad.append(Finding("checkpoint-forged", 0, f"{place}: {error.message} ({error.reason})"))
            continue
        if made.fleet != fleet:
            bad.append(Finding("checkpoint-foreign", 0, f"{place}: a checkpoint of fleet {made.fleet}, this is {fleet}"))
            continue
        if found and made == found[-1]:
            continue  # written twice by a manager that was killed in between
        if found and made.previous != found[-1].id:
            text = f"{place}: the checkpoint of entry {made.entry} does not follow on that of entry {found[-1].entry}"
            bad.append(Finding("checkpoint-missing", 0, f"{text}; one between them is gone, or the order was changed"))
        found.append(made)
    return found, bad[0] if bad else None


def check_chain(entries: Iterable[Mapping[str, Any]], checkpoints: Iterable[Checkpoint]) -> Verdict:
    """Walk the log once, first entry to last, and stop at the first that is wrong; only one entry is held at a time."""
    said: dict[int, list[Checkpoint]] = {}
    for one in checkpoints:
        said.setdefault(one.entry, []).append(one)
    number, head, covered = 0, FIRST, 0
    for entry in entries:
        finding = _entry_problem(entry, number + 1, head)
        if finding is None:
            number, head = number + 1, str(entry["digest"])
            finding = _witness_problem(number, head, covered, said.get(number, ()))
        if finding is not None:
            return Verdict(number, head, covered, finding)
        covered = number if number in said else covered
    beyond = min((entry for entry in said if entry > number), default=0)
    return Verdict(number, head, covered, _cut(number, said[beyond][0]) if beyond else None)


def _entry_problem(entry: Mapping[str, Any], number: int, previous: str) -> Finding | None:
    given = entry.get("number")
    if isinstance(given, bool) or not isinstance(given, int):
        return Finding("audit-altered", number, f"entry {number} has no number, but {str(given)[:40]!r}")
    if given > number:
        return Finding("audit-missing", number, f"entry {number} is gone: the next one there is, is {given}")
    if given < number:
        return Finding("audit-inserted", given, f"an entry {given} stands where entry {number} belongs")
    if not fits(entry):
        return Finding("audit-altered", number, f"entry {number} was changed: its digest is of something else")
    if entry.get("previous") != previous:
        text = f"entry {number} does not follow on entry {number - 1}: one of the two was put in another's place"
        return Finding("audit-unlinked", number, text)
    return None


def _witness_problem(number: int, head: str, covered: int, said: Iterable[Checkpoint]) -> Finding | None:
    for one in said:
        if one.digest != head:
            span = f"entries {covered + 1} to {number}" if covered + 1 < number else f"entry {number}"
            text = f"{span} changed after the checkpoint at {one.at}: {number} was {one.digest[:12]} then, it is {head[:12]} now"
            return Finding("audit-rewritten", covered + 1, text)
    return None


def _cut(number: int, one: Checkpoint) -> Finding:
    text = f"the log ends with entry {number}, but the checkpoint of {one.at} says that there were {one.entry}: its tail was cut"
    return Finding("audit-cut", number + 1, text)
