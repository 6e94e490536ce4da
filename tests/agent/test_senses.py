"""What is known now: what files state outweighs what the machine says, nothing stale is believed, nobody waits for a look."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from .rooms import Rooms, program, until
from .test_stated import Clocks, write

MONDAY = 1_800_000_000 - 1_800_000_000 % 604_800 + 4 * 86_400  # the epoch was a Thursday


@pytest.fixture
def rooms() -> Rooms:
    """The agent as it is."""
    return Rooms()


def senses(rooms: Rooms, root: Path, clocks: Clocks | None = None, believed: int | None = None, **more: Any) -> Any:
    """Senses over a machine with a battery of 80 percent and a warm chip."""
    at = clocks or Clocks()
    machine = root / "machine"
    for name, text in {
        "class/power_supply/b/type": "Battery", "class/power_supply/b/capacity": "80", "class/power_supply/b/status": "Discharging",
        "class/thermal/thermal_zone0/temp": "50000",
    }.items():  # fmt: skip
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_text(text)
    return rooms.shell("senses").Senses(
        root, lambda: believed, (root / "etc", root / "facts.d"), machine, machine, "/nonexistent/nmcli", lambda: at.now,
        lambda: at.wall, lambda *said: None, **more,
    )  # fmt: skip


def test_what_files_state_outweighs_the_machine(rooms: Rooms, tmp_path: Path) -> None:
    """The agent's folder outweighs the machine's, which outweighs what is read from the kernel."""
    write(tmp_path / "etc", "10-power.json", '{"power": "external", "parked": false}')
    write(tmp_path / "facts.d", "10-park.json", '{"parked": true}')
    known = senses(rooms, tmp_path)
    assert known.latest() == {}
    known.look()
    found = known.latest()
    assert {"power": "external", "parked": True, "battery": 80, "temperature_c": 50}.items() <= found.items()


def test_nothing_stale_is_believed(rooms: Rooms, tmp_path: Path) -> None:
    """When looking hangs, what was seen goes after three minutes; what holds for seconds goes then, between two looks."""
    clocks = Clocks()
    write(tmp_path / "facts.d", "10-park.json", '{"parked": true, "valid_s": 30}')
    known = senses(rooms, tmp_path, clocks)
    known.look()
    assert known.latest()["parked"] is True
    clocks.now += 31
    assert "parked" not in known.latest()
    assert known.latest()["battery"] == 80
    clocks.now += rooms.shell("senses").STALE_S
    assert known.latest() == {}


def test_a_program_that_fails_leaves_no_old_facts(rooms: Rooms, tmp_path: Path) -> None:
    """What it stated before is gone with the next look."""
    path = program(tmp_path / "facts.d", "10-park", """echo '{"parked": true}'""")
    known = senses(rooms, tmp_path)
    known.look()
    assert known.latest()["parked"] is True
    path.write_text("#!/bin/sh\nexit 1\n")
    known.look()
    assert "parked" not in known.latest()


def test_the_hour_of_the_week_is_known_when_the_time_is(rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes since Monday 00:00 of the device's own time zone; nothing while the clock is not sure."""
    assert "minute_of_week" not in senses(rooms, tmp_path).latest()
    try:
        for zone, shift in (("UTC", 0), ("XXX-2", 120), ("XXX+1", -60)):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            for minute in (0, 1, 1439, 1440, 10_079):
                found = senses(rooms, tmp_path, believed=MONDAY + 60 * minute + 59).latest()
                assert found["minute_of_week"] == (minute + shift) % 10_080
    finally:
        monkeypatch.undo()
        time.tzset()


def test_nobody_waits_for_a_look(rooms: Rooms, tmp_path: Path) -> None:
    """A look that hangs holds up neither those who ask nor those who stop; looking now does not wait for the next round."""
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    program(tmp_path / "facts.d", "10-slow", f"""read word < {fifo}; echo '{{"word": "'$word'"}}'""")
    known = senses(rooms, tmp_path)
    known.start()
    began = time.monotonic()
    assert known.latest() == {}
    known.look_now()
    known.eager(True)
    for word in ("one", "two"):
        with fifo.open("w") as file:
            file.write(f"{word}\n")
        until(lambda word=word: known.latest().get("word") == word, "the look")
    assert time.monotonic() - began < 8
    known.stop()
    assert time.monotonic() - began < 9


def test_a_look_is_taken_as_often_as_it_is_needed(rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ten seconds while somebody waits, else every minute; whoever begins to wait has a look at once; a bug ends nothing."""
    waits: list[float] = []
    looks, go = [], threading.Semaphore(0)

    class Wake(threading.Event):
        """Says how long it would have waited."""

        def wait(self, timeout: float | None = None) -> bool:
            """Until the test goes on."""
            waits.append(timeout or 0)
            return go.acquire(timeout=10)

    known = senses(rooms, tmp_path)
    monkeypatch.setattr(known, "_wake", Wake())
    monkeypatch.setattr(known, "look", lambda: looks.append(1) or 1 / 0)
    known.start()
    until(lambda: len(waits) == 1, "the first look")
    assert (waits, len(looks)) == ([60], 1)
    known.eager(True)
    assert known._wake.is_set()
    go.release()
    until(lambda: len(waits) == 2, "the second look")
    known.eager(False)
    go.release()
    until(lambda: len(waits) == 3, "the third look")
    known.stop()
    go.release()
    assert (waits, len(looks)) == ([60, 10, 60], 3)
