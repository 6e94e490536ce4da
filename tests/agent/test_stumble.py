"""What nobody thought of: an event that raises ends the order it belongs to, never the agent, and leaves no process behind."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeops.wire import topics
from edgeops.wire.conditions import Conditions
from edgeops.wire.errors import Unfit
from edgeops_agent.core.slot import Build, Done, Lost, Restarted, Run, Slot, Target, Tick
from edgeops_agent.shell import builds
from edgeops_agent.shell.clock import tick
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.frames import Channel
from edgeops_agent.shell.news import Ailing, Collected, Fallen, Ran
from edgeops_agent.shell.runnable import Limits, Runnable
from edgeops_agent.shell.runner import SlotRunner
from edgeops_agent.shell.supervisor import Supervisor
from edgeops_agent.shell.upkeep import Found
from edgeops_agent.shell.vacancy import Vacancy

from ..attacks import vectors
from ..attacks.device import device

HUGE = 2**53 - 1
BUILD = Build("a" * 64, "int8", "m", 1)
ENDLESS = Target(5, "run", "r1", BUILD, trial_s=HUGE, fetch_s=HUGE)


class Hands:
    """A runner that only notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def do(self, command: Any) -> None:
        """Note it."""
        self.told.append(command)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Supervisor]:
    """An agent without a model, nobody at the other end."""
    state = next(case for case in vectors.load() if case["id"] == "order")["state"]
    with device(tmp_path / "state", state) as made:
        yield made


@pytest.fixture
def hands(agent: Supervisor, monkeypatch: pytest.MonkeyPatch) -> Hands:
    """The runner of every slot."""
    noted = Hands()
    monkeypatch.setattr(agent, "_runner", lambda _: noted)
    return noted


def refuse(*_: Any) -> None:
    """What a disk that takes nothing does."""
    raise Unfit("disk-full", "no room")


def set_to(agent: Supervisor, phase: str) -> None:
    """The slot works on an order whose deadlines are more than the record can hold, as an older agent may have taken it."""
    agent.ledger.store(agent.record.with_slot("main", Slot(phase, target=ENDLESS, order=5, deadline=tick() + 99)))


def test_a_number_too_large_to_keep_ends_the_order(agent: Supervisor, hands: Hands) -> None:
    """A trial whose end does not fit into the record: what is committed runs, the order fails by name, once, the agent goes on."""
    set_to(agent, "install")
    agent.composure.handle(("main", Done("install", 5, tick())))
    assert agent.record.slots["main"].phase == "rollback" and hands.told[-1] == Run(None)
    agent.composure.handle(("main", Ran(None)))
    slot = agent.record.slots["main"]
    assert slot.last and (slot.phase, slot.last.verdict, slot.last.reason) == ("idle", "rolled-back", "internal")
    agent.composure.handle(("main", Tick(tick())))
    assert len(slot.outbox) == agent.record.counters["internal_errors"] == 1


def test_a_start_that_cannot_be_kept_ends_the_order_too(agent: Supervisor, hands: Hands) -> None:
    """After a restart the same order must not end the agent at once again, and what is committed must run."""
    set_to(agent, "fetch")
    agent.composure.handle(("main", Restarted(tick())))
    slot = agent.record.slots["main"]
    assert slot.last and (slot.phase, slot.last.verdict, slot.last.reason) == ("idle", "failed", "internal")
    assert hands.told == [Run(None)]


@pytest.mark.parametrize("news", [Lost(BUILD.release, 0, "load-failed"), Ailing(BUILD, "crashed:SIGKILL")])
def test_what_is_kept_runs_while_the_disk_refuses(
    agent: Supervisor, hands: Hands, monkeypatch: pytest.MonkeyPatch, news: Lost | Ailing
) -> None:
    """The committed model cannot run and that cannot be saved: the one before it runs, and is committed once the disk recovers."""
    kept = replace(BUILD, release="b" * 64, version=2)
    agent.ledger.store(agent.record.with_slot("main", Slot(current=BUILD, previous=kept, order=5)))
    with monkeypatch.context() as refusing:
        refusing.setattr(agent.folder, "save", refuse)
        agent.composure.handle(("main", news))
        assert (agent.record.slots["main"].current, hands.told) == (BUILD, [Run(kept)])
    monkeypatch.setattr(type(agent.ledger), "ready", True)
    agent.composure.go_on()
    assert (agent.record.slots["main"].current, hands.told[1:]) == (kept, [Run(kept)])


PARTED = Target(7, "run", "r1", BUILD, conditions=Conditions(barrier="b"))


@pytest.mark.parametrize("disk", ["takes it", "refuses it at first"])
def test_a_candidate_that_falls_at_the_barrier_is_not_started_again(
    agent: Supervisor, hands: Hands, monkeypatch: pytest.MonkeyPatch, disk: str
) -> None:
    """Whatever order it waits under by now: what is committed runs, and its own order ends."""
    old = replace(BUILD, release="b" * 64, version=2)
    agent.ledger.store(agent.record.with_slot("main", Slot("proven", old, target=PARTED, order=9, deadline=tick() + 99)))
    if disk != "takes it":
        with monkeypatch.context() as refusing:
            refusing.setattr(agent.folder, "save", refuse)
            agent.composure.handle(("main", Fallen(BUILD, "crashed:SIGKILL")))
        assert (agent.record.slots["main"].phase, hands.told) == ("proven", [Run(old)])
        monkeypatch.setattr(type(agent.ledger), "ready", True)
        agent.composure.go_on()
    else:
        agent.composure.handle(("main", Fallen(BUILD, "crashed:SIGKILL")))
    slot = agent.record.slots["main"]
    assert (slot.phase, slot.failure[0]) == ("rollback", "crashed:SIGKILL")
    assert {one for one in hands.told if isinstance(one, Run)} == {Run(old)}


