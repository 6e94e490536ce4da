"""The agent's log: lines for people and programs, bounded on disk, and never in anybody's way."""

import ast
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgeops_agent
from edgeops_agent.shell import journal, logbook, logline
from edgeops_agent.shell.journal import QUIET_S, Journal, Sparing
from edgeops_agent.shell.logbook import MOST_BYTES, Logbook
from edgeops_agent.shell.logline import EVENTS, LEVELS, Line

NOON = 1_800_000_000.25


def line(text: str = "all is well", **fields: logline.Value) -> Line:
    """A line."""
    return Line(NOON, "info", "update", text, fields)


def test_a_line_is_told_in_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON for programs, a time and a level for people, a level's number for systemd's journal."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    said = line("slot main: digits:2 committed", slot="main", order=7)
    assert json.loads(said.json()) == {
        "ts": "2027-01-15T08:00:00.250Z", "level": "info", "event": "update", "msg": "slot main: digits:2 committed",
        "slot": "main", "order": 7,
    }  # fmt: skip
    assert said.shown("%H:%M:%S") == "08:00:00 info  update  slot main: digits:2 committed"
    assert said.journald() == "<6>update: slot main: digits:2 committed"
    assert logline.read(said.json()) == said


@pytest.mark.parametrize(
    "text", ["\x1b[2Jall clear", "one\n08:00:00 info  update  forged", "one\r08:00:00 info", "\x9b2J", "ü\u2028x"]
)
def test_nothing_in_a_line_is_obeyed_or_passes_for_another(text: str) -> None:
    """Some texts were chosen by whoever sent us nonsense: no escape reaches a terminal, no line begins but ours."""
    for shown in (line(text).shown("%H:%M:%S"), line(text).json(), line(text).journald()):
        assert all(one.isprintable() for one in shown.split("\n"))
        assert not any(one.startswith("08:00") for one in shown.split("\n")[1:])
    assert logline.read(line(text).json()) == line(text)


@pytest.mark.parametrize("torn", ["", "{", '{"ts": "2027-01-15T08', "[]", "null", '{"ts": 7}', '{"ts": "x", "level": "info"}'])
def test_what_is_left_of_a_line_is_no_line(torn: str) -> None:
    """Half a line is passed over."""
    assert logline.read(torn) is None


def test_the_log_is_bounded_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Two files of 512 KB at most, whatever is said; the newest lines are there, in order, whoever writes next."""
    check_bounds(logbook, tmp_path)


def check_bounds(made: logbook, tmp_path: Path) -> None:  # type: ignore[valid-type]
    """The same, for a copy of the module too."""
    for number in range(1500):
        assert made.Logbook(tmp_path).take(line("x" * 900, number=number))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "log").iterdir())]
    assert len(sizes) == 2 and max(sizes) <= MOST_BYTES
    kept = [one.fields["number"] for one in made.Logbook(tmp_path).lines()]
    assert kept == list(range(kept[0], 1500)) and len(kept) > 500


def test_what_a_power_cut_left_spoils_no_other_line(tmp_path: Path) -> None:
    """A torn line is passed over, and the next one begins on its own."""
    check_torn(logbook, tmp_path)


def check_torn(made: logbook, tmp_path: Path) -> None:  # type: ignore[valid-type]
    """The same, for a copy of the module too."""
    book = made.Logbook(tmp_path)
    book.take(line("one"))
    with book.path.open("ab") as file:
        file.write(line("torn").json().encode()[:40])
    book.take(line("two"))
    assert [one.text for one in book.lines()] == ["one", "two"]


def test_the_log_is_nobody_elses_business(tmp_path: Path) -> None:
    """Only its user may read it, and it is not written through a link that somebody laid."""
    book = Logbook(tmp_path)
    book.take(line())
    assert book.path.stat().st_mode & 0o777 == 0o600 and book.path.parent.stat().st_mode & 0o777 == 0o700
    book.path.unlink()
    (tmp_path / "else").write_bytes(b"")
    book.path.symlink_to(tmp_path / "else")
    assert not book.take(line()) and (tmp_path / "else").read_bytes() == b""


def test_following_misses_nothing_when_the_file_is_put_aside(tmp_path: Path) -> None:
    """Whoever follows sees every line once, in order, while files are put aside and taken away."""
    book, seen = Logbook(tmp_path), []
    lines = book.follow(pause=0)
    assert next(lines) is None  # no file yet

    def look() -> None:
        while (one := next(lines)) is not None:
            seen.append(one.text)

    book.take(line("a"))
    look()
    book.take(line("b"))
    book.path.replace(book.older)
    book.take(line("c"))
    look()
    book.path.unlink()
    look()
    book.take(line("d"))
    look()
    assert seen == ["a", "b", "c", "d"]


def test_a_log_that_cannot_be_written_stops_nobody_and_is_counted(tmp_path: Path) -> None:
    """What the disk refuses is dropped; the next line that goes through says how many were."""
    check_counted(journal, tmp_path)


def check_counted(made: journal, tmp_path: Path) -> None:  # type: ignore[valid-type]
    """The same, for a copy of the module too."""
    book = Logbook(tmp_path / "state")
    heard: list[str] = []
    told = made.Journal(lambda one: heard.append(one.text) is None)
    told.put(line("before"))
    told.add(book.take)
    told.put(line("lost"))  # there is no folder to write in
    (tmp_path / "state").mkdir()
    told.put(line("again"))
    told.put(line("and on"))
    assert heard == ["before", "lost", "again", "and on"]
    assert [one.text for one in book.lines()] == ["2 lines before this one could not be written", "again", "and on"]


def test_lines_from_before_the_folder_was_ours_are_kept_too(tmp_path: Path) -> None:
    """Nothing is written into a folder before it is claimed, and nothing is forgotten."""
    told = Journal(lambda _: True)
    told.put(line("early"))
    told.add(Logbook(tmp_path).take)
    told.put(line("late"))
    assert [one.text for one in Logbook(tmp_path).lines()] == ["early", "late"]


STOPPED = """
import sys
from edgeops_agent.shell.journal import Journal, begin, say, show_as
begin(Journal(show_as("json")))
for number in range(5000):
    say("update", "x" * 500, number=number)
