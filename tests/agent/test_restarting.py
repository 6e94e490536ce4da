"""The worker of a slot has died: whatever stands in the way of the next one, somebody goes on looking after the slot."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeops_agent.shell.http import HttpServer
from edgeops_agent.shell.vacancy import Vacancy

from .fake_life import FakeWorker, living
from .rooms import Rooms, until


@pytest.fixture
def rooms() -> Rooms:
    """The agent as it is."""
    return Rooms()


def no_thread(*_: Any) -> None:
    """What Python raises when the kernel has no thread left."""
    raise RuntimeError("can't start new thread")


def no_memory(*_: Any) -> None:
    """What Python raises when there is no memory left."""
    raise MemoryError


@pytest.mark.parametrize("times", [1, 4])
def test_a_kernel_without_threads_is_asked_again(rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """One refusal is got over at once; when the tries are used up it is told, as what may pass, and the supervisor answers."""
    with living(rooms, tmp_path) as life:
        tries = iter([no_thread] * times)
        monkeypatch.setattr(FakeWorker, "start", lambda self, *_: next(tries, lambda: None)())
        life.worker.die("crashed:SIGKILL")
        life.wait(1)
        assert [one.reason for one in life.said("Ailing")] == ["no-process"] * (times == 4)
        assert life.vacant[-1] is (times == 4)
        life.run(life.old)
        assert life.worker.alive and not life.vacant[-1]


def test_a_check_without_memory_is_made_again(rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build's hashes cannot be looked at: nothing says that it is damaged, and it is tried again later."""
    with living(rooms, tmp_path) as life:
        monkeypatch.setattr(rooms.shell("builds"), "check", no_memory)
        life.worker.die("crashed:SIGKILL")
        life.wait(1)
        assert [one.reason for one in life.said("Ailing")] == ["no-process"] and not life.said("Lost")


def test_a_vacancy_that_found_no_thread_is_opened_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not take itself for open."""
    opened = []
    with monkeypatch.context() as refused:
        refused.setattr(HttpServer, "listen", no_thread)
        vacancy = Vacancy([])
        with pytest.raises(RuntimeError):
            vacancy.leave("main")
    monkeypatch.setattr(HttpServer, "listen", lambda self, sockets: opened.append(True))
    vacancy.leave("main")
    assert opened == [True]


def test_a_slot_that_holds_nothing_answers_for_none_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is vacant when every slot has left it, not while the model of one is loading."""
    opened = []
    monkeypatch.setattr(HttpServer, "listen", lambda self, sockets: opened.append(True))
    vacancy = Vacancy([], ["main"])
    vacancy.leave("aux")
    assert opened == []
    vacancy.leave("main")
    assert opened == [True]


def test_a_candidate_that_loads_for_long_leaves_no_dead_worker_down(
    rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that takes the calls dies and is there again before the candidate has loaded; that takes over from it then."""
    with living(rooms, tmp_path) as life:
        first, check = life.worker, FakeWorker.check

        def load(worker: FakeWorker) -> Any:
            if worker is life.hired[1]:
                first.die("memory")
                until(lambda: life.runner.worker is not first and life.runner.worker, "the model to come back")
            return check(worker)

        monkeypatch.setattr(FakeWorker, "check", load)
        life.trial()
        assert [(one.build, one.reason) for one in life.said("Crashed")] == [(life.old, "memory")]
        assert life.runner.worker is life.hired[1] and not life.hired[2].alive
        life.wait(60, calls=100)
        assert (type(life.verdict()).__name__, len(life.hired)) == ("Done", 3)


def test_a_committed_model_that_dies_while_another_loads_waits_for_nobody(
    rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That another build is tried says that it is committed: nobody needs to be asked whether it may run."""
    with living(rooms, tmp_path) as life:
        life.trial()
        life.wait(60, calls=100)
        life.verdict()
        second, third, check = life.worker, life.words.Build("c" * 64, "int8", "digits", 3), FakeWorker.check

        def load(worker: FakeWorker) -> Any:
            if worker is life.hired[2]:
                second.die("memory")
                until(lambda: life.runner.worker is not second and life.runner.worker, "the model to come back")
            return check(worker)

        monkeypatch.setattr(FakeWorker, "check", load)
        life.trial(order=8, build=third)
        assert (life.said("Fallen"), len(life.said("Crashed")), life.runner.worker) == ([], 1, life.hired[2])


def test_an_order_to_run_something_ends_a_candidate_that_loads(
    rooms: Rooms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled candidate does not load on for as long as it may, and is not told to have failed."""
    with living(rooms, tmp_path) as life:

        def load(worker: FakeWorker) -> Any:
            life.runner.do(life.words.Run(life.old))
            until(lambda: not worker.alive, "the candidate to be stopped")
            return SimpleNamespace(ok=False, reason="stopped", detail="")

        monkeypatch.setattr(FakeWorker, "check", load)
        life.trial()
        life.wait(0)
        assert not life.said("Failed")
        assert (life.said("Ran")[-1].build, life.runner.worker) == (life.old, life.hired[0])
