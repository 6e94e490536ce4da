"""What somebody who follows docs/keys.md meets: what is wanting, whose context, which files go, what was dropped."""

import re
from pathlib import Path

import pytest

from edgeops.cli import context
from edgeops.cli.frame import Run
from edgeops.cli.local import ceremony
from edgeops.cli.local.place import open_place
from edgeops.manager.layout import Layout
from edgeops.wire.errors import Misuse, Unreachable
from edgeops.wire.rotation import read_root

FAST = ("--address", "localhost", "--https-port", "8443", "--mqtt-port", "8883")


@pytest.fixture
def home(tmp_path: Path, config: Path, edgeops) -> Path:
    """A manager that does not run."""
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST).code == 0
    return tmp_path / "m"


def root_id(home: Path) -> str:
    """The root key's id."""
    return read_root(Layout(home).newest("root").read_bytes()).roles["root"].keys[0]


def test_root_ceremony_names_what_is_wanting(home: Path, tmp_path: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the old root key has signed too, show, sign and publish name it; then the root can be published."""
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob", "carol"):
        assert edgeops("key", "new", f"{name}.key").code == 0
    change = [word for name in ("alice", "bob", "carol") for word in ("--add", f"root={name}.key.pub")]
    old = root_id(home)
    words = (*change, "--remove", old[:8], "--threshold", "root=2", "--out", "root-2.json", "--folder", str(home))
    assert f"wanting: 1 of {old[:8]}… (old root), 2 of " in edgeops("root", "propose", *words).out
    assert edgeops("root", "sign", "root-2.json", "--key", "alice.key", "--folder", str(home)).code == 0
    said = edgeops("root", "sign", "root-2.json", "--key", "bob.key", "--folder", str(home)).out
    assert f"wanting: 1 of {old[:8]}… (old root)\n" in said
    shown = edgeops("root", "show", "root-2.json", "--folder", str(home), "--json").json
    assert shown["wanting_of"] == [{"root": "old root", "count": 1, "keys": [old]}]
    ran = edgeops("root", "publish", "root-2.json", "--folder", str(home))
    assert (ran.code, "(old root); next: edgeops root sign root-2.json --key KEY" in ran.err) == (3, True)
    last = ("root", "sign", "root-2.json", "--key", str(home / "keys" / "root.key"), "--folder", str(home))
    assert "every signature it needs" in edgeops(*last).out
    assert edgeops("root", "publish", "root-2.json", "--folder", str(home)).code == 0
    assert "have" in edgeops("root", "show", "--folder", str(home), "--json").json


def test_the_current_context_publishes_else_the_admins(home: Path) -> None:
    """Of several contexts of one manager the current one is taken; is another manager's current, the one `init` made is."""
    made = context.load()
    ours = made.known["berlin"]
    bob = context.Context("anna", ours.url, ours.ca, "bobs")
    other = context.Context("other", "https://other:1", str(home / "edgeops.toml"), "others")
    both = made.added(bob).added(other)
    for current, token in (("berlin", ours.token), ("anna", "bobs"), ("other", ours.token)):
        context.save(both.used(current))
        client = ceremony.client_of(Run(), open_place(home))
        client.close()
        assert client.context.token == token


@pytest.mark.parametrize(("error", "kept"), [(Misuse("role", "no"), False), (Unreachable("timeout", "gone"), True)])
def test_a_refused_rotation_leaves_no_key(
    home: Path, edgeops, monkeypatch: pytest.MonkeyPatch, error: Misuse | Unreachable, kept: bool
) -> None:
    """A clear no removes the new key's file; where nobody knows whether the root was published, it stays and doctor tells of it."""

    def refuse(*_words: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(ceremony, "publish", refuse)
        assert edgeops("key", "rotate", "online", "--folder", str(home)).code != 0
    left = list((home / "keys").glob("online-*.key"))
    assert bool(left) is kept
    found = [item for item in edgeops("doctor", str(home), "--json").json["findings"] if item["check"] == "idle key file"]
    assert [str(left[0]) in item["detail"] for item in found] == [True] * len(left)
    if kept:
        ran = edgeops("key", "revoke", left[0].stem.removeprefix("online-"), "--folder", str(home))
        assert (ran.code, str(left[0]) in ran.err.replace("\n", "")) == (2, True)


def test_rotate_says_which_files_go(home: Path, edgeops) -> None:
    """The file of the key that was replaced is removed, and said to be."""
    file = home / "keys" / "root.key"
    assert f"removed {file}" in edgeops("key", "rotate", "root", "--folder", str(home)).out
    made = Layout(home).keys("root")[0]
    assert edgeops("key", "rotate", "root", "--folder", str(home), "--json").json["removed_files"] == [str(made)]


def test_doctor_fails_where_up_would(home: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ports in edgeops.toml than in the site document fail, with the hint `up` gives; the folder comes from the context."""
    settings = home / "edgeops.toml"
    settings.write_text(re.sub(r"mqtt_port = \d+", "mqtt_port = 8999", settings.read_text()))
    monkeypatch.chdir(home.parent)
    ran = edgeops("doctor", "--json")
    found = {item["check"]: item for item in ran.json["findings"]}
    assert (ran.code, found["site"]["level"], "edgeops site sign" in found["site"]["detail"]) == (1, "fail", True)
    assert len(edgeops("key", "list", "--json").json["keys"]) == 4


def test_a_move_that_is_dropped_is_said(home: Path, edgeops) -> None:
    """An endpoint without a scheme is told how to be written; a plain `site sign` warns that it drops the move made before."""
    ran = edgeops("site", "sign", str(home), "--mqtt", "new.example:8883")
    assert (ran.code, "write mqtts://new.example:8883" in ran.err) == (2, True)
    ran = edgeops("site", "sign", str(home), "--mqtt", "mqtts://new.example:8883")
    assert (ran.code, ran.err) == (0, "")
    ran = edgeops("site", "sign", str(home))
    assert (ran.code, "no longer names mqtts://new.example:8883" in ran.err) == (0, True)
