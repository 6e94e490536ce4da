"""The agent's .deb: what is inside and what is not, the same bytes each time, and that its command is its own."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from .conftest import ROOT, Package, make

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = """
import importlib, importlib.metadata, importlib.util, json, pkgutil, sys
import edgeops_agent.shell.supervisor
light = "onnxruntime" not in sys.modules and "numpy" not in sys.modules
for found in pkgutil.walk_packages(edgeops_agent.__path__, "edgeops_agent."):
    importlib.import_module(found.name)
print(json.dumps({
    "names": sorted(one.metadata["Name"].lower() for one in importlib.metadata.distributions()),
    "there": [name for name in sys.argv[1:] if importlib.util.find_spec(name)],
    "rooms": sorted({name.split(".")[1] for name in sys.modules if name.startswith("edgeops.")}),
    "providers": __import__("onnxruntime").get_available_providers(), "path": sys.path, "light": light,
}))
"""


def run(*argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to its end."""
    told = {**os.environ, **environment}
    return subprocess.run([str(word) for word in argv], env=told, capture_output=True, text=True, check=False, timeout=60)


def control(package: Package) -> dict[str, str]:
    """The control fields."""
    told = run("dpkg-deb", "-f", package.file).stdout
    return dict(re.findall(r"^([A-Z][\w-]+): (.*(?:\n .*)*)", told, re.MULTILINE))


def test_the_same_tree_gives_the_same_bytes(package: Package, tmp_path: Path) -> None:
    """Built again elsewhere, in another time zone, language and with other permissions for new files: not one byte differs."""
    before = os.umask(0o077)
    try:
        again = make(tmp_path / "again", TZ="Asia/Tokyo", LC_ALL="C.UTF-8", TMPDIR=str(tmp_path))
    finally:
        os.umask(before)
    assert again.name == package.file.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(package.file.read_bytes()).digest()


