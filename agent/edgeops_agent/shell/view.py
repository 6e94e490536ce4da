"""A look at a running supervisor from another thread, for `edgeops-agent status`: reads whole values, changes nothing."""

import os
import time
from collections.abc import Callable
from typing import Any

from edgeops import __version__

from .ports import Runner
from .supervisor import Supervisor


def view_of(supervisor: Supervisor) -> Callable[[], dict[str, Any]]:
    """What the agent that starts now knows and its record does not."""
    began = time.time()

    def view() -> dict[str, Any]:
        link, clock, waits = supervisor.link, supervisor.clock, supervisor.gates.waits
        manager = {"connected": link.connected, "url": link.way.url if link.way else "", "refused": link.refused, "why": link.why}
        return {
            "pid": os.getpid(), "since": began, "agent": __version__, "now": clock.now(), "sure": clock.sure,
            "manager": manager, "saves_refused": supervisor.ledger.refusals,
            "slots": {name: _seen(runner) | _missing(waits.get(name)) for name, runner in list(supervisor.runners.items())},
        }  # fmt: skip

    return view


def _seen(runner: Runner) -> dict[str, Any]:
    """The worker of a slot, and which confinements it has found to hold."""
    worker = runner.worker
    if worker is None:
        return {"worker": None}
    return {"worker": worker.pid, "confined": dict(worker.confinement), "unconfined": list(worker.unconfined)}


def _missing(terms: tuple[str, ...] | None) -> dict[str, Any]:
    """The conditions that do not hold now, for a slot at a gate."""
    return {} if terms is None else {"waits": list(terms)}
