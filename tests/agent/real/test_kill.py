"""Killed at any moment: no worker outlives its agent, the next start serves a proved model, no counter goes back."""

import random
import time

import psutil
import pytest

from edgeops_agent.core.slot import WORKING

from .site import until

pytestmark = pytest.mark.real


def kill(agent):
    """SIGKILL the agent, and only the agent; its workers must go by themselves."""
    family = agent.workers()
    agent.end(9)
    until(lambda: not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], "the workers to end", 5)


def counters(record):
    """What must never go back."""
    trust, slot = record.trust, record.slots.get("main")
    numbers = (trust.counter, trust.command, trust.site_version, trust.floor_version, record.report_seq, slot.order if slot else 0)
    return (*numbers, *(record.counters.get(name, 0) for name in ("refused_desired", "refused_blocks")))


def test_killed_in_every_phase(site, device):
    """SIGKILL as soon as a phase is reached (some last a millisecond), once more in the recovery; the order still ends well."""
    agent = device(holds="small:1")
    releases = ["small:2", "small:1"]
    for phase in ("fetch", "verify", "install", "trial"):
        release = releases[0]
        site.order(agent.name, release, trial_s=1)
        agent.watch(lambda slot, least=WORKING.index(phase): slot.phase in WORKING[least:])
        before = counters(agent.record())
        kill(agent)
        running = agent.runs()
        agent.start()
        assert until(agent.serves, "a model") in (running, release)
        if phase == "trial":
            kill(agent)
            agent.start()
        agent.ended("committed-unproven", release)
        assert all(now >= then for now, then in zip(counters(agent.record()), before, strict=True))
        assert agent.serves() == release
        releases.reverse()


def test_killed_while_rolling_back(site, device):
    """SIGKILL in the rollback of a release that fails its trial: the model before it serves, the order has its outcome."""
    agent = device(holds="small:1")
    site.order(agent.name, "small:2", trial_s=20)
    agent.watch(lambda slot: slot.phase == "trial")
    until(lambda: agent.serves() == "small:2", "the candidate to take the calls")
    for worker in agent.workers():
        worker.kill()
    agent.watch(lambda slot: slot.phase == "rollback")
    kill(agent)
    agent.start()
    outcome = agent.ended("rolled-back")
    assert outcome.reason == "crashed:SIGKILL"
    assert (until(agent.serves, "a model"), agent.runs()) == ("small:1", "small:1")


def test_killed_at_random_moments(site, device):
    """Five kills at random moments of one update after another: always a proved model, never two workers, never a counter back."""
    rng, agent = random.Random(3), device(holds="small:1")
    last = counters(agent.record())
    for turn in range(5):
        if agent.main().phase not in WORKING:
            site.order(agent.name, ("small:2", "small:1")[agent.runs() == "small:2"], trial_s=1)
        time.sleep(rng.uniform(0, 1.2))  # the moment is the point
        kill(agent)
        agent.start()
        now = counters(agent.record())
        assert all(new >= old for new, old in zip(now, last, strict=True)), (turn, last, now)
        last = now
        assert until(agent.serves, "a model", 10) in ("small:1", "small:2")
    until(lambda: agent.main().phase == "idle", "rest")
    until(lambda: agent.serves() == agent.runs(), "the committed model to serve")
    assert len(agent.workers()) == 1


def test_a_worker_killed_again_and_again_comes_back(device):
    """When memory is short the system kills workers: each death is counted, and a device with one model never gives it up."""
    agent = device(holds="small:1")
    for _ in range(5):
        [worker] = until(agent.workers, "a worker", 20)
        until(lambda: agent.serves() == "small:1", "the model")
        worker.kill()
        worker.wait(10)
    until(lambda: agent.serves() == "small:1", "the model")
    assert agent.end() == 0
    record = agent.record()
    assert (agent.runs(), record.counters["worker_crashes"]) == ("small:1", 5)
    assert record.slots["main"].last.verdict == "committed-unproven"
