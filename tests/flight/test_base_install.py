"""The base install is a device's: small, and without anything of the manager."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

from .conftest import ROOT, command

LOADED = """
import importlib, json, pkgutil, sys
import edgeops_agent
for found in pkgutil.walk_packages(edgeops_agent.__path__, "edgeops_agent."):
    importlib.import_module(found.name)
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "edgeops")))
"""


def test_every_module_of_the_agent_loads_only_the_shared_rooms(device: Path) -> None:
    """All of edgeops_agent imports on a base install, and brings in nothing of edgeops but wire, parcel and sketch."""
    loaded = json.loads(command(device / "bin" / "python", "-c", LOADED).splitlines()[-1])
    assert {name.split(".")[1] for name in loaded if "." in name} == {"wire", "parcel", "sketch"}


def names_of(requirements: list[str]) -> set[str]:
    """Distribution names of requirement lines."""
    return {re.split(r"[<>=\[]", line)[0].lower() for line in requirements}


def test_no_package_of_the_manager_is_installed(device: Path) -> None:
    """None of the manager's dependencies comes with the base install."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = json.loads(command(device / "bin" / "python", "-m", "pip", "list", "--format", "json"))
    there = {one["name"].lower() for one in listed}
    assert names_of(wanted["dependencies"]) <= there
    extra = set().union(*map(names_of, wanted["optional-dependencies"].values()))
    assert "onnx" in extra and not there & (extra - {"edgeops", "setuptools"})


def test_the_managers_command_says_what_to_install(device: Path) -> None:
    """`edgeops` on a base install prints the one command that brings the rest, and exits 2."""
    done = subprocess.run([device / "bin" / "edgeops", "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'edgeops[manager]'" in done.stderr and not done.stdout
    assert "enroll" in command(device / "bin" / "edgeops-agent", "--help")
