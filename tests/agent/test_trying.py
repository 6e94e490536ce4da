"""A candidate on trial in a slot: whom it is held against, which checks it must pass, what the death of a worker means."""

import socket
from pathlib import Path

import pytest

from edgeops_agent.core.slot import Build, Target
from edgeops_agent.shell.revival import HOUR_S, MOST_AN_HOUR, MOST_IN_A_ROW, MOST_S, Deaths, Revival
from edgeops_agent.shell.trying import environment

from .fake_life import DAY_S, living
from .rooms import Rooms, gone, program, until


@pytest.fixture
def rooms() -> Rooms:
    """The agent as it is."""
    return Rooms()


def test_a_camera_that_was_broken_before_is_no_fault_of_the_candidate(rooms: Rooms, tmp_path: Path) -> None:
    """The same errors in the minute before the update excuse them after it; errors of last week do not."""
    with living(rooms, tmp_path) as life:
        life.wait(10, calls=1000)
        life.wait(600, calls=100, errors=20)
        life.trial()
        life.wait(60, calls=100, errors=20)
        assert type(life.verdict()).__name__ == "Done"
    with living(rooms, tmp_path) as life:
        life.wait(10, calls=100, errors=20)
        life.wait(600, calls=1000)
        life.trial()
        life.wait(60, calls=100, errors=20)
        assert (life.verdict().phase, getattr(life.verdict(), "reason", "")) == ("trial", "error-rate")


def test_what_the_old_worker_counted_last_counts(rooms: Rooms, tmp_path: Path) -> None:
    """Its counts since the last collection are asked for as it leaves."""
    with living(rooms, tmp_path) as life:
        life.worker.calls, life.worker.errors = 100, 20
        life.trial()
        life.wait(60, calls=100, errors=20)
        assert type(life.verdict()).__name__ == "Done"


def test_latency_is_held_against_the_model_before(rooms: Rooms, tmp_path: Path) -> None:
    """Four times as slow as its predecessor just before is too slow; a predecessor that was idle says nothing."""
    for calls, reason in ((100, "latency"), (5, "")):
        with living(rooms, tmp_path) as life:
            life.wait(10, calls=calls, latency=100)
            life.trial()
            life.wait(60, calls=100, latency=400)
            assert getattr(life.verdict(), "reason", "") == reason


def test_a_trial_that_begins_anew_is_held_against_the_same(rooms: Rooms, tmp_path: Path) -> None:
    """A newer order for the candidate on trial does not make it its own predecessor."""
    with living(rooms, tmp_path) as life:
        life.wait(10, calls=100, latency=100)
        life.trial()
        life.wait(10, calls=100, latency=400)
        life.trial(order=8)
        life.wait(60, calls=100, latency=400)
        assert (life.verdict().order, getattr(life.verdict(), "reason", "")) == (8, "latency")


def test_checks_of_the_owner_decide_too(rooms: Rooms, tmp_path: Path) -> None:
    """A trial whose counts are good fails with a check that says no, before its window is over."""
    program(tmp_path / "health.d", "10-door", "echo the door is open; exit 1")
    with living(rooms, tmp_path) as life:
        life.trial()
        verdict = life.verdict()
    assert (verdict.phase, verdict.order, verdict.reason) == ("trial", 7, "health-hook")
    assert verdict.detail == "10-door: the door is open (exit code 1)"


def test_a_trial_waits_for_its_checks(rooms: Rooms, tmp_path: Path) -> None:
    """While a check is asked nothing is decided, though the window is over; a check that says "not yet" then has failed."""
    program(tmp_path / "health.d", "10-slow", f"while [ ! -e {tmp_path / 'go'} ]; do sleep 0.02; done; exit 0")
    program(tmp_path / "health.d", "20-never", f"[ -e {tmp_path / 'go'} ] && exit 21; exit 1")
    with living(rooms, tmp_path) as life:
        life.trial()
        life.wait(70, calls=100)
        assert not life.said("Done") + life.said("Failed")
        (tmp_path / "go").touch()
        assert life.verdict().reason == "health-hook-not-yet"


def test_a_check_that_hangs_delays_no_other_verdict(rooms: Rooms, tmp_path: Path) -> None:
    """A worker that dies while a check hangs fails the trial with the next look, and the check is ended."""
    lines = f"echo $$ > {tmp_path / 'new'}; mv {tmp_path / 'new'} {tmp_path / 'pid'}; exec sleep 30"
    program(tmp_path / "health.d", "10-hangs", lines)
    with living(rooms, tmp_path) as life:
        life.trial()
        until((tmp_path / "pid").exists, "the check to begin")
        life.worker.die("crashed:SIGSEGV", "x" * 600 + " Segmentation fault")
        life.wait(0)
        failed = life.said("Failed")[0]
    assert (failed.phase, failed.reason) == ("trial", "crashed:SIGSEGV")
    assert failed.detail.endswith("Segmentation fault")
    assert len(failed.detail) < 600
    until(lambda: gone(int((tmp_path / "pid").read_text())), "the check to end")


