"""Enrolling by hand, with the commands: waiting for an operator, keys from the factory, the wrong folder."""

import contextlib
import json
import shutil
import signal
import stat
import subprocess
import sys

import pytest

from .site import until
from .test_start import refused

pytestmark = pytest.mark.real


def waits(site, name):
    """What the manager says of a device that waits; None for one that does not."""
    return next((one for one in site.api.get("/pending")["pending"] if one["id"] == name), None)


def test_a_device_that_must_be_approved(site, device):
    """It waits and says for whom; Ctrl-C is no harm; approved, the same command ends well and the device comes online."""
    agent = device(enroll=False)
    token = str(site.api.post("/devices", {"id": agent.name, "approval": True})["token"])
    words = ("enroll", token, "--state", str(agent.folder))
    argv = [sys.executable, "-m", "edgeops_agent.cli", *words]
    process = subprocess.Popen(argv, env=site.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        mine = agent.command("identity", "--state", str(agent.folder) + "-other").out.strip()
        waiting = until(lambda: waits(site, agent.name), "the device to wait")
        assert waiting["kind"] == "enrol" and waiting["fingerprint"] in said != mine
        assert f"edgeops device approve {agent.name}" in said
        assert agent.command("identity", "--state", str(agent.folder)).out.strip() == waiting["fingerprint"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    refused(agent.command(*words, "--no-wait"), 4, "enrolment-pending")
    assert agent.command("identity", "--state", str(agent.folder)).out.strip() == waiting["fingerprint"]
    site.edgeops("device", "approve", agent.name)
    assert json.loads(agent.command(*words, "--json").out)["incarnation"] == 1
    agent.start()
    until(lambda: site.device(agent.name)["presence"] == "online", "the device to be online")


def test_devices_from_a_factory(site, device, tmp_path):
    """Keys made before, fingerprints in a CSV, one line without a secret: each device comes in under its own name and works."""
    agents = [device(enroll=False) for _ in range(2)]
    rows = []
    for agent in agents:
        found = json.loads(agent.command("identity", "--state", str(agent.folder), "--json").out)["fingerprint"]
        assert stat.S_IMODE((agent.folder / "identity.key").stat().st_mode) == 0o600
        rows.append(f"{agent.name},{found.upper()},berlin\n")
    (site.folder / "devices.csv").write_text("id,fingerprint,site\n" + "".join(rows))
    made = site.edgeops("device", "register", "--from", "devices.csv")["devices"]
    line = site.edgeops("device", "join-line")["token"]
    assert {one["token"] for one in made} == {line}
    for agent in agents:
        assert json.loads(agent.command("enroll", line, "--state", str(agent.folder), "--json").out)["device"] == agent.name
        agent.start()
        until(lambda agent=agent: site.device(agent.name)["presence"] == "online", "the device to be online")
    refused(device(enroll=False).command("enroll", line, "--state", str(tmp_path / "stranger")), 2, "token-refused")


def test_a_reflashed_device_comes_back_as_the_next_incarnation(site, device, tmp_path):
    """Everything on it is lost: with a new token it is the same device again, one incarnation on."""
    agent = device()
    agent.end()
    token = site.edgeops("device", "token", agent.name)["token"]
    agent.folder = tmp_path / "reflashed"
    assert json.loads(agent.command("enroll", token, "--state", str(agent.folder), "--json").out)["incarnation"] == 2
    agent.start()
    until(lambda: site.device(agent.name)["presence"] == "online", "the device to be online")


def test_a_copied_folder_is_noticed(site, device, tmp_path):
    """The folder of a device is copied to a second machine and both run: quarantine; without the copy, all is well."""
    agent = device(start=False)
    twin = device(enroll=False)
    shutil.copytree(agent.folder, twin.folder)
    for one in (agent, twin):
        one.start()
    until(lambda: site.device(agent.name)["status"] == "clone", "the clone to be noticed")
    twin.end()
    site.edgeops("device", "release-quarantine", agent.name)
    until(lambda: site.device(agent.name)["presence"] == "online", "the device to be heard again")
    assert site.device(agent.name)["status"] == "enrolled"


def test_the_manager_s_folder_is_no_agent_s(site, device):
    """`enroll` and `identity` leave a manager alone, and the token is not spent."""
    agent = device(enroll=False)
    token = site.register(agent.name)
    for words in (("enroll", token), ("identity",)):
        refused(agent.command(*words, "--state", str(site.root)), 2, "state-folder")
    assert agent.command("enroll", token, "--state", str(agent.folder)).code == 0
