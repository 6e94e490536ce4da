"""Checks of the device's owner: yes, no, not yet, and all the ways in which a check cannot be asked; that is a no."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .rooms import Rooms, gone, program, until


@pytest.fixture
def rooms() -> Rooms:
    """The agent as it is."""
    return Rooms()


@contextlib.contextmanager
def asked(rooms: Rooms, folder: Path, **more: Any) -> Iterator[Any]:
    """The checks of a folder, being asked."""
    told = more.pop("environment", {})
    hooks = rooms.shell("hooks").Hooks([folder], told, **{"again_s": 0.02, "timeout_s": 5.0, **more})
    try:
        yield hooks.begin()
    finally:
        hooks.end()


def ended(hooks: Any, last: bool = False) -> Any:
    """How they stand when nothing is left to wait for."""
    until(lambda: hooks.standing(last).over, "the checks")
    return hooks.standing(last)


def test_all_say_yes(rooms: Rooms, tmp_path: Path) -> None:
    """No folder, an empty one, and one whose checks end with 0: the trial may pass."""
    for folder in (tmp_path / "none", tmp_path / "h"):
        with asked(rooms, folder) as hooks:
            assert ended(hooks).reason == ""
        program(tmp_path / "h", "10-yes", "exit 0")
    (tmp_path / "h" / ".hidden").write_text("an editor's")
    with asked(rooms, tmp_path / "h") as hooks:
        assert ended(hooks).reason == ""


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        ("echo first; echo the camera is dark; exit 1", "20-no: the camera is dark (exit code 1)"),
        ("exit 2", "20-no: said nothing (exit code 2)"),
        ("echo 'on\033[31merror' >&2; exit 22", "20-no: on [31merror (exit code 22)"),
        ("kill -9 $$", "20-no: said nothing (exit code -9)"),
        ("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxx; done", "20-no: x"),
    ],
)
def test_one_says_no(rooms: Rooms, tmp_path: Path, lines: str, detail: str) -> None:
    """Whatever is neither 0 nor 21 fails the trial at once; the last line tells people why, and obeys no terminal."""
    program(tmp_path / "h", "10-yes", "exit 0")
    program(tmp_path / "h", "20-no", lines)
    with asked(rooms, tmp_path / "h") as hooks:
        standing = ended(hooks)
    assert standing.reason == "health-hook"
    assert standing.detail.startswith(detail)


def test_a_failed_check_is_a_no(rooms: Rooms, tmp_path: Path) -> None:
    """Exit code 1."""
    program(tmp_path / "h", "10-no", "exit 1")
    with asked(rooms, tmp_path / "h") as hooks:
        assert ended(hooks).reason == "health-hook"


def test_not_yet_is_asked_again(rooms: Rooms, tmp_path: Path) -> None:
    """A check that is not ready the first two times is asked a third time, and those that have said yes are not."""
    program(tmp_path / "h", "10-yes", f"echo x >> {tmp_path / 'once'}")
    program(tmp_path / "h", "20-later", f"echo x >> {tmp_path / 'n'}; [ $(wc -l < {tmp_path / 'n'}) -ge 3 ] || exit 21")
    with asked(rooms, tmp_path / "h") as hooks:
        assert ended(hooks).reason == ""
    assert (tmp_path / "n").read_text() == "x\n" * 3
    assert (tmp_path / "once").read_text() == "x\n"


def test_not_yet_is_no_when_the_window_is_over(rooms: Rooms, tmp_path: Path) -> None:
    """As long as the window lasts there is nothing to decide; then it has failed, under a name of its own."""
    program(tmp_path / "h", "10-never", f"echo x >> {tmp_path / 'n'}; echo 3 of 10 frames; exit 21")
    with asked(rooms, tmp_path / "h") as hooks:
        until(lambda: (tmp_path / "n").exists() and len((tmp_path / "n").read_text()) >= 4, "two rounds")
        assert not hooks.standing(last=False).over
        standing = ended(hooks, last=True)
    assert (standing.reason, standing.detail) == (
        "health-hook-not-yet", "still not ready when the trial was over: 10-never: 3 of 10 frames"
    )  # fmt: skip


def test_a_check_that_hangs_is_ended_and_holds_up_nobody(rooms: Rooms, tmp_path: Path) -> None:
    """How the checks stand is said at once all the while; after its time it is killed, with what it has started, and is a no."""
    program(tmp_path / "h", "10-hangs", f"sleep 30 & echo $! > {tmp_path / 'new'}; mv {tmp_path / 'new'} {tmp_path / 'pid'}; wait")
    with asked(rooms, tmp_path / "h", timeout_s=0.5) as hooks:
        until((tmp_path / "pid").exists, "the check to begin")
        began = time.monotonic()
        assert not hooks.standing(last=True).over
        assert time.monotonic() - began < 0.25
        standing = until(lambda: hooks.standing(True).over and hooks.standing(True), "the check to be ended")
    assert (standing.reason, standing.detail) == ("health-hook", "10-hangs: said nothing (no answer in time (0.5 s))")
    until(lambda: gone(int((tmp_path / "pid").read_text())), "the check's child to end")


def test_a_trial_that_has_ended_asks_no_more(rooms: Rooms, tmp_path: Path) -> None:
    """The check that is being asked is killed, and nothing has passed by that."""
    program(tmp_path / "h", "10-hangs", f"echo $$ > {tmp_path / 'new'}; mv {tmp_path / 'new'} {tmp_path / 'pid'}; exec sleep 30")
    with asked(rooms, tmp_path / "h", timeout_s=30) as hooks:
        until((tmp_path / "pid").exists, "the check to begin")
        hooks.end()
        until(lambda: gone(int((tmp_path / "pid").read_text())), "the check to end")
        standing = hooks.standing(last=False)
        assert standing.reason or not standing.over


CANNOT = {
    "everybody may write it": "may be written by others",
    "a group may write it": "may be written by others",
    "everybody may write the folder": "may be written by others",
    "it is no program": "chmod +x",
    "it is a link": "no regular file",
    "its interpreter is missing": "cannot be run",
    "the folder is a file": "is no folder",
    "there are too many": "more than 64",
}


@pytest.mark.parametrize("why", CANNOT)
def test_a_check_that_cannot_be_asked_is_a_no(rooms: Rooms, tmp_path: Path, why: str) -> None:
    """The owner put a check there; that it cannot be asked must not let the model through."""
    folder = tmp_path / "h"
    path = program(folder, "10-yes", "exit 0")
    match why:
        case "everybody may write it":
            path.chmod(0o757)
        case "a group may write it":
            path.chmod(0o775)
        case "everybody may write the folder":
            folder.chmod(0o777)
        case "it is no program":
            path.chmod(0o644)
        case "it is a link":
            path.rename(tmp_path / "x")
            path.symlink_to(tmp_path / "x")
        case "its interpreter is missing":
            path.write_text("#!/nonexistent/sh\n")
        case "the folder is a file":
            folder = path
        case "there are too many":
            for i in range(70):
                os.link(path, folder / f"x{i}")
    with asked(rooms, folder) as hooks:
        standing = ended(hooks)
    assert standing.reason == "health-hook"
    assert CANNOT[why] in standing.detail


def test_a_check_is_told_what_it_checks(rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidate and where it takes calls, and nothing else of the agent's environment."""
    monkeypatch.setenv("EDGEOPS_TOKEN", "secret")
    program(tmp_path / "h", "10-env", f"env | grep EDGEOPS > {tmp_path / 'env'}")
    with asked(rooms, tmp_path / "h", environment={"EDGEOPS_SLOT": "main", "EDGEOPS_VERSION": "7"}) as hooks:
        assert ended(hooks).reason == ""
    assert sorted((tmp_path / "env").read_text().split()) == ["EDGEOPS_SLOT=main", "EDGEOPS_VERSION=7"]
