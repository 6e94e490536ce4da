"""Checks of the trust core taken out one at a time, each in a copy, and an attack that gets in then."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One check taken out of the source: `old` is replaced by `new`; `by` is an attack that gets through then."""

    file: str
    old: str
    new: str
    by: str


MUTANTS = [
    Mutant("wire/trust", "if sha256(body) != pin:", "if False:", "pin-other"),
    Mutant("wire/trust", "if root.fleet != fleet:", "if False:", "pin-fleet"),
    Mutant("wire/trust", 'root.keys_of("root"), root.roles["root"].threshold)', 'root.keys_of("root"), 1)', "pin-short"),
    Mutant("wire/trust", "if len(body) > MAX_ROOT:", "if False:", "pin-huge"),
    Mutant("wire/trust", 'if signed < root.roles["root"].threshold:', "if False:", "root-no-old"),
    Mutant("wire/trust", '(("old", old), ("new", new))', '(("old", old),)', "root-no-new"),
    Mutant("wire/trust", '(("old", old), ("new", new))', '(("new", new),)', "root-one-old"),
    Mutant("wire/trust", "if new.fleet != trust.fleet:", "if False:", "root-fleet"),
    Mutant("wire/trust", "if new.version != old.version + 1:", "if new.version <= old.version:", "root-skip"),
    Mutant("wire/trust", "if new.version != old.version + 1:", "if new.version > old.version + 1:", "root-same"),
    Mutant("wire/trust", "if new.epoch < old.epoch:", "if False:", "root-epoch"),
    Mutant("wire/trust", 'if opened.fields.text("fleet", ID) != trust.fleet:', "if False:", "other-fleet"),
    Mutant("wire/trust", "root.roles[role].threshold)", "1)", "release-short"),
    Mutant("wire/trust", "root.keys_of(role), ", "dict(root.keys), ", "desired-release-key"),
    Mutant("wire/trust", "if site.version <= trust.site_version:", "if site.version < trust.site_version:", "site-same"),
    Mutant("wire/trust", "if site.version <= trust.site_version:", "if False:", "site-rollback"),
    Mutant("wire/trust", " or time.nonce != nonce:", ":", "time-nonce"),
    Mutant("wire/trust", "time.device != trust.device or ", "", "time-device"),
    Mutant("wire/trust", "if time.epoch != current_root(trust).epoch:", "if False:", "time-epoch"),
    Mutant("wire/trust", "if time.now < trust.time_floor:", "if False:", "time-earlier"),
    Mutant("wire/trust", "command.device != trust.device or ", "", "command-device"),
    Mutant("wire/trust", " or command.incarnation != trust.incarnation:", ":", "command-older"),
    Mutant("wire/trust", '_check_must(opened.fields, "command")', "pass", "command-must"),
    Mutant("wire/trust", "command.epoch != current_root(trust).epoch", "False", "command-epoch"),
    Mutant("wire/trust", "command.counter <= trust.command", "False", "command-old"),
    Mutant("wire/root", "if not fields.items(name, 8):", "if False:", "site-nowhere"),
    Mutant("wire/root", "[1-9][0-9]{0,3}|", "[1-9][0-9]{0,4}|", "site-no-port"),
    Mutant("wire/root", 'HTTPS_URL = re.compile("https"', 'HTTPS_URL = re.compile("(?:https|mqtts)"', "site-scheme"),
    Mutant("wire/desired", "    if fields.text(\"kind\") not in COMMANDS:", "    if False:", "command-kind"),
    Mutant("wire/trust", "if floor.version <= trust.floor_version:", "if False:", "floor-replay"),
    Mutant("wire/trust", "max(floor.floors.get(m, 0), trust.floors.get(m, 0))", "floor.floors.get(m, 0)", "floor-lowered"),
    Mutant("wire/trust", 'if is_replaced(old, new, "site"):', "if True:", "site-after-root"),
    Mutant("wire/trust", 'if is_replaced(old, new, "release"):', "if True:", "floor-after-root"),
    Mutant("wire/trust", 'if is_replaced(old, new, "release"):', "if new.epoch > old.epoch:", "floors-after-epoch"),
    Mutant("wire/trust", "if len(raised) > MAX_FLOORS:", "if False:", "floor-flood"),
    Mutant("wire/desired", '"window_s": (0, 7 * 86_400)', '"window_s": (0, 2**53)', "trial-endless"),
    Mutant("wire/fields", "if most is not None and value > most:", "if False:", "trial-tries"),
    Mutant("wire/trust", "if desired.device != trust.device:", "if False:", "other-device"),
    Mutant("wire/trust", "if desired.incarnation != trust.incarnation:", "if False:", "older-self"),
    Mutant("wire/trust", "if desired.epoch != current_root(trust).epoch:", "if False:", "epoch-old"),
    Mutant("wire/trust", "if desired.epoch != current_root(trust).epoch:", "if desired.epoch < current_root(trust).epoch:", "epoch-new"),
    Mutant("wire/trust", "if desired.counter <= trust.counter:", "if desired.counter < trust.counter:", "replay"),
    Mutant("wire/trust", "if desired.expires <= max(now, trust.time_floor):", "if desired.expires <= now:", "clock-back"),
    Mutant("wire/trust", "if desired.expires <= max(now, trust.time_floor):", "if desired.expires < now:", "expired"),
    Mutant("wire/trust", '_check_must(opened.fields, "desired")', "pass", "desired-must"),
    Mutant("wire/trust", '_check_must(opened.fields, "site")', "pass", "site-must"),
    Mutant("wire/trust", '_check_must(opened.fields, "time")', "pass", "time-must"),
    Mutant("wire/trust", '_check_must(opened.fields, "floor")', "pass", "floor-must"),
    Mutant("wire/trust", '_known(release.must, "release")', "pass", "release-must"),
    Mutant("wire/trust", "if digest != wanted:", "if False:", "wrong-release"),
    Mutant("wire/trust", "if release.version < trust.floors.get(release.model, 0):", "if False:", "below-floor"),
    Mutant("wire/trust", "if not found.fits(device.device_class):", "if False:", "wrong-class"),
    Mutant("wire/trust", "if device.runtime < (major, minor):", "if False:", "old-runtime"),
    Mutant("wire/trust", "if device.runtime < (major, minor):", "if device.runtime[1] < minor:", "older-major"),
    Mutant("wire/trust", "if release.ir > device.max_ir or ", "if ", "new-ir"),
    Mutant("wire/trust", " or release.opset > device.max_opset:", ":", "new-opset"),
    Mutant("wire/envelope", "if keyid not in keys:\n", "if keyid not in keys:\n            continue\n", "root-bystander"),
    Mutant("wire/envelope", "if not is_signed(keys[keyid], signature, message):", "if False:", "forged"),
    Mutant("wire/envelope", "if threshold < 1 or len(signatures) < threshold:", "if False:", "desired-bare"),
    Mutant("wire/envelope", 'if outer.text("payloadType") != TYPES[name]:', "if False:", "relabelled"),
    Mutant("wire/envelope", "kind = payload_type.encode()", 'kind = TYPES["state"].encode()', "type-confusion"),
    Mutant("wire/envelope", 'if outer.data.keys() != {"payload", "payloadType", "signatures"}:', "if False:", "outer-extra"),
    Mutant("wire/envelope", 'if entry.data.keys() != {"keyid", "sig"}:', "if False:", "inner-extra"),
    Mutant("wire/envelope", "if order != sorted(set(order)):", "if order != sorted(order):", "desired-twice"),
    Mutant("wire/envelope", "if order != sorted(set(order)):", "if len(order) != len(set(order)):", "unsorted"),
    Mutant("wire/envelope", "if _b64(data) != text:", "if False:", "loose-base64"),
    Mutant("wire/canonical", "if again != data:", "if False:", "spaces"),
    Mutant("wire/canonical", "-LIMIT <= value <= LIMIT", "True", "huge-int"),
    Mutant("wire/canonical", 'unicodedata.is_normalized("NFC", text)', "True", "not-nfc"),
    Mutant("core/receive", ".check_size(variant.size)", "", "endless-stream"),
    Mutant("parcel/stream", "if self.size > most:", "if self.size > most + 1:", "endless-stream"),
    Mutant("wire/release", "check_options(options)\n", "pass\n", "release-option"),
]  # fmt: skip
