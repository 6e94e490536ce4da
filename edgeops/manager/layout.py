"""Where the files of one manager lie."""

import re
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Misuse


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths inside the manager's folder. The running manager reads only the `online` key; move the others away."""

    root: Path

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.root / "edgeops.toml"

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.root / "edgeops.db"

    @property
    def blobs(self) -> Path:
        """The object store."""
        return self.root / "blobs"

    @property
    def broker(self) -> Path:
        """Files of the broker we start."""
        return self.root / "broker"

    @property
    def passwords(self) -> Path:
        """Verifiers of browsers' passwords, as the broker reads them."""
        return self.broker / "passwords"

    @property
    def lock(self) -> Path:
        """Held by the manager that runs here."""
        return self.root / "edgeops.lock"

    @property
    def checkpoints(self) -> Path:
        """Signed checkpoints of the audit log, a line each; copy them to where nobody who works here can change them."""
        return self.root / "audit" / "checkpoints.jsonl"

    @property
    def crl(self) -> Path:
        """The certificate revocation list, PEM."""
        return self.root / "pki" / "ca.crl"

    @property
    def clients(self) -> Path:
        """The CAs whose device certificates the broker takes, PEM."""
        return self.root / "pki" / "clients.crt"

    @property
    def refused(self) -> Path:
        """Pins of CAs that were stolen: no certificate of theirs is welcome once the site document does not list them."""
        return self.root / "pki" / "refused"

    def key(self, role: str) -> Path:
        """The Ed25519 key of a role (root, site, release, online), PKCS8 PEM."""
        return self.root / "keys" / f"{role}.key"

    def keys(self, role: str) -> list[Path]:
        """All key files of a role that lie here: the first one, and those that rotations made, named by their ids."""
        named = re.compile(rf"{role}(-[0-9a-f]{{8}})?")
        return sorted(path for path in self.key(role).parent.glob(f"{role}*.key") if named.fullmatch(path.stem))

    def certificate(self, name: str) -> Path:
        """A certificate: ca, server or manager."""
        return self.root / "pki" / f"{name}.crt"

    def tls_key(self, name: str) -> Path:
        """The P-256 key that belongs to `certificate(name)`."""
        return self.root / "pki" / f"{name}.key"

    @property
    def own(self) -> tuple[Path, ...]:
        """Everything a new manager makes, the settings last: a folder with settings is a whole manager."""
        return (self.root / "keys", self.crl.parent, self.root / "documents", self.blobs, self.database, self.settings)

    def document(self, name: str) -> Path:
        """A signed envelope: root-1, site-1 and so on."""
        return self.root / "documents" / f"{name}.json"

    def all_of(self, name: str) -> list[Path]:
        """The documents of a kind, root or site, version by version; raises Misuse("no-document") without any."""
        found = {int(path.stem.rpartition("-")[2]): path for path in self.document("x").parent.glob(f"{name}-[0-9]*.json")
                 if path.stem.rpartition("-")[2].isdecimal()}  # fmt: skip
        if not found:
            raise Misuse("no-document", f"{self.document(f'{name}-1')} is missing; restore it from a backup")
        return [found[version] for version in sorted(found)]

    def floors(self) -> list[Path]:
        """The floor documents, version by version; a young fleet has none."""
        return self.all_of("floor") if any(self.document("x").parent.glob("floor-[0-9]*.json")) else []

    def newest(self, name: str) -> Path:
        """The newest document of a kind; raises Misuse("no-document")."""
        return self.all_of(name)[-1]
