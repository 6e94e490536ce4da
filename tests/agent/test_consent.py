"""`edgeops-agent approve | deny`: an answer is for one order and one release, it lasts, and what is no answer counts as none."""

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeops.wire.conditions import CONSENT, Conditions
from edgeops_agent.cli import main
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Sensed, Slot, Target
from edgeops_agent.core.update import step
from edgeops_agent.shell import consent, live
from edgeops_agent.shell.consent import Answer, Consent, asked_by
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.logbook import Logbook
from edgeops_agent.shell.logline import Line

from .conftest import Paper

ONE = Build("1" * 64, "int8", "digits", 1)
TWO = replace(ONE, release="2" * 64, version=2)
YES = Answer(0, 5, TWO.release, "approve", 1_800_000_000)


def waiting(order: int = 5, phase: str = "ready", build: Build = TWO, **conditions: Any) -> Slot:
    """A slot that waits for consent before it activates."""
    target = Target(order, "run", "r-1", build, conditions=Conditions(**(conditions or {"activate": ("consent", "parked")})))
    return Slot(phase, ONE, None, target, order=order)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An enrolled device whose slot main waits for consent to order 5."""
    folder = StateFolder(tmp_path / "asked")
    folder.create()
    keep(folder.root, waiting())
    return folder.root


def keep(root: Path, slot: Slot, **others: Slot) -> None:
    """The device's slots are these now."""
    folder = StateFolder(root)
    with contextlib.suppress(Exception):
        folder.load()
    folder.save(Record(Paper().trust, {"main": slot, **others}))


def run(root: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, "--state", str(root)])
    return code, out.getvalue(), err.getvalue()


def test_an_approval_is_kept_and_shown(root: Path) -> None:
    """It says what it was for, lasts, is noted in the log, and the update machine goes on with it."""
    Logbook(root).take(Line(1_800_000_000.0, "info", "update", "…", {"slot": "main", "order": 5, "phase": "ready"}))
    code, out, err = run(root, "approve", "digits:2", "--yes")
    assert (code, err) == (0, "")
    assert "digits:2" in out and TWO.release in out and "2027-01-15 08:00:00Z" in out
    assert "approved: it takes the calls, on trial" in out and "the agent does not run now" in out
    said = Consent(root).of("main", 0, 5, TWO.release)
    assert said == "yes"
    assert step(waiting(), Sensed({CONSENT: said, "parked": True}, 0))[0].phase == "trial"
    assert [line.event for line in Logbook(root).lines()] == ["update", "consent"]
    assert (root / "consent" / "main.json").stat().st_mode & 0o777 == 0o600
    assert "approved already" in run(root, "approve", "--yes")[1]


def test_a_denial_is_a_no(root: Path) -> None:
    """With its reason; the update machine ends the order."""
    check_denial(consent, root)
    slot, _ = step(waiting(), Sensed({CONSENT: Consent(root).of("main", 0, 5, TWO.release)}, 0))
    assert slot.phase != "ready" and "denied" in (slot.failure[0], slot.last.reason if slot.last else "")


def check_denial(made: Any, root: Path) -> None:
    """The same, for a copy of the module too."""
    code, out, _ = run(root, "deny", "--yes", "--reason", "in use\x1b[2J", "--json")
    assert code == 0 and json.loads(out)["verdict"] == "deny"
    assert made.Consent(root).of("main", 0, 5, TWO.release) == "no"
    assert made.Consent(root).answer("main").reason == "in use[2J"


def test_an_answer_covers_no_other_order(root: Path) -> None:
    """Neither a newer order, nor another release, slot or epoch."""
    check_bound(consent, root)


def check_bound(made: Any, root: Path) -> None:
    """The same, for a copy of the module too."""
    told = made.Consent(root)
    told.give("main", made.Answer(**{name: getattr(YES, name) for name in Answer.__slots__}))
    assert told.of("main", 0, 5, TWO.release) == "yes"
    for slot, epoch, order, release in (
        ("main", 0, 6, TWO.release), ("main", 0, 4, TWO.release), ("main", 0, 5, ONE.release), ("main", 1, 5, TWO.release),
        ("aux", 0, 5, TWO.release),
    ):  # fmt: skip
        assert told.of(slot, epoch, order, release) == ""


def test_a_newer_order_asks_again(root: Path) -> None:
    """Through the commands: approved order 5, then order 6 of the same release waits until somebody says yes to it."""
    assert run(root, "approve", "--yes")[0] == 0
    keep(root, waiting(6))
    assert Consent(root).of("main", 0, 6, TWO.release) == ""
    assert json.loads(run(root, "approve", "--yes", "--json")[1])["again"] is False
    assert Consent(root).of("main", 0, 6, TWO.release) == "yes" and Consent(root).of("main", 0, 5, TWO.release) == ""


