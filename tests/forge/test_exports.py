"""Exports are accepted by the real thing, python-tuf's client and model-signing, and refused as soon as a byte differs."""

import datetime
import functools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from model_signing import verifying
from tuf.api.exceptions import (
    DownloadError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.ngclient import Updater

from edgeops.forge.export_oms import export_oms, load_key
from edgeops.forge.export_tuf import Repository, expiry
from edgeops.forge.flow import Forged
from edgeops.forge.sign import sign_release
from edgeops.wire import canonical
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import Signer
from edgeops.wire.root import Role, Root

NOW = int(datetime.datetime.now(datetime.UTC).timestamp())
KEYS = [Signer.from_seed(bytes([number]) * 32) for number in range(1, 8)]
ROOTS, RELEASES, STRANGER = KEYS[:3], KEYS[3:5], KEYS[6]


def fleet_root(release_threshold: int = 2) -> Root:
    """Two of three root keys, two release keys."""
    named = {"root": ROOTS, "site": KEYS[5:6], "release": RELEASES, "online": KEYS[5:6]}
    need = {"root": 2, "release": release_threshold}
    roles = {role: Role(tuple(one.id for one in ones), need.get(role, 1)) for role, ones in named.items()}
    return Root("testfleet", 1, 0, NOW, {one.id: one.public for ones in named.values() for one in ones}, roles)


@pytest.fixture
def folder(forged: Forged, tmp_path: Path) -> Path:
    """A signed release folder."""
    made = Path(shutil.copytree(forged.folder, tmp_path / "release"))
    sign_release(made, RELEASES)
    return made


def pem(key: Any, passphrase: bytes = b"") -> bytes:
    """A private key as PEM."""
    hidden = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))


# ---- OpenSSF model signing


@pytest.fixture
def oms(folder: Path, forged: Forged, tmp_path: Path) -> dict[str, str]:
    """An export: paths of the model, the bundle and the public key."""
    return export_oms(folder, forged.release, tmp_path / "out", ec.generate_private_key(ec.SECP256R1()))


def check_oms(made: dict[str, str]) -> None:
    """As a user of the standard verifies; raises ValueError, or what cryptography raises."""
    verifying.Config().use_elliptic_key_verifier(public_key=Path(made["public_key"])).verify(
        Path(made["model"]), Path(made["signature"])
    )


