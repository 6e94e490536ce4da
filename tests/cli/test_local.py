"""The local half on real files: init, keys, doctor, the forge, signing, uploading, fleet files."""

import hashlib
import json
import stat
from pathlib import Path

import numpy as np
import pytest

from edgeops.cli import context
from edgeops.cli.local import model as model_command
from edgeops.forge.gate import ORDER, Gates
from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical
from edgeops.wire.envelope import open_sealed, split
from edgeops.wire.fields import Fields
from edgeops.wire.release import Release

FAST = ("--https-port", "0", "--mqtt-port", "0", "--address", "127.0.0.1")


@pytest.fixture
def home(tmp_path: Path, config: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh manager's folder, current context included; the working folder is empty."""
    monkeypatch.delenv("EDGEOPS_RELEASE_KEY", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST).code == 0
    return tmp_path / "m"


def test_init_makes_a_manager_and_a_context(home: Path, edgeops):
    """`init` leaves private keys at 0600, and its context is current with a token, a URL and the CA."""
    held = context.load().pick()
    assert (held.name, Path(held.ca)) == ("berlin", home / "pki" / "ca.crt")
    assert held.url.startswith("https://127.0.0.1:")
    assert held.token
    assert stat.S_IMODE(context.path().stat().st_mode) == 0o600
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in (home / "keys").iterdir())


def test_init_refuses_to_overwrite(home: Path, edgeops, tmp_path: Path):
    """Neither a manager's folder nor the context of a living manager is ever overwritten."""
    before = (home / "keys" / "root.key").read_bytes(), context.path().read_bytes()
    assert "[already-initialised]" in edgeops("init", str(home), "--fleet", "other", *FAST).err
    ran = edgeops("init", str(tmp_path / "second"), "--fleet", "berlin", *FAST)
    assert (ran.code, "[context-exists]" in ran.err) == (2, True)
    assert not (tmp_path / "second").exists()
    assert ((home / "keys" / "root.key").read_bytes(), context.path().read_bytes()) == before


def test_init_keeps_nothing_it_cannot_give_away(config: Path, edgeops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the context with the only admin token cannot be written, no manager is made; nor under a name no context may have."""
    monkeypatch.setenv("EDGEOPS_CONFIG", str(tmp_path / "file" / "contexts.toml"))
    (tmp_path / "file").write_text("a file where a folder belongs")
    ran = edgeops("init", str(tmp_path / "m"), *FAST)
    assert (ran.code, "[os-error]" in ran.err) == (2, True)
    monkeypatch.setenv("EDGEOPS_CONFIG", str(config))
    assert "[context-name]" in edgeops("init", str(tmp_path / "m"), "--name", "a/b", *FAST).err
    assert not (tmp_path / "m").exists()


def test_init_leaves_other_files_alone(config: Path, edgeops, tmp_path: Path):
    """A folder with files of the user's own may hold a manager; one with the pieces of another manager may not."""
    (tmp_path / "notes.txt").write_text("mine")
    assert edgeops("init", str(tmp_path), *FAST).code == 0
    (tmp_path / "edgeops.toml").unlink()
    ran = edgeops("init", str(tmp_path), "--name", "again", *FAST)
    assert (ran.code, "[folder-in-use]" in ran.err) == (2, True)
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "keys" / "root.key").exists()


@pytest.mark.parametrize("words", [("--fleet", "not a name"), ("--address", "no host"), ("--broker", "kafka")])
def test_init_with_bad_words_makes_nothing(config: Path, edgeops, tmp_path: Path, words):
    """A wrong argument of `init` leaves neither folder nor context behind."""
    ran = edgeops("init", str(tmp_path / "m"), *words)
    assert ran.code == 2
    assert words[1] in ran.err and "context" not in ran.err
    assert not (tmp_path / "m").exists()
    assert not config.exists()


def test_init_binds_loopback_unless_an_address_is_given(config: Path, edgeops, tmp_path: Path):
    """Without --address only this machine is served; with one, all of its interfaces."""
    assert edgeops("init", str(tmp_path / "a"), "--fleet", "a").code == 0
    assert edgeops("init", str(tmp_path / "b"), "--fleet", "b", "--address", "manager.example.org").code == 0
    assert 'bind = "127.0.0.1"' in (tmp_path / "a" / "edgeops.toml").read_text()
    assert 'bind = "0.0.0.0"' in (tmp_path / "b" / "edgeops.toml").read_text()
    assert context.load().pick("b").url.startswith("https://manager.example.org:")