@pytest.mark.parametrize("phase", ["idle", "install", "trial"])
def test_a_committed_model_that_falls_is_started_again(agent: Supervisor, hands: Hands, phase: str) -> None:
    """It is no failure of anything, but a crash is counted; while a candidate is coming nothing is put in its way."""
    committed, other = replace(BUILD, release="b" * 64), Slot(phase, target=ENDLESS, order=5, deadline=tick() + 99)
    agent.ledger.store(agent.record.with_slot("main", replace(other, current=committed)))
    agent.composure.handle(("main", Fallen(committed, "crashed:SIGKILL", "words")))
    assert agent.record.slots["main"].phase == phase and agent.record.counters["worker_crashes"] == 1
    assert hands.told == ([] if phase == "trial" else [Run(committed)])


def test_a_worker_that_counts_nonsense_ends_no_order(agent: Supervisor, hands: Hands) -> None:
    """Counts beyond all numbers are the worker's; what the slot works on goes on."""
    set_to(agent, "fetch")
    before = agent.record.slots
    agent.composure.handle(("main", Collected(BUILD, b"x", 10**30, 10**30)))
    assert agent.record.slots == before and not hands.told


def test_documents_that_raise_are_counted(agent: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of the HTTPS side that break the reader: counted, and the agent goes on."""
    monkeypatch.setattr(agent.intake, "take", lambda *_: 1 / 0)
    agent.composure.handle(Found((("root", b"x"),)))
    agent.composure.handle("connected")
    assert agent.record.counters["internal_errors"] == 1


def runnable(folder: StateFolder, **limits: int) -> Runnable:
    """A model that is no model; the worker is asked to load it all the same."""
    path = folder.objects / "skeleton"
    path.write_bytes(b"no model")
    bounds = replace(Limits(64 << 20, 1000, 1000), **limits)
    return Runnable("main", "m", 1, "a" * 64, path, folder.objects, {}, None, None, "any", bounds)


@pytest.mark.parametrize("where", ["load", "call"])
def test_no_worker_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Limits no wait can take, for loading and for the calls after it: whatever is raised, the process that was started is gone."""
    folder, before = StateFolder(tmp_path), psutil.Process().children()
    folder.create()
    limits = {"load_ms": HUGE} if where == "load" else {"call_ms": HUGE}
    monkeypatch.setattr(builds, "runnable", lambda *_: runnable(folder, **limits))
    if where == "call":  # a worker that says it has loaded this
        receive = Channel.receive
        monkeypatch.setattr(Channel, "receive", lambda self: (receive(self), ({"phase": "call"}, []))[1])
    with contextlib.closing(Vacancy([])) as vacancy:
        runner = SlotRunner("main", folder, [], vacancy, "any", lambda _: None, 1.0)
        with pytest.raises(Unfit, match="OverflowError"):
            runner._proving.proved(BUILD)
    assert set(psutil.Process().children()) <= set(before)


def test_a_retained_order_that_was_taken_away_is_no_refused_message(agent: Supervisor) -> None:
    """Zero bytes on `dn/desired` are how a broker says that nothing is retained any more; elsewhere they are nonsense."""
    for noun, refused in (("desired", 0), ("doc", 1)):
        agent.hearing.message(topics.down(agent.record.trust.device, noun), b"")
        assert agent.record.counters.get("refused_message", 0) == refused


STEPS = {
    "deadlines": ("composure", "go_on"), "gates": ("gates", "news"), "wants": ("downloads", "wants"), "birth": ("voice", "birth"),
    "upkeep": ("upkeep", "look"), "mending": ("mending", "look"), "pointers": ("pointers", "show"), "counts": ("ledger", "settle"),
    "reports": ("voice", "speak"),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_stumbles_costs_that_step(agent: Supervisor, hands: Hands, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """What comes round with time: one step that raises is counted and left out, all others are taken, and the agent goes on."""
    set_to(agent, "fetch")
    agent._born, agent.composure.missed = -99.0, True
    taken: list[str] = []
    for name, (room, call) in STEPS.items():
        answer = (lambda *_: 1 / 0) if name == step else (lambda *_, name=name: (taken.append(name), ())[1])
        monkeypatch.setattr(getattr(agent, room), call, answer)
    agent._timers()
    assert agent.record.counters["internal_errors"] == 1 and set(taken) == STEPS.keys() - {step}


def test_a_slot_that_cannot_be_revived_costs_no_other(agent: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two slots are due; the first raises, the second runs again all the same."""
    told: list[str] = []
    monkeypatch.setattr(agent.revival, "due", lambda states: ["aux", "main"])
    monkeypatch.setattr(agent, "_run_committed", lambda name: told.append(name) if name == "main" else 1 / 0)
    agent._timers()
    assert told == ["main"] and agent.record.counters["internal_errors"] == 1


def test_a_birth_that_stumbles_is_said_again(agent: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager answers births with orders: one that could not be said is not forgotten."""
    monkeypatch.setattr(agent.voice, "birth", lambda _: 1 / 0)
    agent.composure.handle("connected")
    assert agent.composure.missed and agent.record.counters["internal_errors"] == 1
