"""The peer of metadata.py: one python-tuf repository in memory, every device's assignment a target of its own, a counting client.

Runs in an environment of its own that metadata.py builds (python-tuf is no dependency of edgeops) and talks JSON lines: `bytes`
answers with the traffic of all configurations, `cpu N` with the CPU nanoseconds of the Nth configuration's own update.
Everything is to the peer's advantage: compact JSON, a target is a path, a length and a hash and says nothing of health limits or
expiry, snapshot lists versions only, the repository is a dictionary.
"""

import gzip
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

COMPACT = JSONSerializer(compact=True)
CONFIGURATIONS = ((50, 0), (1_000, 0), (1_000, 256), (10_000, 0), (10_000, 256), (10_000, 4_096))
CPU_OF = ((50, 0), (1_000, 256))
SAMPLED = 12  # clients asked what a change of others costs them; without bins all pay the same
LIMITS = UpdaterConfig(targets_max_length=1 << 26, snapshot_max_length=1 << 26)


def path_of(device: int) -> str:
    """The target path of a device's assignment."""
    return f"d-{device:05d}/model"


class Repository:
    """A TUF repository: root 2 of 3, one key each for targets, snapshot and timestamp, Ed25519, consistent snapshots."""

    def __init__(self, devices: int, bins: int) -> None:
        self.files: dict[str, bytes] = {}
        self._roots = [CryptoSigner.generate_ed25519() for _ in range(3)]
        self._signers = {name: CryptoSigner.generate_ed25519() for name in ("targets", "snapshot", "timestamp")}
        self._expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        self._roles: dict[str, Targets] = {"targets": Targets(expires=self._expires)}
        self._bins = self._split(bins) if bins else None
        self._snapshot, self._timestamp = Snapshot(expires=self._expires), Timestamp(expires=self._expires)
        self._write_root()
        for device in range(devices):
            self._assign(device, 1)
        self._publish(set(self._roles), first=True)

    def _split(self, bins: int) -> SuccinctRoles:
        key = self._signers["targets"].public_key
        split = SuccinctRoles([key.keyid], 1, bins.bit_length() - 1, "bin")
        self._roles["targets"].delegations = Delegations({key.keyid: key}, succinct_roles=split)
        self._roles |= {name: Targets(expires=self._expires) for name in split.get_roles()}
        return split

    def _write_root(self) -> None:
        root = Root(expires=self._expires, consistent_snapshot=True)
        root.roles["root"] = Role([], 2)
        for signer in self._roots:
            root.add_key(signer.public_key, "root")
        for name, signer in self._signers.items():
            root.add_key(signer.public_key, name)
        self._store("1.root", root, self._roots[:2])

    def _store(self, name: str, signed: Any, signers: list[CryptoSigner]) -> None:
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        self.files[f"{name}.json"] = metadata.to_bytes(COMPACT)

    def _assign(self, device: int, number: int) -> str:
        path = path_of(device)
        role = self._bins.get_role_for_target(path) if self._bins else "targets"
        digest = sha256(f"model {number}".encode()).hexdigest()
        self._roles[role].targets[path] = TargetFile(39_384, {"sha256": digest}, path)
        return role

    def change(self, devices: list[int], number: int) -> None:
        """Assign model `number` to these devices and publish."""
        self._publish({self._assign(device, number) for device in devices})

    def _publish(self, changed: set[str], first: bool = False) -> None:
        for name in changed:
            role = self._roles[name]
            role.version += 0 if first else 1
            self._snapshot.meta[f"{name}.json"] = MetaFile(role.version)
            self._store(f"{role.version}.{name}", role, [self._signers["targets"]])
        self._snapshot.version += 0 if first else 1
        self._store(f"{self._snapshot.version}.snapshot", self._snapshot, [self._signers["snapshot"]])
        self._timestamp.version += 0 if first else 1
        self._timestamp.snapshot_meta = MetaFile(self._snapshot.version)
        self._store("timestamp", self._timestamp, [self._signers["timestamp"]])