def test_doctor_finds_what_is_wrong(home: Path, edgeops):
    """`doctor` passes a fresh folder (warning of the offline keys) and fails on a key others can read."""
    ran = edgeops("doctor", str(home), "--json")
    levels = {item["check"]: item["level"] for item in ran.json["findings"]}
    assert ran.code == 0
    assert levels["offline keys"] == "warn"
    (home / "keys" / "online.key").chmod(0o644)
    (home / "documents" / "site-1.json").unlink()
    ran = edgeops("doctor", str(home), "--json")
    assert ran.code == 1
    assert {item["check"] for item in ran.json["findings"] if item["level"] == "fail"} == {"permissions", "folder", "documents"}


def test_doctor_without_a_manager(config: Path, edgeops, tmp_path: Path):
    """A folder without a manager is misuse."""
    ran = edgeops("doctor", str(tmp_path))
    assert (ran.code, "[no-manager]" in ran.err) == (2, True)


def test_keys(home: Path, edgeops, tmp_path: Path):
    """`key new` makes a private file once and never over another; `key list` shows ids, never secrets."""
    made = edgeops("key", "new", str(tmp_path / "ci.key"), "--json").json
    assert stat.S_IMODE((tmp_path / "ci.key").stat().st_mode) == 0o600
    assert "[file-exists]" in edgeops("key", "new", str(tmp_path / "ci.key")).err
    listed = edgeops("key", "list", str(home), "--json").json["keys"]
    assert {row["role"] for row in listed} == {"root", "site", "release", "online"}
    assert len({row["id"] for row in listed} | {made["id"]}) == 5


def keep(straw, envelope: dict[str, object]) -> object:
    """What a manager answers to an offered release: the objects it lacks, or that it has stored it."""
    release = Release.parse(Fields.of(canonical.decode(split(canonical.encode(envelope), "release")[0]), "release"))
    named = {side.sha256 for side in release.sides.values()}
    for variant in release.variants.values():
        held = straw.objects.get(variant.manifest.sha256)
        named |= {variant.manifest.sha256, *(side.sha256 for side in (Manifest.decode(held).objects if held else ()))}
    missing = sorted(named - set(straw.objects))
    return (409, {"reason": "missing-objects", "detail": "", "status": 409, "missing": missing}) if missing else {"digest": "x"}


def test_model_add_signs_here_and_uploads_the_release_last(home: Path, edgeops, straw, digits):
    """A model becomes a release signed by the manager folder's key; every object arrives under its digest before the release."""
    offers: list[int] = []
    straw.answers["POST", "/releases"] = lambda _, body: offers.append(len(straw.objects)) or keep(straw, body["envelope"])
    ran = edgeops("model", "add", "digits:1", *digits, "--folder", str(home), "--json")
    assert ran.code == 0, ran.err
    assert ran.json["uploaded"]["objects"] == len(straw.objects)
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in straw.objects.items())
    root = json.loads(edgeops("key", "list", str(home), "--json").out)
    key = next(row for row in root["keys"] if row["role"] == "release")
    from edgeops.manager.setup import load_signer

    public = load_signer(home / "keys" / "release.key").public
    opened = open_sealed((Path(ran.json["folder"]) / "release.dsse.json").read_bytes(), "release", {key["id"]: public}, 1)
    release = Release.parse(opened.fields)
    assert (release.fleet, release.model, release.version) == ("berlin", "digits", 1)
    assert {side.sha256 for side in release.sides.values()} <= set(straw.objects)
    assert offers == [0, 3, len(straw.objects)]  # manifest, report and lineage; then what the manifest names; then it is whole
    again = edgeops("release", "upload", ran.json["folder"], "--json")
    assert (again.code, again.json["uploaded"]["objects"], again.json["uploaded"]["bytes"]) == (0, 0, 0)


def test_a_release_the_manager_refuses_costs_no_upload(home: Path, edgeops, straw, digits):
    """Refused for its signature or its version: not one object was sent. A manager that forgets what it got is not fed for ever."""
    assert edgeops("model", "add", "digits:1", *digits, "--folder", str(home), "--no-upload", "--out", "r").code == 0
    straw.problem("POST", "/releases", 422, "unknown-key", "signed by a stranger")
    assert edgeops("release", "upload", "r").code == 3
    straw.problem("POST", "/releases", 409, "release-exists", "use the next version")
    assert edgeops("release", "upload", "r").code == 2
    assert straw.objects == {}
    one = next(Path("r/objects").iterdir()).name
    straw.answers["POST", "/releases"] = (409, {"reason": "missing-objects", "detail": "", "status": 409, "missing": [one]})
    assert "[upload-lost]" in edgeops("release", "upload", "r").err
    straw.answers["POST", "/releases"] = (409, {"reason": "missing-objects", "detail": "", "status": 409, "missing": ["../../x"]})
    assert "[unknown-object]" in edgeops("release", "upload", "r").err


