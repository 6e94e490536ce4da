"""Facts that the device's owner states in files and programs: who is heard, what is read, how long it holds."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeops.wire.errors import Misuse
from edgeops_agent.shell.stated import parse

from .rooms import Rooms, gone, program, until


@pytest.fixture
def rooms() -> Rooms:
    """The agent as it is."""
    return Rooms()


class Clocks:
    """A monotonic clock and a wall clock that stand where a test puts them."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1_800_000_000.0


def reader(rooms: Rooms, folder: Path, clocks: Clocks | None = None, **more: Any) -> tuple[Any, list[str]]:
    """A reader of one facts folder, and the lines it writes."""
    at, lines = clocks or Clocks(), []
    folder.mkdir(exist_ok=True)

    def log(event: str, text: str, level: str) -> None:
        lines.append(text)

    return rooms.shell("stated").StatedFacts([folder], lambda: at.now, lambda: at.wall, log, **more), lines


def facts_of(stated: Any, now: float = 1000.0) -> dict[str, Any]:
    """All that holds at `now`."""
    return {name: value for one in stated.read() if one.until > now for name, value in one.facts.items()}


def write(folder: Path, name: str, text: str, age_s: float = 0, clocks: Clocks | None = None) -> Path:
    """A facts file, written so long ago."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    at = (clocks or Clocks()).wall - age_s
    os.utime(path, (at, at))
    return path


def test_files_and_programs_are_read(rooms: Rooms, tmp_path: Path) -> None:
    """Texts, whole numbers and truths; later names outweigh earlier ones; hidden files are left alone."""
    write(tmp_path / "f", "10-park.json", '{"parked": false, "zone": "Hall 3"}')
    write(tmp_path / "f", ".20-new.json", '{"parked": 7}')
    program(tmp_path / "f", "30-more", """echo '{"parked": true, "volts_mv": -12100}'""")
    stated, lines = reader(rooms, tmp_path / "f")
    assert facts_of(stated) == {"parked": True, "zone": "Hall 3", "volts_mv": -12100}
    assert lines == []


BAD = {
    "a float": ('{"volts": 12.1}', "whole number"),
    "an exponent": ('{"volts": 1e3}', "whole number"),
    "not a number": ('{"volts": NaN}', "whole number"),
    "a list": ("[1]", "one JSON object"),
    "an object inside": ('{"a": {"b": 1}}', "true, false"),
    "null": ('{"a": null}', "true, false"),
    "a name twice": ('{"a": 1, "a": 2}', "twice"),
    "a name with capitals": ('{"Parked": true}', "names are"),
    "a long name": (json.dumps({"a" * 33: 1}), "names are"),
    "consent": ('{"consent": "yes"}', "no file can state"),
    "online": ('{"online": true}', "no file can state"),
    "a huge number": ('{"a": 9007199254740992}', "true, false"),
    "a long text": (json.dumps({"a": "x" * 65}), "true, false"),
    "a text with a line end": ('{"a": "x\\ny"}', "true, false"),
    "a text in decomposed letters": ('{"a": "Cafe\u0301"}', "NFC"),
    "valid_s a truth": ('{"a": 1, "valid_s": true}', "valid_s"),
    "valid_s zero": ('{"a": 1, "valid_s": 0}', "valid_s"),
    "deep": ("[" * 15000, "recursion"),
    "half": ('{"a": 1', "delimiter"),
    "nothing": ("", "Expecting value"),
    "no text": (b"\xff\xfe{}", "codec"),
    "long digits": ('{"a": ' + "9" * 5000 + "}", "digit"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_named(what: str) -> None:
    """Each kind of nonsense is refused in words that say what is wrong with which file."""
    text, told = BAD[what]
    with pytest.raises(Misuse, match=f"(?i){told}") as caught:
        parse(text.encode() if isinstance(text, str) else text, Path("facts.d/10-x.json"))
    assert "10-x.json" in caught.value.message


def test_a_bad_file_is_said_once_and_hides_no_other(rooms: Rooms, tmp_path: Path) -> None:
    """It is said when it is first seen, and when something else is wrong with it; the others are facts all the time."""
    bad = write(tmp_path / "f", "10-bad.json", '{"volts": 12.1}')
    write(tmp_path / "f", "20-good.json", '{"parked": true}')
    stated, lines = reader(rooms, tmp_path / "f")
    for _ in range(3):
        assert facts_of(stated) == {"parked": True}
    assert len(lines) == 1
    assert "10-bad.json" in lines[0]
    assert "12.1 is no whole number" in lines[0]
    bad.write_text("[]")
    assert facts_of(stated) == {"parked": True}
    assert len(lines) == 2
    bad.write_text('{"volts_mv": 12100}')
    assert facts_of(stated) == {"parked": True, "volts_mv": 12100}


def test_who_is_heard(rooms: Rooms, tmp_path: Path) -> None:
    """A file that others may write is refused with what to do about it, and so are links, pipes and folders; none blocks."""
    open_to_all = write(tmp_path / "f", "10-open.json", '{"parked": true}')
    open_to_all.chmod(0o646)
    (tmp_path / "f" / "20-link.json").symlink_to(write(tmp_path / "g", "x.json", '{"parked": true}'))
    os.mkfifo(tmp_path / "f" / "30-pipe.json")
    (tmp_path / "f" / "40-folder.json").mkdir()
    open_program = program(tmp_path / "f", "50-open", """echo '{"parked": true}'""")
    open_program.chmod(0o775)
    write(tmp_path / "f", "60-readme", "not a program")
    (tmp_path / "f" / "70-link").symlink_to(program(tmp_path / "g", "x", """echo '{"parked": true}'"""))
    stated, lines = reader(rooms, tmp_path / "f")
    assert facts_of(stated) == {}
    words = ("chmod go-w", "is a link", "regular", "is a directory", "chmod go-w", "chmod +x", "regular")
    assert [word for line, word in zip(lines, words, strict=True) if word not in line.lower()] == []


def test_an_open_folder_is_not_read(rooms: Rooms, tmp_path: Path) -> None:
    """Where everybody may put files nobody is believed."""
    write(tmp_path / "f", "10-park.json", '{"parked": true}')
    stated, lines = reader(rooms, tmp_path / "f")
    (tmp_path / "f").chmod(0o777)
    assert facts_of(stated) == {}
    assert "may be written by others" in lines[0]
    (tmp_path / "f").chmod(0o755)
    assert facts_of(stated) == {"parked": True}


def test_files_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, programs and folders of users other than root and our own say nothing."""
    write(tmp_path / "f", "10-park.json", '{"parked": true}')
    program(tmp_path / "f", "20-more", """echo '{"parked": true}'""")
    stated, lines = reader(Rooms(), tmp_path / "f")
    real = os.stat_result

    def owned_by(uid: int) -> Callable[[Any], Any]:
        return lambda status: real((*status[:4], uid, *status[5:]))

    fstat, lstat = os.fstat, Path.lstat
    monkeypatch.setattr(os, "fstat", lambda fd: owned_by(12345)(fstat(fd)) if stat.S_ISREG(fstat(fd).st_mode) else fstat(fd))
    monkeypatch.setattr(Path, "lstat", lambda self: owned_by(12345)(lstat(self)))
    assert facts_of(stated) == {}
    assert len([line for line in lines if "belongs to user 12345" in line]) == 2
    own = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: owned_by(12345)(own(self, **more)))
    assert facts_of(stated) == {}
    assert f"{tmp_path / 'f'} belongs to user 12345" in lines[-1]


