"""`release export` as one types it, with the keys of a manager's folder or with those given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from model_signing import verifying

Command = Callable[..., Any]
FAST = ("--https-port", "0", "--mqtt-port", "0", "--address", "127.0.0.1")


@pytest.fixture
def release(
    tmp_path: Path, config: Path, edgeops: Command, digits: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A release folder signed by the manager in `m`."""
    monkeypatch.delenv("EDGEOPS_RELEASE_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert edgeops("init", "m", "--fleet", "berlin", *FAST).code == 0
    assert edgeops("model", "add", "digits:1", *digits, "--folder", "m", "--no-upload", "--out", "r").code == 0
    return tmp_path / "r"


def test_export_to_both(release: Path, edgeops: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMS with a key of its own, encrypted; TUF with the manager's keys, then without the root key, which is needed once."""
    ran = edgeops("release", "export", "r", "--format", "oms", "--out", "public")
    assert (ran.code, "Ed25519" in ran.err) == (2, True)
    ran = edgeops("release", "export", "r", "--format", "oms", "--out", "public", "--oms-key", "m/keys/release.key")
    assert (ran.code, "[bad-key]" in ran.err) == (2, True)
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "oms.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")))
    (tmp_path / "word.txt").write_text("word\n")
    words = ("--out", "public", "--oms-key", "oms.key", "--passphrase-file", "word.txt")
    made = edgeops("release", "export", "r", "--format", "oms", *words, "--json").json
    verifying.Config().use_elliptic_key_verifier(public_key=Path(made["public_key"])).verify(
        Path(made["model"]), Path(made["signature"])
    )
    ran = edgeops("release", "export", "r", "--format", "tuf", "--out", "public", "--folder", "m", "--json")
    assert (ran.code, ran.json["root"]) == (0, "public/metadata/root.json")
    assert all(Path("public/targets", name).is_file() for name in ran.json["targets"])
    assert "[tuf-exists]" in edgeops("release", "export", "r", "--format", "tuf", "--out", "public", "--folder", "m").err
    Path("m/keys/root.key").rename("m/keys/elsewhere")
    ran = edgeops("release", "export", "r", "--format", "tuf", "--out", "more", "--folder", "m")
    assert (ran.code, "[too-few-keys]" in ran.err, Path("more").exists()) == (2, True, False)
    words = ("--root", "m/documents/root-1.json", "--root-key", "m/keys/elsewhere", "--key", "m/keys/release.key")
    assert edgeops("release", "export", "r", "--format", "tuf", "--out", "more", *words).code == 0


def test_what_is_not_whole_is_not_exported(release: Path, edgeops: Command, tmp_path: Path) -> None:
    """A changed object, a release nobody signed, one signed by a key the root does not name: nothing is written."""
    path = next((release / "objects").iterdir())
    data = path.read_bytes()
    words = ("--format", "tuf", "--out", "public", "--folder", "m")
    path.write_bytes(data + b"x")
    assert edgeops("release", "export", "r", *words).code == 3
    path.write_bytes(data)
    assert edgeops("key", "new", "strange.key").code == 0
    assert edgeops("release", "sign", "r", "--key", "strange.key", "--replace").code == 0
    assert "[unknown-key]" in edgeops("release", "export", "r", *words).err
    (release / "release.dsse.json").unlink()
    assert "[not-signed]" in edgeops("release", "export", "r", *words).err
    assert not (tmp_path / "public").exists()