def test_model_add_whose_gates_fail_leaves_nothing(home: Path, edgeops, digits):
    """When no variant passes: exit 3, the table with each reason, no folder."""
    ran = edgeops("model", "add", "digits:1", *digits, "--folder", str(home), "--min-accuracy", "1", "--variants", "fp32", "--json")
    assert (ran.code, ran.json["error"]["reason"], ran.json["error"]["kind"]) == (3, "no-variant-passes", "rejected")
    assert ran.json["error"]["variants"][0]["reason"] == "accuracy-floor"
    assert list(Path("releases").iterdir()) == []


def test_a_forest_needs_trust_by_name(edgeops, home: Path, digits, tmp_path: Path):
    """A .skops with types of its own is refused with their names; `--trust` with each of them takes it."""
    import skops.io
    from sklearn.ensemble import RandomForestClassifier

    with np.load(digits[4]) as data:
        model = RandomForestClassifier(5, max_depth=4, random_state=0).fit(data["x"], data["y"])
    skops.io.dump(model, tmp_path / "forest.skops")
    options = ("--folder", str(home), "--no-upload", "--json")
    words = ("model", "add", "digits:1", str(tmp_path / "forest.skops"), *digits[1:], *options)
    refused = edgeops(*words)
    assert (refused.code, refused.json["error"]["reason"]) == (3, "untrusted-type")
    held = skops.io.get_untrusted_types(file=tmp_path / "forest.skops")
    assert all(name in refused.json["error"]["message"] for name in held) and "--trust TYPE" in refused.json["error"]["message"]
    trusted = edgeops(*words, *(word for name in held for word in ("--trust", name)))
    assert trusted.code == 0 and [row["variant"] for row in trusted.json["variants"] if row["passed"]] == ["fp32"]


def test_broken_models_are_named(home: Path, edgeops, digits, tmp_path: Path):
    """A file that is no model is rejected with a reason, a missing one is misuse; nothing is left."""
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    assert edgeops("model", "add", "digits:1", str(tmp_path / "bad.onnx"), *digits[1:], "--folder", str(home)).code == 3
    assert edgeops("model", "add", "digits:1", str(tmp_path / "none.onnx"), *digits[1:], "--folder", str(home)).code == 2
    assert edgeops("model", "add", "digits", *digits, "--folder", str(home)).code == 2
    assert edgeops("model", "add", "digits:1", *digits, "--folder", str(home), "--variants", "int3").code == 2


def test_release_sign_and_show_by_hand(home: Path, edgeops, digits, tmp_path: Path):
    """A release folder changed by hand is refused until it is signed again, with a key of one's own."""
    assert edgeops("model", "add", "digits:1", *digits, "--folder", str(home), "--no-upload", "--out", "r").code == 0
    payload = json.loads(Path("r/release.json").read_text())
    payload["version"] = 9
    Path("r/release.json").write_text(json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    ran = edgeops("release", "upload", "r")
    assert (ran.code, "[stale-signature]" in ran.err) == (3, True)
    key = edgeops("key", "new", str(tmp_path / "own.key"), "--json").json
    signed = edgeops("release", "sign", "r", "--key", str(tmp_path / "own.key"), "--json")
    assert (signed.code, signed.json["signed_by"]) == (0, [key["id"]])
    assert edgeops("release", "show", "r", "--json").json["version"] == 9
    next(Path("r/objects").iterdir()).write_bytes(b"changed")
    assert edgeops("release", "sign", "r", "--key", str(tmp_path / "own.key")).code == 3
    assert edgeops("release", "sign", "nowhere", "--key", str(tmp_path / "own.key")).code == 2


def test_no_release_key_at_hand(config: Path, edgeops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without a key, an environment variable or a manager's folder the error says what to give."""
    monkeypatch.delenv("EDGEOPS_RELEASE_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    ran = edgeops("release", "sign", "r")
    assert (ran.code, "--key" in ran.err) == (2, True)


def test_fleet_check(config: Path, edgeops, tmp_path: Path):
    """`fleet check` accepts the example and lists every complaint of a wrong file."""
    example = Path(__file__).parents[2] / "fleet.example.toml"
    assert edgeops("fleet", "check", str(example), "--json").json["fleet"]
    (tmp_path / "bad.toml").write_text('fleet = "x"\n[groups]\na = "=="\n[nonsense]\n')
    ran = edgeops("fleet", "check", str(tmp_path / "bad.toml"))
    assert ran.code == 2
    assert "groups" in ran.err
    assert "nonsense" in ran.err
    (tmp_path / "latin.toml").write_bytes(b"\xe9")
    assert edgeops("fleet", "check", str(tmp_path / "latin.toml")).code == 2
    assert edgeops("fleet", "check", str(tmp_path / "none.toml")).code == 2


def test_defaults_are_the_forges():
    """The defaults `model add --help` shows are the forge's own."""
    gates = Gates()
    assert (gates.max_drop, gates.min_agreement) == (model_command.MAX_DROP, model_command.MIN_AGREEMENT)
    assert tuple(model_command.VARIANTS.split(",")) == ORDER
