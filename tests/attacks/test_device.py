"""The same vectors against the whole supervisor on a real disk, and ten thousand changed documents that may not even scratch it."""

from pathlib import Path

import pytest

from edgeops_agent.core.slot import Tick
from edgeops_agent.shell.disk import StateFolder

from ..conftest import Score
from . import vectors
from .device import device, offer
from .mutations import case_of, mutants

CASES = {case["id"]: case for case in vectors.load() if case["kind"] != "pin"}


@pytest.mark.parametrize("name", CASES)
def test_a_device_makes_of_it_what_it_must(name: str, tmp_path: Path, score: Score) -> None:
    """Attacks are counted with their reason, leave nothing on disk and start nothing; honest documents are on disk afterwards."""
    case = CASES[name]
    with device(tmp_path / "state", case["state"]) as agent:
        found = offer(agent, case)
        assert vectors.agrees(found, case), case["story"]
    # What the disk says once the agent has ended is what a power cut would have left.
    assert StateFolder(tmp_path / "state").load().trust == agent.record.trust
    if case["attack"]:
        assert not list((tmp_path / "state" / "objects").iterdir())
        score.refused(name, (case["expect"]["refused"] or [case["expect"]["slots"]["main"][1]])[-1])
    else:
        score.accepted(name)


def test_changed_documents_bounce_off_a_device(tmp_path: Path, score: Score) -> None:
    """Every changed document in turn on one device: all refused, trust and slots as before; an honest order is then taken."""
    state = CASES["order"]["state"]
    tried = 0
    with device(tmp_path / "state", state) as agent:
        before = (agent.record.trust, agent.record.slots)
        for said, made in mutants():
            found = offer(agent, case_of(made))
            assert found.refused, said
            assert (agent.record.trust, agent.record.slots) == before, said
            tried += 1
        assert vectors.agrees(offer(agent, CASES["order"]), CASES["order"])
    score.mutants(tried, tried)


def test_slow_retrieval_ends(tmp_path: Path, score: Score) -> None:
    """A source that trickles without end is given up at the deadline of the fetch, with a named outcome; what ran goes on."""
    case = CASES["order"]
    with device(tmp_path / "state", case["state"]) as agent:
        offer(agent, case)
        slot = agent.record.slots["main"]
        assert slot.phase == "fetch" and slot.deadline > 0
        agent.composure.handle(("main", Tick(slot.deadline)))
        ended = agent.record.slots["main"].last
    assert ended and (ended.verdict, ended.reason) == ("failed", "fetch-deadline")
    score.refused("slow-retrieval", ended.reason)
