"""Signing a release folder: hand-assembled ones sign, tampered ones do not."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeops.forge.flow import Forged
from edgeops.forge.sign import check_folder, sign_release
from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical
from edgeops.wire.envelope import open_sealed
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.golden import GoldenCase, GoldenSet, Tolerance
from edgeops.wire.keys import Signer
from edgeops.wire.release import Release, Side, Tensor, Variant

SIGNERS = [Signer.from_seed(bytes([i]) * 32) for i in (1, 2)]


@pytest.fixture
def folder(forged: Forged, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(forged.folder, tmp_path / "copy"))


def refused(folder: Path) -> str:
    """The reason why `folder` is not signed; no envelope is left behind."""
    with pytest.raises(Rejected) as caught:
        sign_release(folder, SIGNERS)
    assert not (folder / "release.dsse.json").exists()
    return caught.value.reason


def change(folder: Path, edit) -> None:
    """Edit the payload."""
    path = folder / "release.json"
    value = json.loads(path.read_bytes())
    edit(value)
    path.write_bytes(canonical.encode(value))


def test_signed_release_verifies(folder: Path, forged: Forged) -> None:
    """The envelope opens with both keys at threshold two and holds the release."""
    envelope = sign_release(folder, SIGNERS)
    assert (folder / "release.dsse.json").read_bytes() == envelope
    opened = open_sealed(envelope, "release", {signer.id: signer.public for signer in SIGNERS}, 2)
    assert Release.parse(opened.fields) == forged.release


def test_every_object_is_checked(folder: Path, forged: Forged) -> None:
    """Whichever object is changed, cut or taken away, the folder is not signed."""
    for path in sorted((folder / "objects").iterdir()):
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert refused(folder) == "bad-object", path
        path.write_bytes(before[:-1])
        assert refused(folder) == "bad-object", path
        path.unlink()
        assert refused(folder) == "missing-object", path
        path.write_bytes(before)
    sign_release(folder, SIGNERS)


def test_hand_assembled_release_signs(tmp_path: Path) -> None:
    """A folder put together without the forge, with any bytes as a model, signs: the model is not run."""
    objects = tmp_path / "objects"
    objects.mkdir()

    def put(data: bytes) -> Side:
        side = Side(hashlib.sha256(data).hexdigest(), len(data))
        (objects / side.sha256).write_bytes(data)
        return side

    manifest = Manifest(put(b"skeleton"), (put(b"tensor"),))
    row = {"x": np.zeros((1, 2), dtype=np.float32)}
    golden = put(GoldenSet((GoldenCase(row, row),), {"any": Tolerance()}).encode())
    held = put(manifest.encode())
    variant = Variant(("arm-dot",), {}, held, golden, None, manifest.size + held.size + golden.size)
    tensor = (Tensor("x", "float32", (-1, 2)),)
    release = Release("f", "bench", "m", 7, 1, tensor, tensor, 8, 17, "1.20", {"v": variant}, {"note": put(b"{}")})
    (tmp_path / "release.json").write_bytes(canonical.encode(release.payload()))
    opened = open_sealed(sign_release(tmp_path, SIGNERS[:1]), "release", {SIGNERS[0].id: SIGNERS[0].public}, 1)
    assert Release.parse(opened.fields) == release == check_folder(tmp_path)


def test_golden_without_a_tolerance_for_the_class(tmp_path: Path, folder: Path) -> None:
    """A variant whose golden vectors say nothing about its class is refused."""
    name = sorted(json.loads((folder / "release.json").read_bytes())["variants"])[0]

    def narrow(value) -> None:
        side = value["variants"][name]["golden"]
        golden = GoldenSet.decode((folder / "objects" / side["sha256"]).read_bytes())
        data = GoldenSet(golden.cases, {"wasm": Tolerance()}).encode()
        value["variants"][name]["golden"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (folder / "objects" / hashlib.sha256(data).hexdigest()).write_bytes(data)

    change(folder, narrow)
    assert refused(folder) == "golden-no-tolerance"


@pytest.mark.parametrize(
    ("reason", "edit"),
    [
        ("malformed", lambda v: v.update(version=0)),
        ("malformed", lambda v: v.update(variants={})),
        ("unknown-field", lambda v: v.update(surprise=1)),
        ("session-option", lambda v: v["variants"]["fp32"].update(options={"session.x": "1"})),
        ("wrong-size", lambda v: v["variants"]["fp32"].update(size=1)),
        ("golden-malformed", lambda v: v["variants"]["fp32"].update(golden=v["sides"]["report"])),
        ("reference-malformed", lambda v: v["variants"]["fp32"].update(reference=v["sides"]["report"])),
        ("malformed", lambda v: v["variants"]["fp32"].update(manifest=v["sides"]["report"])),
    ],
)
def test_wrong_payloads(folder: Path, reason: str, edit) -> None:
    """Each fault of the payload has its reason."""
    change(folder, edit)
    assert refused(folder) == reason


def test_payload_must_be_canonical(folder: Path) -> None:
    """A payload with white space is refused: it would not be the bytes that are signed."""
    path = folder / "release.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    assert refused(folder) == "not-canonical"


def test_without_keys_or_payload_is_misuse(folder: Path, tmp_path: Path) -> None:
    """No keys and no payload are the caller's faults."""
    with pytest.raises(Misuse, match="no-keys"):
        sign_release(folder, [])
    with pytest.raises(Misuse, match="no-release"):
        sign_release(tmp_path, SIGNERS)