class Wire(FetcherInterface):
    """Hands out the files of a repository and keeps what went over."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.sent: list[bytes] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self.files:
            raise DownloadHTTPError("not there", 404)
        self.sent.append(self.files[name])
        return iter((self.files[name],))


class Client:
    """A device with the real ngclient."""

    def __init__(self, repository: Repository, device: int, folder: Path) -> None:
        self.repository, self.device, self.folder = repository, device, folder
        self.root = repository.files["1.root.json"]
        folder.mkdir()

    def sync(self) -> tuple[list[bytes], str]:
        """Refresh and look up the own target: what went over, and the hash that the device is to run."""
        wire = Wire(self.repository.files)
        updater = Updater(str(self.folder), "mem://m/", None, None, wire, LIMITS, bootstrap=self.root)
        updater.refresh()
        found = updater.get_targetinfo(path_of(self.device))
        if found is None:
            raise SystemExit("the TUF client does not find its own target")
        return wire.sent, found.hashes["sha256"]


def traffic(devices: int, bins: int, folder: Path) -> dict[str, Any]:
    """Bytes of one configuration: first sync, nothing new, own update, 1 % of the others changed (mean over sampled clients)."""
    began = time.monotonic()
    repository = Repository(devices, bins)
    count = SAMPLED if bins else 1
    sampled = [device * (devices // count) for device in range(count)]
    clients = [Client(repository, device, folder / f"{devices}-{bins}-{device}") for device in sampled]
    first, *_ = [client.sync()[0] for client in clients]
    nothing = clients[0].sync()[0]
    repository.change([sampled[0]], 2)
    own, digest = clients[0].sync()
    if digest != sha256(b"model 2").hexdigest():
        raise SystemExit("the TUF client did not see its own update; its bytes would say nothing")
    for client in clients[1:]:
        client.sync()
    others = [device for device in range(devices) if device not in sampled]
    step = max(1, len(others) // max(1, devices // 100))
    repository.change(others[::step][: max(1, devices // 100)], 3)
    paid = [sum(map(len, client.sync()[0])) for client in clients]
    return {
        "devices": devices, "bins": bins, "first": sum(map(len, first)), "nothing_new": sum(map(len, nothing)),
        "own": sum(map(len, own)), "own_gzip": sum(len(gzip.compress(data)) for data in own), "own_requests": len(own),
        "others_changed": max(1, devices // 100), "others": sum(paid) / len(paid), "others_least": min(paid),
        "clients": count, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


class Update:
    """One device's own update again and again, from the same state before it."""

    def __init__(self, devices: int, bins: int, folder: Path) -> None:
        repository = Repository(devices, bins)
        self._before = folder / "before"
        self._client = Client(repository, 0, self._before)
        self._client.sync()
        repository.change([0], 2)
        self._client.folder = folder / "now"

    def spend(self) -> int:
        """CPU nanoseconds of one update by the whole Updater, its small files on disk included."""
        shutil.rmtree(self._client.folder, ignore_errors=True)
        shutil.copytree(self._before, self._client.folder, symlinks=True)
        began = time.thread_time_ns()
        _, digest = self._client.sync()
        spent = time.thread_time_ns() - began
        if digest != sha256(b"model 2").hexdigest():
            raise SystemExit("the TUF client did not see its own update; its CPU time would say nothing")
        return spent

    def refuses_a_flipped_byte(self) -> bool:
        """Whether the client that is measured verifies at all: one changed digit in the targets it fetches must be refused."""
        files = self._client.repository.files
        name = max((name for name in files if name.endswith(("targets.json", "bin-00.json"))), key=lambda n: int(n.split(".")[0]))
        honest = files[name]
        files[name] = honest.replace(b'"length":39384', b'"length":39385')
        try:
            self.spend()
        except RepositoryError:
            return files[name] != honest
        finally:
            files[name] = honest
        return False


def main() -> None:
    """Answer requests, one a line, until the input ends."""
    with tempfile.TemporaryDirectory(prefix="edgeops-bench-tuf-") as name:
        folder, updates = Path(name), list[Update]()
        for line in sys.stdin:
            match line.split():
                case ["about"]:
                    answer: Any = {package: version(package) for package in ("tuf", "securesystemslib", "cryptography")}
                case ["bytes"]:
                    answer = [traffic(devices, bins, folder) for devices, bins in CONFIGURATIONS]
                case ["cpu", "prepare"]:
                    for index, (devices, bins) in enumerate(CPU_OF):
                        (folder / f"cpu-{index}").mkdir()
                        updates.append(Update(devices, bins, folder / f"cpu-{index}"))
                    answer = {"configurations": CPU_OF, "control": updates[0].refuses_a_flipped_byte()}
                case ["cpu", index]:
                    answer = updates[int(index)].spend()
                case _:
                    raise SystemExit(f"unknown request {line!r}")
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
