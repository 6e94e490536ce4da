"""Releases as a TUF repository (specification 1.0): any TUF client that has its first root fetches and believes them.

`DIR/metadata` and `DIR/targets` are plain files for any web server. Keys and thresholds of the roles root and targets are those of
the fleet's own root and release roles; the release role signs snapshot and timestamp too. Exporting again into the same folder
adds the next release and counts the versions up; the root is signed once and then stays.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeops.wire import canonical
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer, is_signed
from edgeops.wire.release import Release
from edgeops.wire.root import Role, Root

from .export_files import copy, files_of

SPEC = "1.0.31"
ROLES = {"root": "root", "targets": "release", "snapshot": "release", "timestamp": "release"}
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Repository:
    """A TUF repository on disk, under the keys of a fleet's root."""

    folder: Path
    fleet_root: Root
    expires: str

    @property
    def metadata(self) -> Path:
        """Where the metadata lies."""
        return self.folder / "metadata"

    def add(self, folder: Path, release: Release, root_signers: Sequence[Signer], signers: Sequence[Signer]) -> list[str]:
        """Add a release and sign; the paths of its targets. Raises Misuse (too-few-keys, tuf-exists), Rejected("tuf-foreign")."""
        enough(self.fleet_root, "release", signers)
        held = self._held()
        if held is None:
            enough(self.fleet_root, "root", root_signers)
        prefix = f"{release.model}/{release.version}"
        targets: Document = dict(held["targets"]["targets"]) if held else {}
        if any(name.startswith(f"{prefix}/") for name in targets):
            raise Misuse("tuf-exists", f"{self.folder} holds {release.model}:{release.version} already; it stays as it is")
        added = {f"{prefix}/{inside}": path for inside, path in files_of(folder, release).items()}
        for name, path in added.items():
            copy(path, self.folder / "targets" / name)
            targets[name] = described(path.read_bytes())
        self._publish(targets, held, root_signers, signers)
        return list(added)

    def _publish(
        self, targets: Document, held: Mapping[str, Document] | None, root_signers: Sequence[Signer], signers: Sequence[Signer]
    ) -> None:
        """Write all metadata, timestamp last: a client sees the old state or the new one."""
        self.metadata.mkdir(parents=True, exist_ok=True)
        if held is None:
            signed = sign(self._root(), root_signers)
            (self.metadata / "1.root.json").write_bytes(signed)
            (self.metadata / "root.json").write_bytes(signed)
        version = {name: held[name]["version"] + 1 if held else 1 for name in ("targets", "snapshot", "timestamp")}
        listed = sign(self._document("targets", version["targets"], targets=targets), signers)
        told = {"targets.json": described(listed) | {"version": version["targets"]}}
        snapshot = sign(self._document("snapshot", version["snapshot"], meta=told), signers)
        told = {"snapshot.json": described(snapshot) | {"version": version["snapshot"]}}
        timestamp = sign(self._document("timestamp", version["timestamp"], meta=told), signers)
        for name, data in (("targets", listed), ("snapshot", snapshot), ("timestamp", timestamp)):
            fresh = self.metadata / f"{name}.new"
            fresh.write_bytes(data)
            fresh.replace(self.metadata / f"{name}.json")

    def _held(self) -> dict[str, Document] | None:
        """What a former export signed, verified: nobody is to have his additions signed with the next release."""
        if not (self.metadata / "timestamp.json").exists():
            return None
        held = {}
        for name in ROLES:
            try:
                document = json.loads((self.metadata / f"{name}.json").read_bytes())
                good = len(self._good(name, document)) >= self.fleet_root.roles[ROLES[name]].threshold
            except (OSError, ValueError, KeyError, TypeError, Misuse):
                good = False
            if not good:
                text = f"{self.metadata / name}.json is not signed by the {ROLES[name]} keys of this fleet's root"
                raise Rejected("tuf-foreign", f"{text}; export into a new folder, and give clients its root")
            held[name] = document["signed"]
        return held

    def _good(self, name: str, document: Document) -> set[str]:
        """The keys of the role whose signatures verify."""
        role, message = self.fleet_root.roles[ROLES[name]], canonical.encode(document["signed"])
        keys = {tuf_id(self.fleet_root.keys[one]): self.fleet_root.keys[one] for one in role.keys}
        signatures = {one["keyid"]: bytes.fromhex(one["sig"]) for one in document["signatures"]}
        return {one for one, made in signatures.items() if one in keys and is_signed(keys[one], made, message)}

    def _root(self) -> Document:
        """The first root: keys and thresholds of the fleet's."""
        fleet = self.fleet_root
        roles = {name: _tuf_role(fleet, fleet.roles[role]) for name, role in ROLES.items()}
        used = {one for role in set(ROLES.values()) for one in fleet.roles[role].keys}
        keys = {tuf_id(fleet.keys[one]): tuf_key(fleet.keys[one]) for one in used}
        return self._document("root", 1, consistent_snapshot=False, keys=keys, roles=roles)

    def _document(self, kind: str, version: int, **rest: Any) -> Document:
        return {"_type": kind, "spec_version": SPEC, "version": version, "expires": self.expires, **rest}


def enough(root: Root, role: str, signers: Sequence[Signer]) -> None:
    """Raise Misuse("too-few-keys") unless the signers reach the threshold of a role."""
    wanted = root.roles[role]
    have = {signer.id for signer in signers} & set(wanted.keys)
    if len(have) < wanted.threshold:
        text = f"the {role} role of root {root.version} wants {wanted.threshold} of its keys, {len(have)} were given"
        raise Misuse("too-few-keys", f"{text}; name them with {'--root-key' if role == 'root' else '--key'}")


def sign(signed: Document, signers: Sequence[Signer]) -> bytes:
    """Signed metadata. Our canonical JSON and TUF's are the same bytes as long as texts are printable ASCII, as all these are."""
    message = canonical.encode(signed)
    signatures = [{"keyid": tuf_id(signer.public), "sig": signer.sign(message).hex()} for signer in signers]
    return json.dumps({"signatures": signatures, "signed": signed}, indent=1, sort_keys=True).encode()


def tuf_key(public: bytes) -> Document:
    """A key as TUF writes it."""
    return {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": public.hex()}}


def tuf_id(public: bytes) -> str:
    """What TUF calls it."""
    return hashlib.sha256(canonical.encode(tuf_key(public))).hexdigest()


def described(data: bytes) -> Document:
    """Length and hash of a file."""
    return {"length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}


def expiry(now: int, days: int) -> str:
    """A time `days` from `now` (Unix seconds), as TUF writes it."""
    return datetime.fromtimestamp(now + days * 86_400, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tuf_role(root: Root, role: Role) -> Document:
    return {"keyids": sorted(tuf_id(root.keys[one]) for one in role.keys), "threshold": role.threshold}
