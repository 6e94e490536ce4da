"""The systemd units: how little a taken-over agent or manager could do, and that the agent is never given up."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from .confined import allowed, settings
from .conftest import ROOT, need

DEPLOY = ROOT / "deploy"
AGENT, MANAGER = DEPLOY / "edgeops-agent.service", DEPLOY / "edgeops.service"
# what a unit may do on purpose: talk to the network, see the processor, keep the workers' cgroups
LEFT_OPEN = {
    "RestrictAddressFamilies_AF_INET_INET6", "RestrictAddressFamilies_AF_UNIX", "PrivateNetwork", "IPAddressDeny", "Delegate",
    "ProcSubset", "DeviceAllow", "RootDirectoryOrRootImage",
}  # fmt: skip
NEEDED = {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp", "prlimit64", "prctl", "fsync"}
FORBIDDEN = {"mount", "ptrace", "chown", "setuid", "bpf", "reboot", "init_module", "io_uring_setup", "kexec_load", "add_key"}


def security(unit: Path, *more: str) -> str:
    """What systemd-analyze says of a unit."""
    need("systemd-analyze", "systemd")
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", *more, str(unit)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def doors(unit: Path) -> set[str]:
    """What systemd-analyze marks as open."""
    return {one["json_field"] for one in json.loads(security(unit, "--json=short")) if one["exposure"]}


def bricks(unit: str) -> set[str]:
    """Which promises of a unit that is never given up are missing."""
    found = settings(unit)
    wanted = {
        "Restart": "always", "StartLimitIntervalSec": "0", "OOMPolicy": "continue", "SystemCallErrorNumber": "EPERM",
        "StateDirectoryMode": "0700", "KillMode": "mixed",
    }  # fmt: skip
    missing = {name for name, value in wanted.items() if found.get(name) != [value]}
    conditions = found.get("ConditionPathExists", [])
    if not all(condition.startswith("|") for condition in conditions):
        missing.add("ConditionPathExists")  # all of them would have to be there
    if ("notify" in found["Type"]) != ("WatchdogSec" in found):
        missing.add("WatchdogSec")
    return missing


@pytest.mark.parametrize("unit", [AGENT, MANAGER], ids=lambda path: path.stem)
def test_units_are_closed(unit: Path, tell) -> None:
    """Both score at most 2.0 of 10, and what stays open is on the list of what they need."""
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", security(unit))
    tell(f"exposure of {unit.name}, of 10: {exposure}")
    assert float(exposure) <= 2.0
    assert doors(unit) <= LEFT_OPEN


@pytest.mark.parametrize(
    "door",
    [
        "CapabilityBoundingSet", "PrivateUsers", "MemoryDenyWriteExecute", "ProtectControlGroups", "SystemCallFilter",
        "RestrictNamespaces", "ProtectProc", "PrivateDevices",
    ],
)  # fmt: skip
def test_an_open_door_is_noticed(door: str, tmp_path: Path) -> None:
    """Without one of its lines a unit leaves open what it does not need."""
    copy = tmp_path / AGENT.name
    copy.write_text(re.sub(rf"^{door}=.*\n", "", AGENT.read_text(), flags=re.MULTILINE))
    assert doors(copy) - LEFT_OPEN


def test_the_agent_is_never_given_up() -> None:
    """Always restarted, without a limit; the death of a worker is not the unit's; a refused call is an error, not a death."""
    assert not bricks(AGENT.read_text())


@pytest.mark.parametrize(
    ("line", "instead", "missing"),
    [
        ("Restart=always", "Restart=on-failure", "Restart"),
        ("StartLimitIntervalSec=0", "StartLimitIntervalSec=60", "StartLimitIntervalSec"),
        ("OOMPolicy=continue", "OOMPolicy=stop", "OOMPolicy"),
        ("SystemCallErrorNumber=EPERM", "", "SystemCallErrorNumber"),
        ("Exists=|/var/lib/edgeops-agent/record.b", "Exists=/var/lib/edgeops-agent/record.b", "ConditionPathExists"),
        ("UMask=0077", "WatchdogSec=1" if "\nWatchdogSec" not in AGENT.read_text() else "", "WatchdogSec"),
    ],
)
def test_a_unit_that_gives_up_is_noticed(line: str, instead: str, missing: str) -> None:
    """The check itself tells right from wrong."""
    assert line in AGENT.read_text()
    if missing == "WatchdogSec" and not instead:
        line, instead = next(found for found in AGENT.read_text().splitlines() if found.startswith("WatchdogSec")), ""
    assert bricks(AGENT.read_text().replace(line, instead)) == {missing}


def test_what_a_worker_needs_is_let_through() -> None:
    """The filter lets Landlock, limits and durable writes through, on this systemd whose sets may lack them; and no mounts."""
    need("systemd-analyze", "systemd")
    found = allowed(AGENT.read_text())
    assert (NEEDED - found, FORBIDDEN & found) == (set(), set())


def test_the_unit_is_understood(tmp_path: Path) -> None:
    """systemd complains of nothing but of the two keys it may be too old for, and of what is not in an empty root."""
    need("systemd-analyze", "systemd")
    for part in ("usr/lib/systemd/system", "usr/bin"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system" / AGENT.name).write_text(AGENT.read_text() + "Seeded=yes\n")
    (tmp_path / "usr/bin/edgeops-agent").write_text("#!/bin/sh\n")
    (tmp_path / "usr/bin/edgeops-agent").chmod(0o755)
    argv = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", AGENT.name]
    told = subprocess.run(argv, capture_output=True, text=True, check=False).stderr.splitlines()
    surprising = [line for line in told if not re.search("RestartSteps|RestartMaxDelaySec|sysinit.target", line)]
    assert len(surprising) == 1 and "Seeded" in surprising[0]
