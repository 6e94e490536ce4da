"""`edgeops audit` against a real manager over HTTPS, then offline on its folder, a copy of its database, and an export."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeops.api.serve import Serving
from edgeops.manager import checkpoints
from edgeops.manager.hub import open_hub
from edgeops.store import audit
from edgeops.wire.envelope import seal
from edgeops.wire.keys import Signer

Command = Callable[..., Any]
FAST = ("--https-port", "0", "--mqtt-port", "0", "--address", "127.0.0.1")


@pytest.fixture
def folder(tmp_path: Path, config: Path, edgeops: Command) -> Path:
    """A manager that has done some things and stopped: two checkpoints, the second of the last entry."""
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST).code == 0
    hub = open_hub(tmp_path / "m", lambda: 1_900_000_000)
    for _ in range(2):
        with hub.store.write() as tx:
            for number in range(4):
                audit.write(tx, hub.now(), "anna", "act", f"thing-{number}")
        checkpoints.make(hub)
    hub.close()
    return tmp_path / "m"


@pytest.fixture
def serving(tmp_path: Path, config: Path, edgeops: Command) -> Iterator[Path]:
    """A running manager, in the current context."""
    assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *FAST, "--broker", "built-in").code == 0
    running = Serving(tmp_path / "m")
    yield tmp_path / "m"
    running.stop()


def sql(folder: Path, *statements: str) -> None:
    """What somebody with the database in his hands does."""
    with sqlite3.connect(folder / "edgeops.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_over_https(serving: Path, edgeops: Command, tmp_path: Path) -> None:
    """Show, page, filter, export, verify: on a running manager; the export verifies without it."""
    for name in ("pi-1", "pi-2", "pi-3"):
        assert edgeops("device", "register", name).code == 0
    found = edgeops("audit", "show", "--json", "--action", "device-register", "--who", "admin").json["audit"]
    assert [entry["subject"] for entry in found] == ["pi-1", "pi-2", "pi-3"]
    ran = edgeops("audit", "show", "--limit", "2")
    assert "pi-3" in ran.out and "pi-1" not in ran.out and f"--before {found[1]['number']}" in ran.err
    assert "pi-1" in edgeops("audit", "show", "--limit", "1", "--before", str(found[1]["number"])).out
    assert edgeops("audit", "show", "--since", "2999-01-01", "--json").json["audit"] == []
    assert edgeops("audit", "show", "--since", "soon").code == 2
    ran = edgeops("audit", "verify", "--json")
    assert (ran.code, ran.json["ok"], ran.json["entries"]) == (0, True, found[2]["number"])
    assert edgeops("audit", "verify", "--root-pin", ran.json["root_pin"], "--json").json["pinned"] is True
    wrong = edgeops("audit", "verify", "--root-pin", "0" * 64)
    assert (wrong.code, "[root-pin]" in wrong.err, "--root-pin says" in wrong.err, "token" in wrong.err) == (3, True, True, False)
    assert edgeops("audit", "export", str(tmp_path / "out")).code == 0
    assert edgeops("audit", "export", str(tmp_path / "out")).code == 2
    ran = edgeops("audit", "verify", "--folder", str(tmp_path / "out"))
    assert (ran.code, "ok: " in ran.out) == (0, True)
    out = tmp_path / "out" / "entries.jsonl"
    out.write_text(out.read_text("utf-8").replace("pi-2", "pi-9"), "utf-8")
    ran = edgeops("audit", "verify", "--folder", str(tmp_path / "out"), "--json")
    assert (ran.code, ran.json["findings"][0]["entry"]) == (1, found[1]["number"])


def test_a_changed_page_is_noticed_over_https(serving: Path, edgeops: Command) -> None:
    """Even without verifying all: an entry shown that does not fit ends with 1; verify names it."""
    for name in ("pi-1", "pi-2"):
        assert edgeops("device", "register", name).code == 0
    sql(serving, "UPDATE audit SET who = 'nobody' WHERE subject = 'pi-1'")
    ran = edgeops("audit", "show")
    assert (ran.code, "was changed" in ran.err) == (1, True)
    ran = edgeops("audit", "verify", "--json")
    assert (ran.code, ran.json["findings"][0]["reason"]) == (1, "audit-altered")


def test_offline_and_on_a_copy(folder: Path, edgeops: Command, tmp_path: Path) -> None:
    """The folder of a stopped manager, and a copy of nothing but database and documents, verify; the pin can be the auditor's."""
    ran = edgeops("audit", "verify", "--folder", str(folder), "--json")
    assert (ran.code, ran.json["entries"], ran.json["covered"], ran.json["checkpoints"]) == (0, 9, 9, 2)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(folder / "edgeops.db", copy)
    shutil.copytree(folder / "documents", copy / "documents")
    assert edgeops("audit", "verify", "--folder", str(copy), "--root-pin", ran.json["root_pin"]).code == 0
    assert edgeops("audit", "verify", "--folder", str(copy), "--root-pin", "f" * 64).code == 3
    assert edgeops("audit", "verify", "--folder", str(tmp_path)).code == 2


