"""The trust rules: every attack is refused with its reason, honest documents pass, and every check carries its weight."""

import importlib
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import edgeops.wire
from edgeops.wire import trust as rules
from edgeops.wire.desired import Floor
from edgeops.wire.errors import EdgeopsError, Rejected
from edgeops.wire.fields import Fields

from . import world as w
from .attacks import HONEST, ROWS, Row
from .world import Code

REAL = Code.of("edgeops.wire")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_attack_is_refused(row: Row) -> None:
    """The attack ends in the named error with the named reason."""
    with pytest.raises(EdgeopsError) as caught:
        row.act(REAL)
    assert (type(caught.value).__name__, caught.value.reason) == (row.by, row.reason), row.attack


def test_rows_are_distinct() -> None:
    """No attack stands twice in the table, and there are enough of them."""
    assert len({row.id for row in ROWS}) == len(ROWS) >= 30


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


@dataclass(frozen=True, slots=True)
class Mutant:
    """One check taken out of the source: `old` is replaced by `new`; `by` is a row that gets through then."""

    file: str
    old: str
    new: str
    by: str


MUTANTS = [
    Mutant("trust", "if sha256(body) != pin:", "if False:", "pin-other"),
    Mutant("trust", "if root.fleet != fleet:", "if False:", "pin-fleet"),
    Mutant("trust", 'root.keys_of("root"), root.roles["root"].threshold)', 'root.keys_of("root"), 1)', "pin-short"),
    Mutant("trust", "if len(body) > MAX_ROOT:", "if False:", "pin-huge"),
    Mutant("trust", 'if signed < root.roles["root"].threshold:', "if False:", "root-no-old"),
    Mutant("trust", '(("old", old), ("new", new))', '(("old", old),)', "root-no-new"),
    Mutant("trust", '(("old", old), ("new", new))', '(("new", new),)', "root-one-old"),
    Mutant("trust", "if new.fleet != trust.fleet:", "if False:", "root-fleet"),
    Mutant("trust", "if new.version != old.version + 1:", "if new.version <= old.version:", "root-skip"),
    Mutant("trust", "if new.version != old.version + 1:", "if new.version > old.version + 1:", "root-same"),
    Mutant("trust", "if new.epoch < old.epoch:", "if False:", "root-epoch"),
    Mutant("trust", 'if opened.fields.text("fleet", ID) != trust.fleet:', "if False:", "other-fleet"),
    Mutant("trust", "root.roles[role].threshold)", "1)", "release-short"),
    Mutant("trust", "root.keys_of(role), ", "dict(root.keys), ", "desired-release-key"),
    Mutant("trust", "if site.version <= trust.site_version:", "if site.version < trust.site_version:", "site-same"),
    Mutant("trust", "if site.version <= trust.site_version:", "if False:", "site-rollback"),
    Mutant("trust", " or time.nonce != nonce:", ":", "time-nonce"),
    Mutant("trust", "time.device != trust.device or ", "", "time-device"),
    Mutant("trust", "if time.epoch != current_root(trust).epoch:", "if False:", "time-epoch"),
    Mutant("trust", "if time.now < trust.time_floor:", "if False:", "time-earlier"),
    Mutant("trust", "command.device != trust.device or ", "", "command-device"),
    Mutant("trust", " or command.incarnation != trust.incarnation:", ":", "command-older"),
    Mutant("trust", '_check_must(opened.fields, "command")', "pass", "command-must"),
    Mutant("trust", "command.epoch != current_root(trust).epoch", "False", "command-epoch"),
    Mutant("trust", "command.counter <= trust.command", "command.counter < trust.command", "command-replay"),
    Mutant("root", "if not fields.items(name, 8):", "if False:", "site-nowhere"),
    Mutant("desired", "    if fields.text(\"kind\") not in COMMANDS:", "    if False:", "command-kind"),
    Mutant("trust", "if floor.version <= trust.floor_version:", "if False:", "floor-replay"),
    Mutant("trust", "max(floor.floors.get(m, 0), trust.floors.get(m, 0))", "floor.floors.get(m, 0)", "floor-lowered"),
    Mutant("trust", "if desired.device != trust.device:", "if False:", "other-device"),
    Mutant("trust", "if desired.incarnation != trust.incarnation:", "if False:", "older-self"),
    Mutant("trust", "if desired.epoch != current_root(trust).epoch:", "if False:", "epoch-old"),
    Mutant("trust", "if desired.epoch != current_root(trust).epoch:", "if desired.epoch < current_root(trust).epoch:", "epoch-new"),
    Mutant("trust", "if desired.counter <= trust.counter:", "if desired.counter < trust.counter:", "replay"),
    Mutant("trust", "if desired.expires <= max(now, trust.time_floor):", "if desired.expires <= now:", "clock-back"),
    Mutant("trust", "if desired.expires <= max(now, trust.time_floor):", "if desired.expires < now:", "expired"),
    Mutant("trust", '_check_must(opened.fields, "desired")', "pass", "desired-must"),
    Mutant("trust", '_check_must(opened.fields, "site")', "pass", "site-must"),
    Mutant("trust", '_check_must(opened.fields, "time")', "pass", "time-must"),
    Mutant("trust", '_check_must(opened.fields, "floor")', "pass", "floor-must"),
    Mutant("trust", '_known(release.must, "release")', "pass", "release-must"),
    Mutant("trust", "if digest != wanted:", "if False:", "wrong-release"),
    Mutant("trust", "if release.version < trust.floors.get(release.model, 0):", "if False:", "below-floor"),
    Mutant("trust", "if not found.fits(device.device_class):", "if False:", "wrong-class"),
    Mutant("trust", "if device.runtime < (major, minor):", "if False:", "old-runtime"),
    Mutant("trust", "if device.runtime < (major, minor):", "if device.runtime[1] < minor:", "older-major"),
    Mutant("trust", "if release.ir > device.max_ir or ", "if ", "new-ir"),
    Mutant("trust", " or release.opset > device.max_opset:", ":", "new-opset"),
    Mutant("envelope", "if keyid not in keys:\n", "if keyid not in keys:\n            continue\n", "root-bystander"),
    Mutant("envelope", "if not is_signed(keys[keyid], signature, message):", "if False:", "forged"),
    Mutant("envelope", "if threshold < 1 or len(signatures) < threshold:", "if False:", "desired-bare"),
    Mutant("envelope", 'if outer.text("payloadType") != TYPES[name]:', "if False:", "relabelled"),
    Mutant("envelope", 'return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)', "return body", "type-confusion"),
    Mutant("envelope", 'if outer.data.keys() != {"payload", "payloadType", "signatures"}:', "if False:", "outer-extra"),
    Mutant("envelope", 'if entry.data.keys() != {"keyid", "sig"}:', "if False:", "inner-extra"),
    Mutant("envelope", "if order != sorted(set(order)):", "if order != sorted(order):", "desired-twice"),
    Mutant("envelope", "if order != sorted(set(order)):", "if len(order) != len(set(order)):", "unsorted"),
    Mutant("envelope", "if _b64(data) != text:", "if False:", "loose-base64"),
    Mutant("canonical", "if again != data:", "if False:", "spaces"),
    Mutant("canonical", "-LIMIT <= value <= LIMIT", "True", "huge-int"),
    Mutant("canonical", 'unicodedata.is_normalized("NFC", text)', "True", "not-nfc"),
    Mutant("release", "check_options(options)\n", "pass\n", "release-option"),
]  # fmt: skip