def test_facts_hold_as_long_as_they_say(rooms: Rooms, tmp_path: Path) -> None:
    """Counted from when the file was written; what says nothing holds as long as the file is there."""
    clocks = Clocks()
    write(tmp_path / "f", "10-short.json", '{"parked": true, "valid_s": 60}', age_s=20)
    write(tmp_path / "f", "20-long.json", '{"zone": 3}', age_s=10**7)
    stated, _ = reader(rooms, tmp_path / "f", clocks)
    assert facts_of(stated, 1000 + 39) == {"parked": True, "zone": 3}
    assert facts_of(stated, 1000 + 41) == {"zone": 3}
    clocks.wall += 41
    clocks.now += 41
    assert facts_of(stated, clocks.now) == {"zone": 3}


def test_a_file_from_the_future_does_not_hold_for_ever(rooms: Rooms, tmp_path: Path) -> None:
    """A clock that was put back makes files look new: they hold for `valid_s` from when they were first seen; a new one anew."""
    clocks = Clocks()
    write(tmp_path / "f", "10-park.json", '{"parked": true, "valid_s": 60}', age_s=-3600)
    stated, _ = reader(rooms, tmp_path / "f", clocks)
    assert facts_of(stated, clocks.now) == {"parked": True}
    clocks.now += 61
    assert facts_of(stated, clocks.now) == {}
    write(tmp_path / "f", "10-park.json", '{"parked": true, "valid_s": 60}', age_s=-3601)
    assert facts_of(stated, clocks.now) == {"parked": True}