def test_somebody_may_change_his_mind_while_it_waits(root: Path) -> None:
    """The newest answer counts."""
    run(root, "approve", "--yes")
    run(root, "deny", "--yes")
    assert Consent(root).of("main", 0, 5, TWO.release) == "no"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b'{"order": 5}', b"\xff" * 9, b'"approve"',
        json.dumps({"epoch": 0, "order": 5, "release": TWO.release, "verdict": "yes", "at": 0}).encode(),
        json.dumps({"epoch": 0, "order": True, "release": TWO.release, "verdict": "approve", "at": 0}).encode(),
        json.dumps({"epoch": 0, "order": 5, "release": TWO.release, "verdict": ["approve"], "at": 0}).encode(),
        json.dumps({"epoch": 0, "order": 5, "release": TWO.release, "verdict": "approve", "at": 0, "more": 1}).encode(),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_answer(root: Path, data: bytes) -> None:
    """A torn or foreign file neither approves nor denies."""
    (root / "consent").mkdir()
    (root / "consent" / "main.json").write_bytes(data)
    assert Consent(root).of("main", 0, 5, TWO.release) == ""


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        (Slot(current=ONE), "no order is at work"),
        (waiting(phase="install"), "is in phase install; it will ask for consent later"),
        (waiting(activate=("parked",)), "is in phase ready, waiting for parked"), (waiting(phase="trial"), "is in phase trial"),
    ],
)  # fmt: skip
def test_nothing_to_answer_says_what_goes_on(root: Path, slot: Slot, said: str) -> None:
    """Whoever thought that he was asked learns what is waited for instead."""
    keep(root, slot)
    for verb in ("approve", "deny"):
        code, _, err = run(root, verb, "--yes")
        assert code == 2 and "nothing-waits" in err and said in err
    assert not (root / "consent").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("digits:3", "--yes"), "not-that"), (("22222", "--yes"), "not-that"), (("1" * 64, "--yes"), "not-that"),
        (("--slot", "aux", "--yes"), "nothing-waits"), (("--slot", "../x", "--yes"), "nothing-waits"), ((), "not-confirmed"),
        (("--json",), "not-confirmed"),
    ],
)  # fmt: skip
def test_what_was_not_meant_is_not_answered(root: Path, words: tuple[str, ...], reason: str) -> None:
    """Another model or slot than the one that waits, or nobody there to be asked."""
    code, _, err = run(root, "approve", *words)
    assert code == 2 and reason in err and not (root / "consent").exists()


@pytest.mark.parametrize("what", ["digits:2", "2" * 8, "2" * 64])
def test_an_order_is_named_by_its_model_or_its_digest(root: Path, what: str) -> None:
    """As `status` and the manager show it."""
    assert run(root, "approve", what, "--yes")[0] == 0


def test_of_two_slots_one_must_be_named(root: Path) -> None:
    """An answer never lands where it was not meant."""
    keep(root, waiting(), aux=waiting())
    assert "which-slot" in run(root, "approve", "--yes")[2]
    assert run(root, "approve", "--yes", "--slot", "aux")[0] == 0
    assert Consent(root).of("aux", 0, 5, TWO.release) == "yes" and Consent(root).of("main", 0, 5, TWO.release) == ""


@pytest.mark.parametrize(
    ("slot", "terms"),
    [
        (waiting(), ("consent",)), (waiting(phase="waiting"), ()),
        (waiting(phase="waiting", fetch=("consent=yes",)), ("consent=yes",)),
        (waiting(phase="proven", commit=("consent!=no", "battery>=30")), ("consent!=no",)), (Slot(current=ONE), ()),
        (waiting(activate=("window=22:00-06:00", "!metered", "parked")), ()),
    ],
)  # fmt: skip
def test_who_asks_for_a_person(slot: Slot, terms: tuple[str, ...]) -> None:
    """However the term is written, and in no phase but the one it gates."""
    assert asked_by(slot) == terms


@pytest.mark.parametrize(("typed", "code", "said"), [("y\n", 0, "yes"), ("\n", 2, ""), ("no\n", 2, "")])
def test_on_a_terminal_somebody_is_asked(root: Path, typed: str, code: int, said: str) -> None:
    """Nothing but yes is a yes."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "edgeops_agent.cli", "approve", "--state", str(root)]
    with subprocess.Popen(argv, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        os.write(ours, typed.encode())
        _, err = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code and "approve digits:2 in slot main? [y/N]" in err
    assert Consent(root).of("main", 0, 5, TWO.release) == said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_root_answers_as_the_folders_user() -> None:
    """What root keeps there, the agent can read; nothing of root's is left behind."""
    with tempfile.TemporaryDirectory() as made:
        folder = StateFolder(Path(made) / "state")
        folder.create()
        keep(folder.root, waiting())
        for path in (Path(made), folder.root, *folder.root.rglob("*")):
            os.chown(path, 12345, 12345)
        argv = [sys.executable, "-m", "edgeops_agent.cli", "approve", "--yes", "--state", str(folder.root)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (folder.root / "consent" / "main.json").exists()
        assert {path.stat().st_uid for path in folder.root.rglob("*")} == {12345}


def test_the_answer_tells_whether_the_agent_hears_it_now(root: Path) -> None:
    """A running agent goes on at once."""
    answering = live.Live(root, lambda: {"pid": 1})
    answering.open()
    try:
        assert "does not run" not in run(root, "approve", "--yes")[1]
    finally:
        answering.close()