def broken(mutant: Mutant, number: int, folder: Path) -> Code:
    """The wire room with one check taken out, under a name of its own."""
    name = f"wire_mutant_{number}"
    shutil.copytree(Path(edgeops.wire.__path__[0]), folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = folder / name / f"{mutant.file}.py"
    source = target.read_text(encoding="utf-8")
    assert source.count(mutant.old) >= 1, f"the source no longer says {mutant.old!r}"
    target.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    importlib.invalidate_caches()
    return Code.of(name)


def gets_through(row: Row, code: Code) -> bool:
    """Whether the attack succeeds on this code."""
    try:
        row.act(code)
    except code.errors.EdgeopsError:
        return False
    return True


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=lambda n: f"{MUTANTS[n].file}:{MUTANTS[n].by}:{n}")
def test_every_check_carries_weight(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the check taken out the attack it stands against succeeds; so the table would have caught its loss."""
    mutant = MUTANTS[number]
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        code = broken(mutant, number, tmp_path)
        row = next(row for row in ROWS if row.id == mutant.by)
        assert gets_through(row, code), f"{mutant.old!r} can go without {row.id} noticing"
    finally:
        for name in [name for name in sys.modules if name.startswith(f"wire_mutant_{number}.") or name == f"wire_mutant_{number}"]:
            del sys.modules[name]