def test_programs_are_bounded(rooms: Rooms, tmp_path: Path) -> None:
    """One that hangs (and what it has started), one that talks without end, one that fails: each is ended, the others are heard."""
    folder, pid = tmp_path / "f", tmp_path / "pid"
    program(folder, "10-hangs", f"sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; wait")
    program(folder, "20-talks", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")
    program(folder, "30-drips", "while :; do echo; sleep 0.02; done")
    program(folder, "40-fails", """echo '{"parked": true}'; echo broken >&2; exit 3""")
    program(folder, "50-good", """echo '{"parked": true}'""")
    program(folder, "60-leaves", """sleep 60 & echo '{"left": 1}'""")
    stated, lines = reader(rooms, folder, timeout_s=1.0)
    until_ended = facts_of(stated)
    assert until_ended == {"parked": True, "left": 1}
    said = "\n".join(lines)
    assert "10-hangs states nothing: no answer in time (1 s)" in said
    assert "20-talks states nothing: printed more than 16384 bytes" in said
    assert "30-drips states nothing: no answer in time (1 s)" in said
    assert "40-fails states nothing: it ended with 3; broken" in said
    until(lambda: gone(int(pid.read_text())), "the program's child to end")


def test_programs_get_a_bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of the agent's environment is handed on."""
    monkeypatch.setenv("EDGEOPS_TOKEN", "secret")
    program(tmp_path / "f", "10-env", """printf '{"names": "%s"}' "$(env | cut -d= -f1 | sort | tr '\\n' ' ')" """)
    stated, _ = reader(Rooms(), tmp_path / "f")
    assert set(facts_of(stated)["names"].split()) <= {"LC_ALL", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}


def test_at_most_so_many(rooms: Rooms, tmp_path: Path) -> None:
    """64 facts; the file that would make more of them is left out, and named; more than 64 files are none."""
    write(tmp_path / "f", "10-many.json", json.dumps({f"f{i}": i for i in range(64)}))
    write(tmp_path / "f", "20-more.json", '{"parked": true}')
    write(tmp_path / "f", "30-same.json", '{"f0": 7}')
    stated, lines = reader(rooms, tmp_path / "f")
    found = facts_of(stated)
    assert (len(found), found["f0"]) == (64, 7)
    assert len(lines) == 1
    assert "20-more.json is left out" in lines[0]
    for i in range(70):
        write(tmp_path / "f", f"x{i}.json", "{}")
    assert facts_of(stated) == {}
    large = tmp_path / "g"
    write(large, "10-large.json", json.dumps({"a": 1}) + " " * 20_000)
    stated, lines = reader(rooms, large)
    assert facts_of(stated) == {}
    assert "larger than 16384 bytes" in lines[0]