def test_model_signing_accepts_the_bundle(oms: dict[str, str], folder: Path) -> None:
    """Their library verifies ours, and so does their command line; the release's own signature travels along."""
    check_oms(oms)
    words = ["verify", "key", oms["model"], "--signature", oms["signature"], "--public_key", oms["public_key"]]
    done = subprocess.run([sys.executable, "-m", "model_signing", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("release.json", "release.dsse.json"):
        assert (Path(oms["model"]) / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_model_signing_accepts_other_curves(folder: Path, forged: Forged, tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """All curves the standard knows."""
    check_oms(export_oms(folder, forged.release, tmp_path / "out", ec.generate_private_key(curve)))


def test_every_changed_file_is_refused(oms: dict[str, str]) -> None:
    """One byte of any file, a file too many, one too few: model-signing says no."""
    for path in sorted(Path(oms["model"]).rglob("*")):
        if path.is_file():
            before = path.read_bytes()
            path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
            with pytest.raises(ValueError, match="mismatch"):
                check_oms(oms)
            path.unlink()
            with pytest.raises(ValueError, match="Missing files"):
                check_oms(oms)
            path.write_bytes(before)
    check_oms(oms)
    (Path(oms["model"]) / "more").write_bytes(b"x")
    with pytest.raises(ValueError, match="Extra files"):
        check_oms(oms)


def test_a_changed_bundle_and_another_key_are_refused(oms: dict[str, str], folder: Path, forged: Forged, tmp_path: Path) -> None:
    """A statement somebody changed, and a key the verifier does not know."""
    other = export_oms(folder, forged.release, tmp_path / "other", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(ValueError, match="Key mismatch"):
        check_oms(oms | {"public_key": other["public_key"]})
    path = Path(oms["signature"])
    bundle = json.loads(path.read_text("utf-8"))
    sealed = bundle["dsseEnvelope"]
    sealed["payload"] = json.loads(Path(other["signature"]).read_text("utf-8"))["dsseEnvelope"]["payload"]
    sealed["signatures"][0]["sig"] = sealed["signatures"][0]["sig"][::-1]
    path.write_text(json.dumps(bundle), "utf-8")
    with pytest.raises(Exception):  # noqa: B017 whatever it is, it is no yes
        check_oms(oms)


def test_oms_keys() -> None:
    """A key the standard does not know is refused with what to do; an encrypted one opens with its passphrase."""
    for wrong in (pem(ed25519.Ed25519PrivateKey.generate()), pem(ec.generate_private_key(ec.SECP256K1())), b"nothing"):
        with pytest.raises(Misuse, match="openssl ecparam"):
            load_key(wrong, "oms.key")
    hidden = pem(ec.generate_private_key(ec.SECP256R1()), b"word")
    with pytest.raises(Misuse, match="bad-key"):
        load_key(hidden, "oms.key")
    assert load_key(hidden, "oms.key", "word").curve.name == "secp256r1"


def test_an_oms_export_is_not_overwritten(oms: dict[str, str], folder: Path, forged: Forged, tmp_path: Path) -> None:
    """The second one of the same release is refused, and the first still verifies."""
    with pytest.raises(Misuse, match="folder-in-use"):
        export_oms(folder, forged.release, tmp_path / "out", ec.generate_private_key(ec.SECP256R1()))
    check_oms(oms)


# ---- TUF


def repository(tmp_path: Path, root: Root | None = None, days: int = 30) -> Repository:
    """The repository of this test."""
    return Repository(tmp_path / "tuf", root or fleet_root(), expiry(NOW, days))


@pytest.fixture
def tuf(folder: Path, forged: Forged, tmp_path: Path) -> Repository:
    """A repository with one release."""
    made = repository(tmp_path)
    made.add(folder, forged.release, ROOTS[:2], RELEASES)
    return made


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The folder `tuf` over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "tuf")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def client(tmp_path: Path, web: str, root: bytes, name: str = "client") -> Updater:
    """A TUF client that trusts this root, refreshed."""
    for part in ("metadata", "targets"):
        (tmp_path / name / part).mkdir(parents=True, exist_ok=True)
    updater = Updater(
        str(tmp_path / name / "metadata"), f"{web}/metadata/", str(tmp_path / name / "targets"), f"{web}/targets/", bootstrap=root
    )
    updater.refresh()
    return updater


def fetched(updater: Updater, name: str) -> bytes:
    """The bytes of a target, verified by the client."""
    info = updater.get_targetinfo(name)
    assert info, name
    return Path(updater.download_target(info)).read_bytes()


def root_of(made: Repository) -> bytes:
    """Its first root."""
    return (made.metadata / "root.json").read_bytes()


def test_a_tuf_client_fetches_the_whole_release(tuf: Repository, web: str, folder: Path, tmp_path: Path) -> None:
    """python-tuf over HTTP: every file of the release, byte for byte, and no other name."""
    updater = client(tmp_path, web, root_of(tuf))
    listed = json.loads((tuf.metadata / "targets.json").read_bytes())["signed"]["targets"]
    inside_of = {name: name.split("/", 2)[2] for name in listed}
    assert set(inside_of.values()) == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name, inside in inside_of.items():
        assert fetched(updater, name) == (folder / inside).read_bytes()
    assert updater.get_targetinfo("digits/1/none") is None


def test_a_changed_target_is_refused(tuf: Repository, web: str, tmp_path: Path) -> None:
    """The control: one byte of one object, of the same length."""
    updater = client(tmp_path, web, root_of(tuf))
    path = next((tuf.folder / "targets").rglob("objects/*"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises((LengthOrHashMismatchError, DownloadError)):
        fetched(updater, path.relative_to(tuf.folder / "targets").as_posix())


@pytest.mark.parametrize("name", ["targets", "snapshot", "timestamp"])
def test_changed_metadata_is_refused(tuf: Repository, web: str, tmp_path: Path, name: str) -> None:
    """One digit of a hash or of a version in any of the signed files."""
    path = tuf.metadata / f"{name}.json"
    body = json.loads(path.read_bytes())
    body["signed"]["version"] += 1
    path.write_bytes(json.dumps(body).encode())
    with pytest.raises(RepositoryError):
        client(tmp_path, web, root_of(tuf))


def test_a_root_signed_by_too_few_is_refused_by_us_and_them(folder: Path, forged: Forged, tmp_path: Path, web: str) -> None:
    """We do not write it; and if it is written all the same, no client takes it."""
    few = ((ROOTS[:1], RELEASES), (ROOTS[:2], RELEASES[:1]), ([STRANGER, ROOTS[0]], RELEASES), (ROOTS[:2], [STRANGER]))
    for roots, releases in few:
        with pytest.raises(Misuse, match="too-few-keys"):
            repository(tmp_path).add(folder, forged.release, roots, releases)
    assert not (tmp_path / "tuf").exists()
    made = repository(tmp_path)
    made.add(folder, forged.release, ROOTS[:2], RELEASES)
    body = json.loads(root_of(made))
    body["signatures"] = body["signatures"][:1]
    with pytest.raises((UnsignedMetadataError, RepositoryError)):
        client(tmp_path, web, json.dumps(body).encode())


def test_old_metadata_is_refused(folder: Path, forged: Forged, tmp_path: Path, web: str) -> None:
    """Expiry is real."""
    made = repository(tmp_path, days=-1)
    made.add(folder, forged.release, ROOTS[:2], RELEASES)
    with pytest.raises(ExpiredMetadataError):
        client(tmp_path, web, root_of(made))


def second(folder: Path) -> None:
    """Make the release its next version."""
    value = json.loads((folder / "release.json").read_bytes())
    value["version"] += 1
    (folder / "release.json").write_bytes(canonical.encode(value))
    (folder / "release.dsse.json").unlink()
    sign_release(folder, RELEASES)


def test_the_next_release_joins_without_the_root_keys(
    tuf: Repository, web: str, folder: Path, forged: Forged, tmp_path: Path
) -> None:
    """A client that knows the first sees the second; what was there stays; going back to the old state is refused."""
    from edgeops.forge.sign import check_folder

    client(tmp_path, web, root_of(tuf))
    old = {path: path.read_bytes() for path in tuf.metadata.iterdir()}
    second(folder)
    release = check_folder(folder)
    tuf.add(folder, release, [], RELEASES)
    updater = client(tmp_path, web, root_of(tuf))
    for version in (forged.release.version, release.version):
        assert fetched(updater, f"{release.model}/{version}/release.json")
    with pytest.raises(Misuse, match="tuf-exists"):
        tuf.add(folder, release, [], RELEASES)
    for path, data in old.items():
        path.write_bytes(data)
    with pytest.raises(RepositoryError):
        client(tmp_path, web, root_of(tuf))


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp"])
def test_strange_metadata_is_not_built_upon(tuf: Repository, folder: Path, name: str) -> None:
    """Who can write into the folder cannot have additions of his signed with the next release."""
    from edgeops.forge.sign import check_folder

    path = tuf.metadata / f"{name}.json"
    body = json.loads(path.read_bytes())
    body["signed"]["version"] += 1
    second(folder)
    for text in (json.dumps(body), "{", "[]", '{"signed": {"version": 1.5}, "signatures": []}'):
        path.write_text(text, "utf-8")
        with pytest.raises(Rejected, match="tuf-foreign"):
            tuf.add(folder, check_folder(folder), [], RELEASES)
