"""Ceremonies on a manager's folder and between holders: root, site and floor with thresholds, keys rotated, revoked, and kills."""

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeops.cli.local.ceremony import lacks
from edgeops.manager.hub import open_hub
from edgeops.manager.layout import Layout
from edgeops.wire.rotation import read_root

FAST = ("--address", "localhost", "--https-port", "0", "--mqtt-port", "0")


@pytest.fixture
def home(tmp_path: Path, config: Path, edgeops) -> Path:
    """A manager that does not run."""
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST).code == 0
    return tmp_path / "m"


def now() -> int:
    """Unix seconds."""
    return int(time.time())


def reopened(home: Path) -> tuple[int, str, int]:
    """What a manager that starts here uses: root version, online key, epoch."""
    hub = open_hub(home, now)
    try:
        return hub.root.version, hub.online.id, hub.root.epoch
    finally:
        hub.close()


def test_one_command_rotates_each_role(home: Path, edgeops) -> None:
    """On a single machine each role gets a new key by one command; documents are signed anew, old keys go, the manager opens."""
    before = {row["role"]: row["id"] for row in edgeops("key", "list", str(home), "--json").json["keys"]}
    for role in ("online", "site", "release", "root"):
        ran = edgeops("key", "rotate", role, "--folder", str(home), "--json")
        assert ran.code == 0, ran.err
        assert ran.json["stale"] == []
    after = {row["role"]: row["id"] for row in edgeops("key", "list", str(home), "--json").json["keys"]}
    assert all(after[role] != before[role] for role in before)
    assert len(list((home / "keys").iterdir())) == 4
    version, online, epoch = reopened(home)
    assert (version, online, epoch) == (5, after["online"], 1)
    levels = {item["check"]: item["level"] for item in edgeops("doctor", str(home), "--json").json["findings"]}
    assert (levels["documents"], levels["thresholds"], levels["offline keys"]) == ("ok", "warn", "warn")


