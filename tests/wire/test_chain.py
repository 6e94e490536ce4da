"""The audit log and its checkpoints, as an auditor checks them: whatever is done to the log, the first bad entry is named."""

import base64
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeops.wire import chain
from edgeops.wire.chain import FIRST, Checkpoint, check_chain, entry_digest, read_checkpoints, root_chain
from edgeops.wire.envelope import seal, split
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.root import ROLES, Role, Root

from ..conftest import Score

Entry = dict[str, Any]
FLEET, NOW = "testfleet", 1_900_000_000


def linked(entries: list[Entry]) -> list[Entry]:
    """The same deeds as a log that hangs together."""
    made: list[Entry] = []
    for number, entry in enumerate(entries, 1):
        one = entry | {"number": number, "previous": made[-1]["digest"] if made else FIRST}
        made.append(one | {"digest": entry_digest(one)})
    return made


def log(count: int = 9) -> list[Entry]:
    """A log of so many entries."""
    return linked([{"at": NOW + n, "who": "me", "action": "act", "subject": f"s{n}", "detail": ""} for n in range(count)])


def witnesses(entries: list[Entry], *numbers: int) -> list[Checkpoint]:
    """Checkpoints that were made when the log had so many entries."""
    made: list[Checkpoint] = []
    for number in numbers:
        made.append(Checkpoint(FLEET, number, entries[number - 1]["digest"], NOW + number, made[-1].id if made else FIRST))
    return made


def forged(entries: list[Entry], number: int, **values: Any) -> list[Entry]:
    """An entry changed by somebody who knows how digests are made."""
    changed = [dict(entry) for entry in entries]
    changed[number - 1] |= values
    changed[number - 1]["digest"] = entry_digest(changed[number - 1])
    return changed


def changed(entries: list[Entry], number: int, **values: Any) -> list[Entry]:
    """An entry changed by somebody who does not."""
    return [entry | values if entry["number"] == number else entry for entry in entries]


def swapped(entries: list[Entry], one: int, other: int, renumbered: bool) -> list[Entry]:
    """Two entries in each other's place, with their old numbers or the place's."""
    out = list(entries)
    out[one - 1], out[other - 1] = out[other - 1], out[one - 1]
    return [entry | {"number": n} for n, entry in enumerate(out, 1)] if renumbered else out


def inserted(entries: list[Entry], at: int) -> list[Entry]:
    """A deed nobody did, put in place of `at`, and everything after it renumbered but not signed anew."""
    deed = {"at": NOW, "who": "eve", "action": "act", "subject": "x", "detail": "", "number": at}
    deed["previous"] = entries[at - 2]["digest"]
    deed["digest"] = entry_digest(deed)
    return [*entries[: at - 1], deed, *(entry | {"number": entry["number"] + 1} for entry in entries[at - 1 :])]


Tamper = Callable[[list[Entry]], list[Entry]]
# name: (what is done to a log of nine entries with checkpoints at 4 and 8, reason, first bad entry, shown without checkpoints too)
ATTACKS: dict[str, tuple[Tamper, str, int, bool]] = {
    "altered who": (lambda e: changed(e, 5, who="eve"), "audit-altered", 5, True),
    "altered time": (lambda e: changed(e, 5, at=NOW), "audit-altered", 5, True),
    "altered digest": (lambda e: changed(e, 5, digest="a" * 64), "audit-altered", 5, True),
    "altered previous": (lambda e: changed(e, 5, previous="a" * 64), "audit-altered", 5, True),
    "altered to what no entry holds": (lambda e: changed(e, 5, detail=1.5), "audit-altered", 5, True),
    "altered to bytes": (lambda e: changed(e, 5, detail=b"x"), "audit-altered", 5, True),
    "no number": (lambda e: [*e[:4], e[4] | {"number": "five"}, *e[5:]], "audit-altered", 5, True),
    "nothing": (lambda e: [*e[:4], {}, *e[5:]], "audit-altered", 5, True),
    "altered, digest made anew": (lambda e: forged(e, 5, who="eve"), "audit-unlinked", 6, True),
    "altered under a checkpoint, digest made anew": (lambda e: forged(e, 8, who="eve"), "audit-rewritten", 5, False),
    "first altered": (lambda e: changed(e, 1, who="eve"), "audit-altered", 1, True),
    "last altered": (lambda e: changed(e, 9, who="eve"), "audit-altered", 9, True),
    "removed": (lambda e: e[:4] + e[5:], "audit-missing", 5, True),
    "first removed": (lambda e: e[1:], "audit-missing", 1, True),
    "first removed, renumbered": (lambda e: [x | {"number": n} for n, x in enumerate(e[1:], 1)], "audit-altered", 1, True),
    "swapped": (lambda e: swapped(e, 5, 6, False), "audit-missing", 5, True),
    "swapped, renumbered": (lambda e: swapped(e, 5, 6, True), "audit-altered", 5, True),
    "inserted": (lambda e: inserted(e, 5), "audit-altered", 6, True),
    "doubled": (lambda e: [*e[:5], e[4], *e[5:]], "audit-inserted", 5, True),
    "an entry before the first": (lambda e: [e[0] | {"number": 0}, *e], "audit-inserted", 0, True),
    "tail cut": (lambda e: e[:6], "audit-cut", 7, False),
    "emptied": (lambda e: [], "audit-cut", 1, False),
    "written anew": (lambda e: linked([x | {"who": "eve"} for x in e]), "audit-rewritten", 1, False),
    "written anew from 5": (lambda e: linked([*e[:4], *(x | {"who": "eve"} for x in e[4:])]), "audit-rewritten", 5, False),
    "one removed and the rest written anew": (lambda e: linked(e[:5] + e[6:]), "audit-rewritten", 5, False),
}  # fmt: skip


