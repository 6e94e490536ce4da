"""A disk that refuses: orders wait or fail by name, the model goes on, nothing half-written stays."""

import resource
import subprocess
import sys

import pytest

from .site import until

pytestmark = [
    pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="limits the files of a running process with prlimit"),
]  # fmt: skip


def test_objects_that_do_not_fit_fail_the_order(site, device):
    """Frames the disk refuses end the order `failed: disk-full`; what ran runs on, and the same release fits once there is room."""
    agent = device(holds="small:1")
    agent.limit_files(200_000)
    site.order(agent.name, "big:1")
    outcome = agent.ended("failed")
    assert (outcome.reason, agent.runs(), agent.serves()) == ("disk-full", "small:1", "small:1")
    until(lambda: not agent.leftovers(), "the leftovers to go")
    until(lambda: site.device(agent.name)["reported"]["main"].get("reason") == "disk-full", "the report")
    agent.limit_files(-1)
    site.order(agent.name, "big:1")
    agent.ended("committed-unproven", "big:1")
    assert agent.serves() == "big:1"


def test_enrolling_on_a_full_disk_does_not_spend_the_token(site, device):
    """The disk is asked before the manager: exit 5, and with room the same token works."""
    agent = device(enroll=False)
    token = site.register(agent.name)
    argv = [sys.executable, "-m", "edgeops_agent.cli", "enroll", token, "--state", str(agent.folder)]
    limit = (1, resource.RLIM_INFINITY)
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    )  # fmt: skip
    assert (done.returncode, "[disk-full]" in done.stderr, "Traceback" in done.stderr) == (5, True, False)
    assert agent.command(*argv[3:]).code == 0


def test_a_record_that_cannot_be_saved_stops_orders_not_the_model(site, device):
    """While no save succeeds no order is acted upon, the model answers and the log says it once; then the order is carried out."""
    agent = device(holds="small:1")
    before = agent.record()
    agent.limit_files(1)
    site.order(agent.name, "small:2")
    until(lambda: "cannot be saved" in agent.log, "the log line")
    assert agent.serves() == "small:1"
    assert agent.record().slots == before.slots
    assert not agent.leftovers()
    agent.limit_files(-1)
    agent.ended("committed-unproven", "small:2")
    assert agent.serves() == "small:2"
    assert agent.log.count("cannot be saved") == 1
    assert agent.log.count("can be saved again") == 1
    until(lambda: site.device(agent.name)["counters"].get("saves_refused", 0) > 0, "the count to be reported")


def test_a_trial_passed_while_the_disk_refuses_is_committed_later(site, device):
    """The end of a trial that cannot be saved is kept in memory and saved once the disk takes it."""
    agent = device(holds="small:1")
    site.order(agent.name, "small:2", trial_s=3)
    until(lambda: agent.main().phase == "trial", "the trial")
    agent.limit_files(1)
    until(lambda: "cannot be saved" in agent.log, "the log line")
    assert (agent.main().phase, agent.runs(), agent.serves()) == ("trial", "small:1", "small:2")
    agent.limit_files(-1)
    agent.ended("committed-unproven", "small:2")


def test_a_device_starts_on_a_disk_that_refuses(device):
    """After a restart on a disk that takes nothing the committed model is served all the same."""
    agent = device(holds="small:1")
    assert agent.end() == 0
    agent.start(files=1)
    until(lambda: agent.serves() == "small:1", "the model")
    assert agent.end() == 0
    assert agent.runs() == "small:1"


def test_a_cut_update_resumes_on_a_disk_that_refuses(site, device):
    """Killed in an update and started on a disk that takes nothing: the committed model serves, the update ends later."""
    agent = device(holds="small:1")
    site.order(agent.name, "small:2", trial_s=5)
    until(lambda: agent.main().phase == "trial", "the trial")
    agent.end(9)
    agent.start(files=1)
    until(lambda: agent.serves() == "small:1", "the committed model")
    assert "cannot be saved" in agent.log
    agent.limit_files(-1)
    agent.ended("committed-unproven", "small:2")


def test_logs_that_cannot_be_written_stop_nothing(site, device):
    """Standard output on a full disk, or closed at the other end, neither ends the agent nor changes its exit code."""
    agent = device(holds="small:1")
    agent.end()
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        agent.start(wait=False, log=full)
    until(lambda: agent.serves() == "small:1", "the model")
    site.order(agent.name, "small:2")
    agent.ended("committed-unproven", "small:2")
    assert agent.end() == 0


def test_a_trial_that_fails_while_the_disk_refuses_goes_back_at_once(site, device):
    """A candidate that dies when nothing can be saved: the committed model answers again, the outcome is told later."""
    agent = device(holds="small:1")
    site.order(agent.name, "small:2", trial_s=30)
    until(lambda: agent.serves() == "small:2", "the candidate to take the calls")
    until(lambda: agent.main().phase == "trial", "the trial")
    agent.limit_files(1)
    for worker in agent.workers():
        worker.kill()
    until(lambda: agent.serves() == "small:1", "the committed model")
    assert agent.main().phase == "trial"
    agent.limit_files(-1)
    assert agent.ended("rolled-back", "small:1").reason == "crashed:SIGKILL"
    assert agent.serves() == "small:1"