def test_two_of_three_holders(home: Path, tmp_path: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet grows up: root 2 of 3, release 2 of 2, site 2 of 2. No single holder can do anything any more; two can."""
    names = ("alice", "bob", "carol")
    for name in names:
        assert edgeops("key", "new", str(tmp_path / f"{name}.key")).code == 0
    ids = {row["role"]: row["id"] for row in edgeops("key", "list", str(home), "--json").json["keys"]}
    change = [word for name in names for word in ("--add", f"root={tmp_path / name}.key.pub")]
    file = str(tmp_path / "root-2.json")
    words = (*change, "--remove", ids["root"][:8], "--threshold", "root=2", "--out", file, "--folder", str(home))
    assert edgeops("root", "propose", *words, "--key", str(home / "keys" / "root.key"), "--json").json["wanting"] == 2
    ran = edgeops("root", "publish", file, "--folder", str(home))
    assert (ran.code, "[threshold]" in ran.err) == (3, True)
    monkeypatch.chdir(tmp_path)
    for name in names[:2]:
        assert edgeops("root", "sign", file, "--key", f"{name}.key", "--folder", str(home)).code == 0
    shown = edgeops("root", "show", file, "--json").json
    assert (shown["roles"]["root"]["threshold"], len(shown["signed_by"])) == (2, 3)
    assert edgeops("root", "publish", file, "--folder", str(home), "--json").json["version"] == 2
    ran = edgeops("key", "rotate", "site", "--folder", str(home), "--key", "alice.key")
    assert (ran.code, "[threshold]" in ran.err) == (2, True)
    assert reopened(home)[0] == 2

    for name in ("dan", "eve"):
        assert edgeops("key", "new", f"{name}.key").code == 0
    words = ("--add", "site=dan.key.pub", "--add", "release=eve.key.pub", "--threshold", "site=2", "--threshold", "release=2")
    signing = ("--key", "bob.key", "--key", "carol.key")
    out = ("--folder", str(home), "--out", "root-3.json", "--json")
    assert edgeops("root", "propose", *words, *signing, *out).json["wanting"] == 0
    assert edgeops("root", "publish", "root-3.json", "--folder", str(home), "--json").json["stale"] == ["site"]
    assert "sign it anew" in edgeops("doctor", str(home)).out
    half = edgeops("site", "sign", str(home), "--json").json
    assert (half["wanting"], half["published"]) == (1, False)
    assert edgeops("site", "sign", half["file"], "--key", "dan.key", "--json").json["signed_by"] == sorted(
        [ids["site"], edgeops("root", "show", "--folder", str(home), "--json").json["roles"]["site"]["keys"][1]]
    )
    assert edgeops("site", "publish", half["file"], "--folder", str(home), "--json").json["version"] == 2
    assert edgeops("doctor", str(home), "--json").code == 0


def test_what_cannot_be_proposed(home: Path, tmp_path: Path, edgeops) -> None:
    """A root nobody could use is not even proposed, and says why."""
    ids = {row["role"]: row["id"] for row in edgeops("key", "list", str(home), "--json").json["keys"]}
    online = f"release={home / 'keys' / 'online.key'}"
    for words, reason in (
        (("--threshold", "root=2"), "role-too-small"), (("--remove", ids["site"]), "role-too-small"), ((), "no-change"),
        (("--remove", "ffff"), "unknown-key"), (("--add", "boss=" + "0" * 64), "unknown-role"), (("--add", online), "two-roles"),
        (("--add", "release"), "role-missing"), (("--threshold", "root=x"), "bad-threshold"),
        (("--add", f"online={home / 'keys' / 'online.key'}"), "key-known"), (("--add", "release=" + "zz" * 32), "bad-key"),
    ):  # fmt: skip
        ran = edgeops("root", "propose", *words, "--folder", str(home), "--out", str(tmp_path / "x.json"))
        assert (ran.code, f"[{reason}]" in ran.err) == (2, True), (words, ran.err)
    assert not (tmp_path / "x.json").exists()
    for words, reason in ((("revoke", ids["online"]), "role-too-small"), (("rotate", "boss"), "unknown-role")):
        ran = edgeops("key", *words, "--folder", str(home))
        assert (ran.code, f"[{reason}]" in ran.err) == (2, True)
    assert reopened(home)[0] == 1


def test_overlap_then_revoke(home: Path, edgeops) -> None:
    """A release key gets a successor beside it, and goes when everything is signed by the new one."""
    old = next(row["id"] for row in edgeops("key", "list", str(home), "--json").json["keys"] if row["role"] == "release")
    made = edgeops("key", "rotate", "release", "--overlap", "--folder", str(home), "--json").json["id"]
    root = read_root(Layout(home).newest("root").read_bytes())
    assert set(root.roles["release"].keys) == {old, made}
    assert edgeops("key", "rotate", "release", "--folder", str(home)).code == 2
    assert edgeops("key", "revoke", old[:10], "--folder", str(home), "--json").json["revoked"] == [old]
    assert read_root(Layout(home).newest("root").read_bytes()).roles["release"].keys == (made,)
    assert reopened(home)[2] == 0
    assert not (home / "keys" / "release.key").exists()


class Killed(BaseException):
    """The process was killed; nothing may catch it."""


CALLS = ((os, "fsync"), (os, "fchmod"), (tempfile, "mkstemp"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir"))


def killed_at(patch: pytest.MonkeyPatch, point: int, after: bool) -> Callable[[], int]:
    """Every file operation counts; the one at `point` kills, before or after it was done. How many there were."""
    count = 0

    def wrapped(real: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == point and not after:
                raise Killed
            if count > point:
                raise Killed  # nothing is tidied up by a process that is dead
            result = real(*words, **named)
            if count == point:
                raise Killed
            return result

        return call

    for owner, name in CALLS:
        patch.setattr(owner, name, wrapped(getattr(owner, name)))
    return lambda: count


@pytest.mark.parametrize("role", ["online", "site", "release", "root"])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_never_leaves_a_manager_without_its_key(
    home: Path, tmp_path: Path, edgeops, monkeypatch: pytest.MonkeyPatch, role: str, after: bool
) -> None:
    """Killed before or after any file operation of a rotation, the manager starts with a key its root names, and the rotation can
    be done again.
    """
    points = 0
    for point in range(1, 200):
        copy = tmp_path / f"c{point}"
        shutil.copytree(home, copy)
        with monkeypatch.context() as patch:
            killed_at(patch, point, after)
            try:
                done = edgeops("key", "rotate", role, "--folder", str(copy)).code == 0
            except Killed:
                done = False
        version, online, _ = reopened(copy)
        assert online in read_root(Layout(copy).newest("root").read_bytes()).roles["online"].keys
        assert edgeops("key", "rotate", role, "--folder", str(copy)).code == 0, point
        assert reopened(copy)[0] > version
        shutil.rmtree(copy)
        points = point
        if done:
            break
    assert points > 5


@pytest.mark.parametrize("name", ["fsync", "mkstemp"])
def test_a_full_disk_changes_nothing(home: Path, edgeops, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where the new key cannot be written, no root names it."""
    owner = os if name == "fsync" else tempfile
    with monkeypatch.context() as patch:
        def full(*_words: object, **_named: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(owner, name, full)
        assert edgeops("key", "rotate", "online", "--folder", str(home)).code == 2
    assert reopened(home)[0] == 1


def test_a_broken_chain_does_not_start(home: Path, edgeops) -> None:
    """A root file that does not follow from the one before is noticed at the start, not by devices."""
    assert edgeops("key", "rotate", "online", "--folder", str(home)).code == 0
    file = home / "documents" / "root-2.json"
    body = json.loads(file.read_text())
    body["signatures"] = []
    file.write_text(json.dumps(body, separators=(",", ":"), sort_keys=True))
    assert "does not" in edgeops("doctor", str(home)).out or edgeops("doctor", str(home)).code == 1
    ran = edgeops("key", "rotate", "online", "--folder", str(home))
    assert (ran.code, "[broken-chain]" in ran.err) == (2, True)


def test_what_a_document_lacks(home: Path) -> None:
    """A document without signatures lacks as many as its threshold."""
    root = read_root(Layout(home).newest("root").read_bytes())
    data = Layout(home).newest("site").read_bytes()
    assert lacks("site", data, root) == 0
    body = json.loads(data)
    body["signatures"] = []
    assert lacks("site", json.dumps(body, separators=(",", ":"), sort_keys=True).encode(), root) == 1
