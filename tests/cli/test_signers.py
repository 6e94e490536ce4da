"""Keys as people name them: files with and without passphrase, variables, programs before an HSM; signing with no manager near."""

import stat
import sys
from pathlib import Path

import pytest

from edgeops.cli.local.signers import open_signer, public_key
from edgeops.wire.envelope import open_sealed, seal
from edgeops.wire.errors import Misuse, Unreachable
from edgeops.wire.keys import key_id

HSM = """\
import sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from edgeops.wire.keys import public_bytes
key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
if sys.argv[2] == "public":
    print(public_bytes(key).hex())
else:
    sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))
"""


@pytest.fixture
def key(tmp_path: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plain key in a file."""
    monkeypatch.delenv("EDGEOPS_KEY_PASSPHRASE", raising=False)
    assert edgeops("key", "new", str(tmp_path / "plain.key")).code == 0
    return tmp_path / "plain.key"


def hsm(folder: Path, key: Path, text: str = HSM) -> str:
    """A program that signs with a key it alone reads, in the notation of `--key`."""
    (folder / "hsm.py").write_text(text)
    return f"cmd:{sys.executable} {folder / 'hsm.py'} {key}"


def test_one_key_by_three_names(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a variable (also on one line) and a program sign as the same key."""
    monkeypatch.setenv("CI_KEY", key.read_text())
    monkeypatch.setenv("FLAT_KEY", key.read_text().replace("\n", "\\n"))
    names = [str(key), "env:CI_KEY", "env:FLAT_KEY", hsm(tmp_path, key)]
    found = [open_signer(name) for name in names]
    assert len({signer.id for signer in found}) == 1
    sealed = {seal("floor", {"fleet": "f"}, [signer]) for signer in found}
    assert len(sealed) == 1
    assert open_sealed(sealed.pop(), "floor", {found[0].id: found[0].public}, 1).signed_by == {found[0].id}


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--passphrase` encrypts; the key opens with the passphrase from the environment or a file and with no other."""
    file, word = tmp_path / "k.key", tmp_path / "word"
    word.write_text("correct horse\nsecond line\n")
    made = edgeops("key", "new", str(file), "--passphrase-file", str(word), "--json").json
    assert made["encrypted"] and b"ENCRYPTED" in file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert open_signer(str(file), word).id == made["id"]
    with pytest.raises(Misuse) as caught:
        open_signer(str(file))
    assert caught.value.reason == "passphrase-needed"
    monkeypatch.setenv("EDGEOPS_KEY_PASSPHRASE", "wrong")
    with pytest.raises(Misuse) as caught:
        open_signer(str(file))
    assert caught.value.reason == "bad-passphrase"
    monkeypatch.setenv("EDGEOPS_KEY_PASSPHRASE", "correct horse")
    assert open_signer(str(file)).id == made["id"]
    assert edgeops("key", "new", str(tmp_path / "other.key"), "--passphrase").code == 0
    assert b"ENCRYPTED" in (tmp_path / "other.key").read_bytes()


def test_a_passphrase_is_asked_at_a_terminal_only(tmp_path: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without terminal, variable and file a key to be encrypted is not made."""
    monkeypatch.delenv("EDGEOPS_KEY_PASSPHRASE", raising=False)
    ran = edgeops("key", "new", str(tmp_path / "k.key"), "--passphrase")
    assert (ran.code, "[passphrase-needed]" in ran.err) == (2, True)
    assert list(tmp_path.glob("k.key*")) == []


def test_public_halves_by_all_names(key: Path, tmp_path: Path) -> None:
    """Hex, the .pub file, the key itself and a program name the same public key."""
    public = open_signer(str(key)).public
    names = [public.hex(), str(key) + ".pub", str(key), hsm(tmp_path, key)]
    assert {public_key(name) for name in names} == {public}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise SystemExit(3)", "key-program"), ("print('no key')", "bad-key"), ("print('00')", "bad-key"),
        (HSM.replace("key.sign(sys.stdin.buffer.read())", "bytes(64)"), "bad-key"),
        (HSM.replace("key.sign(sys.stdin.buffer.read())", "key.sign(b'something else')"), "bad-key"),
    ],
)  # fmt: skip
def test_a_program_is_not_believed(key: Path, tmp_path: Path, text: str, reason: str) -> None:
    """What a key program prints is checked: that it is a key, that it is a signature of that key over what was asked."""
    with pytest.raises((Misuse, Unreachable)) as caught:
        open_signer(hsm(tmp_path, key, text)).sign(b"x")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/nowhere/k.key", "no-key"), ("env:EDGEOPS_NO_SUCH", "no-key"), ("cmd:", "no-key"), ("cmd:/nowhere/hsm", "key-program"),
        (__file__, "bad-key"),
    ],
)
def test_what_is_no_key(name: str, reason: str) -> None:
    """Each way to name no key has its reason."""
    with pytest.raises((Misuse, Unreachable)) as caught:
        open_signer(name)
    assert caught.value.reason == reason


def test_a_release_is_signed_with_no_manager_near(key: Path, tmp_path: Path, digits, config, edgeops, monkeypatch) -> None:
    """In CI: no folder, no context; one holder's key in a variable, another's behind a program, one after the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI_KEY", key.read_text())
    other = tmp_path / "other.key"
    assert edgeops("key", "new", str(other)).code == 0
    ran = edgeops("model", "add", "digits:1", *digits, "--fleet", "berlin", "--key", "env:CI_KEY", "--out", "r", "--no-upload")
    assert ran.code == 0, ran.err
    signed = edgeops("release", "sign", "r", "--key", hsm(tmp_path, other), "--json").json["signed_by"]
    assert signed == sorted([open_signer(str(key)).id, open_signer(str(other)).id])
    alone = edgeops("release", "sign", "r", "--key", str(other), "--replace", "--json").json["signed_by"]
    assert alone == [key_id(public_key(str(other)))]