def verdict_of(module: ModuleType, name: str, numbers: tuple[int, ...] = (4, 8)) -> tuple[str, int]:
    """(reason, first bad entry) that a copy of the chain finds after an attack; ("", 0) when it finds nothing."""
    entries = log()
    signed = [module.Checkpoint(*(getattr(one, field) for field in Checkpoint.__slots__)) for one in witnesses(entries, *numbers)]
    found = module.check_chain(ATTACKS[name][0](entries), signed).finding
    return (found.reason, found.entry) if found else ("", 0)


def test_an_honest_log_holds() -> None:
    """Nothing is found, whatever checkpoints there are; the last one covered is said."""
    entries = log()
    assert check_chain(entries, []) == chain.Verdict(9, entries[-1]["digest"], 0, None)
    assert check_chain(iter(entries), witnesses(entries, 4, 8)).covered == 8
    assert check_chain([], []) == chain.Verdict(0, FIRST, 0, None)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_first_bad_entry_is_named(name: str, score: Score) -> None:
    """Each way to change the log is found and the right entry named."""
    assert verdict_of(chain, name) == ATTACKS[name][1:3]
    score.refused(f"audit-{name.replace(',', '').replace(' ', '-')}", ATTACKS[name][1])


@pytest.mark.parametrize("name", [name for name, row in ATTACKS.items() if not row[3]])
def test_what_only_a_checkpoint_shows(name: str) -> None:
    """A cut tail and a log written anew hang together in themselves: one checkpoint, the older or the newer, is what shows them."""
    entries = log()
    without = check_chain(ATTACKS[name][0](entries), []).finding
    assert without is None or name == "altered under a checkpoint, digest made anew"
    assert verdict_of(chain, name, (8,))[0] == ATTACKS[name][1]


