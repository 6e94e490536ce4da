"""The demo's core, flown for real on both brokers: processes, TLS, a model in, a model out, a bad one back, a thief kept out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edgeops.cli.local.demo.facts import REAL, Facts, failures
from edgeops.cli.local.demo.flight import Flight
from edgeops.cli.local.demo.stage import Stage

STRAWS = 3
EDGEOPS = str(Path(sys.executable).parent / "edgeops")


@pytest.fixture
def stage(tmp_path: Path, device: Path) -> Iterator[Stage]:
    """A stage whose agents run from the base install; it is cleared afterwards, and no process may outlive its folder."""
    made = Stage(tmp_path, print, device / "bin")
    yield made
    made.close()
    assert not lingering(tmp_path)


def lingering(folder: Path) -> list[str]:
    """Command lines of processes that still work on `folder`."""
    lines = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line and process.pid != os.getpid() and "pytest" not in line:
            lines.append(line)
    return lines


def test_the_core_of_the_demo(stage: Stage, kind: str) -> None:
    """Five enrolled agents commit digits:1 under traffic, serve it, throw digits:3 back, and the broker keeps a thief out.

    Three straws commit with them and are never sent the careless release.
    """
    flight = Flight(stage, 11, print, kind, REAL + STRAWS)
    for step in (flight.manager, flight.first_model, flight.devices, flight.first_rollout, flight.serve):
        step()
    assert flight.health["broker"]["kind"] == kind
    flight.add(2)
    flight.careless_golden()
    assert flight.all_run("digits:1")
    flight.thief_with_a_certificate()
    facts = flight.facts
    assert (facts.devices_enrolled, facts.committed, facts.failed_calls) == (REAL + STRAWS, REAL + STRAWS, 0)
    assert (facts.rolled_back, facts.rollouts_halted) == (1, 1) and "golden-mismatch" in facts.reasons[0]
    assert facts.acl_denied >= 4


def test_a_promise_that_does_not_hold_is_named() -> None:
    """The demo's own check can fail: every promise is broken by facts of a flight that never took off."""
    assert len(failures(Facts())) >= 9
    good = Facts(5, 10, 2, 2, 1, 0, 2, 2, 99, 0, 4, 100, 900, 60.0)
    assert failures(good) == []
    for name, value in (("false_drift_alarms", 1), ("failed_calls", 1), ("acl_denied", 3), ("refused_desired", 1)):
        broken = Facts(**{**{n: getattr(good, n) for n in Facts.__slots__}, name: value})
        assert failures(broken) == [f"{name} = {value}"]


@pytest.mark.parametrize(
    ("sign", "moment", "least"),
    [(signal.SIGINT, "--state pi-03", 4), (signal.SIGTERM, "model add", 2)],
    ids=["enrolling", "forging"],
)
def test_ending_the_demo_ends_everything(tmp_path: Path, sign: signal.Signals, moment: str, least: int) -> None:
    """Ctrl-C while agents enrol, SIGTERM while a model is forged: exit 130, and every process is gone."""
    argv = [EDGEOPS, "demo", "--folder", str(tmp_path), "--json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if moment in line:
            break
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= least
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not lingering(tmp_path) and not [child for child in children if child.is_running()]
    assert json.loads(out)["error"]["exit_code"] == 130 and err.splitlines()[-1] == "interrupted"