sys.stderr.write("through\\n")
"""


def test_a_reader_who_stops_reading_is_not_waited_for() -> None:
    """A pipe nobody empties takes what fits; the agent goes on. (A pager, a stopped terminal, a stuck log driver.)"""
    ours, theirs = os.pipe()
    argv = [sys.executable, "-c", STOPPED]
    with subprocess.Popen(argv, stdout=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        try:
            assert process.communicate(timeout=30)[1] == "through\n"
        finally:
            process.kill()
            os.close(ours)


@pytest.mark.parametrize("style", journal.STYLES)
@pytest.mark.parametrize("text", ["x" * 9000, "\u1234" * 9000, "\U0001f600" * 9000, "\U000e0001" * 9000, "\n" * 9000])
@pytest.mark.parametrize("fields", [{}, {str(number): "\u1234" * 900 for number in range(9)}])
def test_no_line_is_longer_than_a_pipe_promises_to_take(
    monkeypatch: pytest.MonkeyPatch, style: str, text: str, fields: dict[str, logline.Value]
) -> None:
    """A long line to a reader who has stopped would be waited for: it loses its beginning, and is a line of its kind still."""
    with (ours := io.TextIOWrapper(io.BytesIO(), encoding="utf-8")):
        monkeypatch.setattr(sys, "stdout", ours)
        monkeypatch.setattr(journal, "_would_wait", lambda: False)
        assert journal.show_as(style)(Line(0.0, "warn", "refused", text + "end", fields))
        shown = ours.buffer.getvalue()
    assert len(shown) <= 4096 and b"end" in shown
    assert style != "json" or json.loads(shown)["msg"].endswith("end")


def test_lines_others_provoke_are_spared() -> None:
    """A thousand refusals of a kind are one line, then one more with how many were left out."""
    check_sparing(journal)


def check_sparing(made: journal) -> None:  # type: ignore[valid-type]
    """The same, for a copy of the module too."""
    lines: list[Line] = []
    clock = [0.0]
    log = made.Sparing(lines.append, lambda: clock[0])
    for _ in range(1000):
        log.say("refused", "refused blocks", kind="blocks", what="blocks")
    clock[0] += QUIET_S
    log.say("refused", "refused blocks", kind="blocks", what="blocks")
    log.say("refused", "another kind", kind="other")
    assert [one.text for one in lines] == ["refused blocks", "refused blocks (and 999 more like it)", "another kind"]
    assert lines[1].fields == {"what": "blocks", "left_out": 999} and lines[1].level == "warn"


def test_every_line_of_the_agent_has_an_event_that_is_described() -> None:
    """All calls of `say` in the agent use a word of EVENTS and a level there is; none of the words is left over."""
    used: set[str] = set()
    for path in Path(edgeops_agent.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[0], ast.Constant)):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name == "say" and "sim" not in path.parts:
                used.add(str(node.args[0].value))
                levels = [one.value for one in node.args[2:3] if isinstance(one, ast.Constant)]
                assert set(levels) <= set(LEVELS), f"{path}:{node.lineno}"
    assert used <= EVENTS.keys(), used - EVENTS.keys()
    assert len(used) > 5


def test_sparing_default_writes_to_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said sparingly goes where all lines go."""
    heard: list[str] = []
    monkeypatch.setattr(journal, "_journal", Journal(lambda one: heard.append(one.text) is None))
    Sparing().say("disk", "full")
    journal.say("disk", "empty")
    assert heard == ["full", "empty"]