# name: (line of chain.py, what stands there in the copy that skips one check, attacks that get through)
MUTANTS = {
    "no digest": ("if not fits(entry):", "if False:", "altered who"),
    "no link": ('if entry.get("previous") != previous:', "if False:", "altered, digest made anew"),
    "no gaps": ("if given > number:", "if False:", "removed"),
    "no doubles": ("if given < number:", "if False:", "doubled"),
    "no witness": ("if one.digest != head:", "if False:", "written anew"),
    "no end": ("if beyond else None", "if False else None", "tail cut"),
    "numbers outside": ('("number", "at",', '("at",', "swapped, renumbered"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_copy_that_skips_a_check_lets_one_through(name: str, tmp_path: Path) -> None:
    """Every check is needed: without it an attack is not found, or another entry is blamed."""
    line, instead, attack = MUTANTS[name]
    source = Path(chain.__file__).read_text("utf-8")
    assert source.count(line) == 1
    copy = tmp_path / "chain.py"
    copy.write_text(source.replace(line, instead), "utf-8")
    spec = importlib.util.spec_from_file_location("edgeops.wire.chain_mutant", copy)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        assert verdict_of(module, attack) != ATTACKS[attack][1:3]
    finally:
        del sys.modules[spec.name]


@pytest.fixture(scope="module")
def signers() -> dict[str, Signer]:
    """A key for each role."""
    return {role: Signer.from_seed(bytes([number]) * 32) for number, role in enumerate(ROLES, 1)}


def rooted(signers: dict[str, Signer], version: int, online: Signer) -> bytes:
    """A root that names this online key."""
    held = signers | {"online": online}
    keys = {one.id: one.public for one in held.values()}
    roles = {role: Role((held[role].id,), 1) for role in ROLES}
    return seal("root", Root(FLEET, version, 0, NOW, keys, roles).payload(), [signers["root"]])


def sealed(ones: list[Checkpoint], signer: Signer) -> list[bytes]:
    """Lines of a checkpoint file."""
    return [seal("checkpoint", one.payload(), [signer]) for one in ones]


def test_keys_of_every_root_count(signers: dict[str, Signer]) -> None:
    """Checkpoints outlive the online key that signed them: old roots still name it. A pin decides which first root is believed."""
    newer = Signer.from_seed(b"n" * 32)
    roots = [rooted(signers, 1, signers["online"]), rooted(signers, 2, newer)]
    fleet, keys, pin = root_chain(roots, None)
    assert (fleet, set(keys), pin) == (FLEET, {signers["online"].id, newer.id}, sha256(split(roots[0], "root")[0]))
    assert root_chain(roots, pin)[1] == keys
    ones = witnesses(log(), 2, 4)
    mixed = sealed(ones[:1], signers["online"]) + sealed(ones[1:], newer)
    assert read_checkpoints(mixed, FLEET, keys, "file") == (ones, None)
    with pytest.raises(Rejected):
        root_chain(roots, "0" * 64)
    with pytest.raises(Rejected):
        root_chain([roots[0], rooted(signers, 3, newer)], None)
    with pytest.raises(Misuse, match="no-document"):
        root_chain([], None)


def flipped(line: bytes) -> bytes:
    """One bit of the signature changed."""
    body = json.loads(line)
    raw = bytearray(base64.b64decode(body["signatures"][0]["sig"]))
    raw[5] ^= 1
    body["signatures"][0]["sig"] = base64.b64encode(raw).decode()
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def test_checkpoint_lines_that_are_not_to_be_believed(signers: dict[str, Signer]) -> None:
    """A foreign key, another key of the root, a changed byte, another fleet, a cut, an exchange: each is named with its line."""
    online = signers["online"]
    keys = {online.id: online.public}
    ones = witnesses(log(), 2, 4, 6)
    lines = sealed(ones, online)
    stranger = Signer.from_seed(b"s" * 32)
    for bad in (sealed(ones[1:2], signers["release"])[0], sealed(ones[1:2], stranger)[0], flipped(lines[1]), b"{}", b"{torn"):
        found, finding = read_checkpoints([lines[0], bad, *lines[1:]], FLEET, keys, "file")
        assert finding and (finding.reason, finding.text.startswith("file, line 2: ")) == ("checkpoint-forged", True)
        assert found == ones, "what is good is still a witness"
    other = Checkpoint("other", 2, "a" * 64, NOW, FIRST)
    assert read_checkpoints([*sealed([other], online)], FLEET, keys, "file")[1].reason == "checkpoint-foreign"  # type: ignore[union-attr]
    for cut in ([lines[0], lines[2]], [lines[1], lines[0], lines[2]]):
        finding = read_checkpoints(cut, FLEET, keys, "file")[1]
        assert finding and (finding.reason, finding.text.startswith("file, line 2: ")) == ("checkpoint-missing", True)


def test_what_a_checkpoint_file_may_be(signers: dict[str, Signer]) -> None:
    """Any stretch of it is good, so are lines of a log, and a line that was written twice."""
    online = signers["online"]
    keys = {online.id: online.public}
    ones = witnesses(log(), 2, 4, 6)
    lines = sealed(ones, online)
    assert read_checkpoints(lines[1:], FLEET, keys, "file") == (ones[1:], None)
    assert read_checkpoints([lines[0], lines[0], lines[1]], FLEET, keys, "file") == (ones[:2], None)
    assert read_checkpoints([b"Jan 1 host edgeops: checkpoint " + lines[0] + b"\n"], FLEET, keys, "file") == (ones[:1], None)
