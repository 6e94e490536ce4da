"""The worker of a slot has died: whatever stands in the way of the next one, somebody goes on looking after the slot."""

from pathlib import Path
from typing import Any

import pytest

from edgeops_agent.shell.http import HttpServer
from edgeops_agent.shell.vacancy import Vacancy

from .fake_life import FakeWorker, living
from .rooms import Rooms


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