def test_what_has_passed_but_not_committed_falls_with_its_worker(rooms: Rooms, tmp_path: Path) -> None:
    """Its death is told, and it stays dead: who knows whether it is committed says what is to run."""
    with living(rooms, tmp_path) as life:
        life.trial()
        life.wait(60, calls=100)
        assert type(life.verdict()).__name__ == "Done"
        life.wait(100)
        life.worker.die("crashed:SIGABRT", "bad_weights")
        life.wait(1)
        life.wait(100)
        assert [(one.build, one.reason, one.words) for one in life.said("Fallen")] == [(life.new, "crashed:SIGABRT", "bad_weights")]
        assert len(life.hired) == 2
        life.run(life.old)
        life.wait(100)
        assert (len(life.hired), life.said("Crashed"), life.said("Ran")[-1].build) == (3, [], life.old)


def test_what_has_committed_is_started_again(rooms: Rooms, tmp_path: Path) -> None:
    """Told to run, what has fallen runs; from then on it is known to be committed, and the next death waits for nobody."""
    with living(rooms, tmp_path) as life:
        life.trial()
        life.wait(60, calls=100)
        life.verdict()
        life.worker.die("crashed:SIGSEGV", "é" * 400)
        life.wait(0.2)
        life.run(life.new)
        assert (len(life.hired), life.worker.alive) == (3, True)
        assert [len(one.words.encode()) for one in life.said("Fallen")] == [500]
        ran = len(life.said("Ran"))
        life.worker.die("crashed:SIGSEGV")
        life.wait(0.2)
        assert (len(life.hired), len(life.said("Crashed")), len(life.said("Failed")), len(life.said("Ran"))) == (4, 1, 0, ran)


@pytest.mark.parametrize("lives_s", [0.2, 10, 61, 300])
def test_a_model_that_keeps_dying_is_started_now_and_then_for_ever(rooms: Rooms, tmp_path: Path, lives_s: float) -> None:
    """A day of it: never given up, at once a few times, then at most once a minute; the revival's waits have their bound."""
    with living(rooms, tmp_path) as life:
        revival = Revival(lambda: life.now)
        end, down_s, starts = life.now + DAY_S, 0.0, 0
        while life.now < end:
            before = life.now
            if life.worker.alive:
                life.now += lives_s
                life.worker.die("crashed:SIGSEGV")
                life.wait(0)
            else:
                life.now += 0.25
                down_s += life.now - before
            if life.said("Ailing"):
                life.posted.clear()
                assert revival.plan("main") <= MOST_S
            for _ in revival.due({}):
                life.run(life.old)
        starts = len(life.hired)
    short = lives_s <= HOUR_S / MOST_AN_HOUR
    assert starts <= (DAY_S / (MOST_S + lives_s) if short else DAY_S / lives_s) + MOST_AN_HOUR + MOST_IN_A_ROW + 10
    assert starts >= DAY_S / (MOST_S + lives_s + 1)
    assert down_s <= starts * (MOST_S + 0.5)


def test_deaths_far_apart_are_borne() -> None:
    """Three short lives in a row, ten deaths an hour: one more is too many, and an hour of calm forgives them."""
    row, hour, calm = Deaths(), Deaths(), Deaths()
    assert [row.borne(now, 10) for now in range(4)] == [True, True, True, False]
    assert [hour.borne(now * 100, 99) for now in range(11)] == [True] * 10 + [False]
    assert all(calm.borne(now * 400.0, 399) for now in range(1000))
    assert hour.borne(20_000, 5000)


def test_a_slow_crash_loop_falls_back(rooms: Rooms, tmp_path: Path) -> None:
    """A model that dies every 70 seconds is given up within the hour: there may be one that does not."""
    with living(rooms, tmp_path) as life:
        for _ in range(MOST_AN_HOUR + 1):
            assert not life.said("Ailing")
            life.wait(70)
            life.worker.die("memory")
            life.wait(0)
        assert [(one.build, one.reason) for one in life.said("Ailing")] == [(life.old, "memory")]


def test_checks_are_told_where_the_candidate_takes_calls(tmp_path: Path) -> None:
    """The slot, the model, and the addresses of the local endpoint, as a program on this device can reach them."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET6) as six, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("", 0))
        six.bind(("::1", 0))
        unix.bind(str(tmp_path / "s"))
        target = Target(1, "run", build=Build("b" * 64, "int8", "digits", 2))
        found = environment("main", target, [tcp, unix])
        assert found == {
            "EDGEOPS_SLOT": "main", "EDGEOPS_MODEL": "digits", "EDGEOPS_VERSION": "2", "EDGEOPS_RELEASE": "b" * 64,
            "EDGEOPS_HTTP": f"http://127.0.0.1:{tcp.getsockname()[1]}", "EDGEOPS_SOCKET": str(tmp_path / "s"),
        }  # fmt: skip
        assert environment("main", target, [six])["EDGEOPS_HTTP"] == f"http://[::1]:{six.getsockname()[1]}"