@pytest.mark.parametrize(
    ("statements", "reason", "entry"),
    [
        (["UPDATE audit SET who = 'eve' WHERE id = 3"], "audit-altered", 3),
        (["DELETE FROM audit WHERE id = 3"], "audit-missing", 3), (["DELETE FROM audit WHERE id = 1"], "audit-missing", 1),
        (["UPDATE audit SET id = 99 WHERE id = 3", "UPDATE audit SET id = 3 WHERE id = 4", "UPDATE audit SET id = 4 WHERE id = 99"],
         "audit-altered", 3),
        (["UPDATE audit SET id = -id WHERE id > 2", "UPDATE audit SET id = 1 - id WHERE id < 0",
          "INSERT INTO audit SELECT 3, at, who, action, subject, detail, previous, digest FROM audit WHERE id = 2"],
         "audit-altered", 3),
        (["DELETE FROM audit WHERE id > 6"], "audit-cut", 7),
    ],
    ids=["altered", "removed", "first", "swapped", "inserted", "tail"],
)  # fmt: skip
def test_the_bad_row_is_named(folder: Path, edgeops: Command, statements: list[str], reason: str, entry: int) -> None:
    """What is done with SQL to the database of a stopped manager."""
    sql(folder, *statements)
    ran = edgeops("audit", "verify", "--folder", str(folder), "--json")
    assert (ran.code, [(one["reason"], one["entry"]) for one in ran.json["findings"]]) == (1, [(reason, entry)])
    assert f"[{reason}]" in edgeops("audit", "verify", "--folder", str(folder)).out


def test_a_log_written_anew_is_shown_by_one_old_checkpoint(folder: Path, edgeops: Command, tmp_path: Path) -> None:
    """Somebody with the online key too makes a perfect new log, table and file; a line kept elsewhere gives him away."""
    kept = tmp_path / "journal.txt"
    first, second = (folder / "audit" / "checkpoints.jsonl").read_bytes().splitlines()
    kept.write_bytes(b"a line about something else\nJan 1 edgeops[7]: checkpoint " + first + b"\n")
    sql(folder, "DELETE FROM audit", "DELETE FROM checkpoints", "DELETE FROM marks")
    (folder / "audit" / "checkpoints.jsonl").unlink()
    hub = open_hub(folder, lambda: 1_900_000_000)
    with hub.store.write() as tx:
        for number in range(9):
            audit.write(tx, hub.now(), "nobody", "act", f"thing-{number}")
    checkpoints.make(hub)
    hub.close()
    assert edgeops("audit", "verify", "--folder", str(folder)).code == 0
    ran = edgeops("audit", "verify", "--folder", str(folder), "--checkpoints", str(kept), "--json")
    assert (ran.code, [(one["reason"], one["entry"]) for one in ran.json["findings"]]) == (1, [("audit-rewritten", 1)])
    kept.write_bytes(second)
    assert edgeops("audit", "verify", "--folder", str(folder), "--checkpoints", str(kept)).code == 1


def test_a_cut_checkpoint_file(folder: Path, edgeops: Command) -> None:
    """The manager's own file without its end, or without a line between: found, although the log is whole."""
    path = folder / "audit" / "checkpoints.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])
    ran = edgeops("audit", "verify", "--folder", str(folder), "--json")
    assert (ran.code, [one["reason"] for one in ran.json["findings"]]) == (1, ["checkpoint-missing"])
    hub = open_hub(folder, lambda: 1_900_000_000)
    with hub.store.write() as tx:
        audit.write(tx, 1, "anna", "act", "more")
    checkpoints.make(hub)
    hub.close()
    ran = edgeops("audit", "verify", "--folder", str(folder), "--json")
    assert (ran.code, [one["reason"] for one in ran.json["findings"]]) == (1, ["checkpoint-missing"])


def test_a_forged_checkpoint(folder: Path, edgeops: Command, tmp_path: Path) -> None:
    """One signed by a key that no root ever named as online key convicts its own file, not the log."""
    kept = tmp_path / "kept.jsonl"
    said = {"fleet": "berlin", "entry": 9, "digest": "a" * 64, "at": 1, "previous": "0" * 64}
    kept.write_bytes(seal("checkpoint", said, [Signer.from_seed(b"e" * 32)]))
    ran = edgeops("audit", "verify", "--folder", str(folder), "--checkpoints", str(kept), "--json")
    assert (ran.code, [one["reason"] for one in ran.json["findings"]]) == (1, ["checkpoint-forged"])
    assert json.dumps(str(kept))[1:-1] in ran.out
