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
from edgeops.wire.envelope import open_sealed, split
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


def change_manifest(folder: Path, name: str, edit) -> None:
    """Edit the manifest of a variant, and name the edited one in the payload with all its bytes."""
    side = json.loads((folder / "release.json").read_bytes())["variants"][name]["manifest"]
    value = json.loads((folder / "objects" / side["sha256"]).read_bytes())
    edit(value)
    held = put(folder, canonical.encode(value))
    size = held.size + Manifest.decode(canonical.encode(value)).size
    change(folder, lambda payload: payload["variants"][name].update(manifest=held.payload(), size=size))


def put(folder: Path, data: bytes) -> Side:
    """Keep an object in a release folder."""
    side = Side(hashlib.sha256(data).hexdigest(), len(data))
    (folder / "objects").mkdir(exist_ok=True)
    (folder / "objects" / side.sha256).write_bytes(data)
    return side


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
    row = {"x": np.zeros((1, 2), dtype=np.float32)}
    golden = put(tmp_path, GoldenSet((GoldenCase(row, row),), {"any": Tolerance()}).encode())
    manifest = Manifest(put(tmp_path, b"skeleton"), (put(tmp_path, b"tensor"),), golden)
    held = put(tmp_path, manifest.encode())
    variant = Variant(("arm-dot",), {}, held, manifest.size + held.size)
    tensor = (Tensor("x", "float32", (-1, 2)),)
    release = Release("f", "bench", "m", 7, 1, tensor, tensor, 8, 17, "1.20", {"v": variant}, {"note": put(tmp_path, b"{}")})
    (tmp_path / "release.json").write_bytes(canonical.encode(release.payload()))
    opened = open_sealed(sign_release(tmp_path, SIGNERS[:1]), "release", {SIGNERS[0].id: SIGNERS[0].public}, 1)
    assert Release.parse(opened.fields) == release == check_folder(tmp_path)


def test_golden_without_a_tolerance_for_the_class(folder: Path) -> None:
    """A variant whose golden vectors say nothing about its class is refused."""
    name = sorted(json.loads((folder / "release.json").read_bytes())["variants"])[0]

    def narrow(value) -> None:
        golden = GoldenSet.decode((folder / "objects" / value["golden"]["sha256"]).read_bytes())
        value["golden"] = put(folder, GoldenSet(golden.cases, {"wasm": Tolerance()}).encode()).payload()

    change_manifest(folder, name, narrow)
    assert refused(folder) == "golden-no-tolerance"


@pytest.mark.parametrize(
    ("reason", "edit"),
    [
        ("malformed", lambda v: v.update(version=0)),
        ("malformed", lambda v: v.update(variants={})),
        ("unknown-field", lambda v: v.update(surprise=1)),
        ("session-option", lambda v: v["variants"]["fp32"].update(options={"session.x": "1"})),
        ("wrong-size", lambda v: v["variants"]["fp32"].update(size=1)),
        ("unknown-field", lambda v: v["variants"]["fp32"].update(golden=v["sides"]["report"])),
        ("unknown-field", lambda v: v["variants"]["fp32"]["manifest"].update(must=[])),
        ("unknown-field", lambda v: v["variants"]["fp32"].update(must=[])),
        ("malformed", lambda v: v["variants"]["fp32"].update(manifest=v["sides"]["report"])),
    ],
)
def test_wrong_payloads(folder: Path, reason: str, edit) -> None:
    """Each fault of the payload has its reason."""
    change(folder, edit)
    assert refused(folder) == reason


@pytest.mark.parametrize("part", ["golden", "reference"])
def test_sides_of_a_manifest_are_what_they_are_called(folder: Path, part: str) -> None:
    """Golden vectors and the reference profile that a manifest names must read as such."""
    report = json.loads((folder / "release.json").read_bytes())["sides"]["report"]
    change_manifest(folder, "fp32", lambda value: value.update({part: report}))
    assert refused(folder) == f"{part}-malformed"


def test_a_payload_may_spell_out_what_is_usual(folder: Path, forged: Forged) -> None:
    """Fields with the value they have anyway are known, and what is signed is the shortest payload, the same as without them."""

    def spell_out(value) -> None:
        value["must"] = []
        for variant in value["variants"].values():
            assert not {"options", "memory"} & variant.keys()
            variant.update(options={}, memory=0)

    change(folder, spell_out)
    assert check_folder(folder) == forged.release
    assert split(sign_release(folder, SIGNERS), "release")[0] == canonical.encode(forged.release.payload())


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