def test_the_control_fields_are_true(package: Package, tell) -> None:
    """Name, version, machine, the one Python it was made for, and a size that is the files' own."""
    fields = control(package)
    machine, minor = run("dpkg", "--print-architecture").stdout.strip(), package.site.parent.name
    version = re.search(r'__version__ = "(.+)"', (ROOT / "edgeops" / "__init__.py").read_text())
    assert version is not None
    assert (fields["Package"], fields["Architecture"]) == ("edgeops-agent", machine)
    assert fields["Version"] == f"{version[1]}-1"
    assert re.match(rf"{re.escape(minor)}, libc6 \(>= 2\.\d+\), ", fields["Depends"])
    assert len(fields["Description"].splitlines()) > 3
    files = [path for path in package.root.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    assert 0 < int(fields["Installed-Size"]) * 1024 - size < 1024 * (len(files) + len(list(package.root.rglob("*/"))))
    tell(f"agent's .deb: {size / 2**20:.0f} MiB installed, {len(files)} files")


def test_every_file_has_its_checksum(package: Package, tmp_path: Path) -> None:
    """md5sums names every file and is right, so that `dpkg --verify` finds a damaged one."""
    run("dpkg-deb", "-e", package.file, tmp_path / "control")
    sums = dict(reversed(line.split("  ")) for line in (tmp_path / "control" / "md5sums").read_text().splitlines())
    plain = [path for path in package.root.rglob("*") if path.is_file() and not path.is_symlink()]
    files = {str(path.relative_to(package.root)): path for path in plain}
    assert sums.keys() == files.keys()
    assert all(hashlib.md5(files[name].read_bytes()).hexdigest() == found for name, found in sums.items())
    assert (tmp_path / "control" / "conffiles").read_text() == "/etc/default/edgeops-agent\n"


def test_the_device_has_what_it_needs_and_nothing_of_the_manager(package: Package) -> None:
    """At most 12 distributions; every module of the agent loads, with wire, parcel and sketch only; the supervisor stays light."""
    asked = {each for group in PROJECT["optional-dependencies"].values() for each in group}
    extras = {re.split(r"[<>=\[ ]", each)[0].lower() for each in asked} - {"edgeops"}
    modules = [*(name.replace("-", "_") for name in extras), "edgeops.manager", "edgeops.cli", "edgeops.forge", "edgeops_agent.sim"]
    done = run(package.python, "-I", "-c", ASKED, *modules)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    base = {re.split(r"[<>=]", each)[0].lower() for each in PROJECT["dependencies"]}
    assert len(found["names"]) <= 12 and base <= set(found["names"]) and not set(found["names"]) & extras
    assert (found["there"], found["rooms"]) == ([], ["parcel", "sketch", "wire"])
    assert found["light"] and "CPUExecutionProvider" in found["providers"]
    standard = {path for path in found["path"] if "site-packages" not in path and "dist-packages" not in path}
    assert set(found["path"]) - standard == {str(package.site)}


def test_bytecode_comes_along_and_is_not_asked_for_its_source(package: Package) -> None:
    """Every module has its .pyc, valid whatever date its source bears: nothing is ever written on the device."""
    for source in package.site.rglob("*.py"):
        (cached,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        assert cached.read_bytes()[4:8] == b"\x01\0\0\0"  # PEP 552: by hash, unchecked


def test_all_libraries_find_theirs(package: Package) -> None:
    """Every shared object resolves within the package or in the C and C++ runtimes that it depends on."""
    outside = set()
    names = ("c.so.6", "m.so.6", "dl.so.2", "pthread.so.0", "rt.so.1", "gcc_s.so.1", "stdc++.so.6", "z.so.1")
    known = {f"lib{name}" for name in names}
    for library in package.site.rglob("*.so*"):
        told = run("ldd", library).stdout
        assert "not found" not in told, (library, told)
        outside |= {line.split()[0] for line in told.splitlines() if "=>" in line and str(package.root) not in line}
    assert outside <= known


def test_the_command_runs_as_unpacked(package: Package, tmp_path: Path) -> None:
    """--version says the version; status on an empty folder ends with 2 and names it; by itself it looks where the unit does."""
    assert run(package.command, "--version").stdout == f"edgeops-agent {control(package)['Version'].split('-')[0]}\n"
    done = run(package.command, "status", "--state", tmp_path)
    assert done.returncode == 2 and str(tmp_path) in done.stderr and "[not-enrolled]" in done.stderr
    assert "/var/lib/edgeops-agent" in run(package.command, "status", "--help").stdout


def test_the_callers_python_does_not_reach_it(package: Package, tmp_path: Path) -> None:
    """Not by PYTHONPATH, PYTHONHOME, the user's own packages or where one stands; nor a worker, which is not isolated itself."""
    own = tmp_path / ".local" / "lib" / package.site.parent.name / "site-packages"
    own.mkdir(parents=True)
    for name in ("edgeops", "edgeops_agent", "json", "onnxruntime"):
        for folder in (tmp_path, own):
            (folder / f"{name}.py").write_text("raise SystemExit('taken over')\n")
    told = {name: str(tmp_path) for name in ("PYTHONPATH", "PYTHONHOME", "HOME")} | {"PYTHONUSERBASE": str(tmp_path / ".local")}

    def command(*argv: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env={**os.environ, **told}, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = command(package.command, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    worker = tmp_path / "launch"  # the same environment, started the way the supervisor starts a worker
    launch = package.command.resolve()
    text = launch.read_text().replace('"$(dirname "$(readlink -f "$0")")', f'"{launch.parent}')
    text = text.replace("-I -m edgeops_agent.cli", "-P -m edgeops_agent.shell.worker")
    worker.write_text(text)
    done = command("sh", worker, "--help")
    assert done.returncode == 0 and "--control" in done.stdout, done.stderr
    worker.write_text(text.replace("unset PYTHONHOME PYTHONPATH", ":"))
    assert command("sh", worker, "--help").returncode != 0


def test_an_upgrade_cut_anywhere_leaves_a_whole_agent(package: Package, tmp_path: Path) -> None:
    """dpkg puts files in place in the archive's order: all of a version's own folder, then the one file that chooses it."""
    listed = run("dpkg-deb", "-c", package.file).stdout.splitlines()
    mine = [line.split(" ./", 1)[1] for line in listed if line.startswith("-") and "./usr/lib/edgeops-agent/" in line]
    version, old = control(package)["Version"], package.site.parents[2]
    assert mine[-1] == "usr/lib/edgeops-agent/launch"
    assert {name.split("/")[3] for name in mine[:-1]} == {version} == {old.name}
    launch, new = tmp_path / "launch", tmp_path / "99-1"  # a device's folder between the two moments
    (tmp_path / version).symlink_to(old)
    new.symlink_to(old)
    shutil.copy(package.command.resolve(), launch)
    before = run("sh", "-x", launch, "--version")
    launch.write_text(launch.read_text().replace(version, new.name))
    (tmp_path / version).unlink()  # dpkg removes what the new version has not last
    after = run("sh", "-x", launch, "--version")
    assert (before.returncode, after.returncode) == (0, 0)
    assert f"/{version}/bin/python3" in before.stderr and f"/{new.name}/bin/python3" in after.stderr


SCRIPTS = {
    "upgrade": [("prerm", "upgrade", "0.1.0-2"), ("postrm", "upgrade", "0.1.0-2"), ("postinst", "configure", "0.1.0-1")],
    "remove": [("prerm", "remove"), ("postrm", "remove")],
    "purge": [("prerm", "remove"), ("postrm", "remove"), ("postrm", "purge")],
    "install": [("postinst", "configure", "")],
}


@pytest.mark.parametrize(
    ("way", "kept", "called"),
    [
        ("install", True, {"systemd-sysusers edgeops-agent.conf", "deb-systemd-helper enable edgeops-agent.service",
                           "deb-systemd-invoke start edgeops-agent.service"}),
        ("upgrade", True, {"deb-systemd-invoke restart edgeops-agent.service"}),
        ("remove", True, {"deb-systemd-invoke stop edgeops-agent.service"}),
        ("purge", False, {"deb-systemd-helper purge edgeops-agent.service"}),
    ],
)  # fmt: skip
def test_only_a_purge_removes_what_the_device_is(way: str, kept: bool, called: set[str], package: Package, tmp_path: Path) -> None:
    """The maintainer scripts, run with recorders in the place of what they call: keys and models stay until they are purged."""
    state, tools, running = tmp_path / "state", tmp_path / "tools", tmp_path / "running"
    for folder in (state, tools, running):
        folder.mkdir()
    (state / "identity.key").write_text("the only one")
    for name in ("systemd-sysusers", "systemctl", "deb-systemd-helper", "deb-systemd-invoke", "install"):
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n')
        (tools / name).chmod(0o755)
    run("dpkg-deb", "-e", package.file, tmp_path / "control")
    for script, *arguments in SCRIPTS[way]:
        text = (tmp_path / "control" / script).read_text()
        here = text.replace("/var/lib/edgeops-agent", str(state)).replace("/run/systemd/system", str(running))
        done = run("sh", "-c", here, script, *arguments, PATH=f"{tools}:/usr/bin:/bin")
        assert done.returncode == 0, (script, done.stderr)
    assert (state / "identity.key").exists() == kept
    assert called <= set((tmp_path / "called").read_text().splitlines())
