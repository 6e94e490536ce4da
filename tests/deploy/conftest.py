"""The agent's package, built once from this tree and unpacked; and what must be on the machine for the tests on it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = "usr/lib/edgeops-agent/*/lib/python3.*/site-packages"


def need(program: str, package: str) -> None:
    """A program of the machine: fails on CI, skips elsewhere, where it is missing."""
    if shutil.which(program) is None:
        reason = f"{program} is missing: apt install {package}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@dataclass(frozen=True)
class Package:
    """A built package: the file, and its files unpacked below a folder of ours."""

    file: Path
    root: Path

    @property
    def command(self) -> Path:
        """`edgeops-agent` as installed."""
        return self.root / "usr" / "bin" / "edgeops-agent"

    @property
    def site(self) -> Path:
        """Where the distributions lie."""
        (found,) = self.root.glob(SITE_PACKAGES)
        return found

    @property
    def python(self) -> Path:
        """The environment's own Python."""
        return self.site.parents[2] / "bin" / "python3"


def make(out: Path, *more: str, **environment: str) -> Path:
    """Run the builder as `make deb` does, but without compression, which only takes time; the package."""
    argv = [sys.executable, str(ROOT / "deploy" / "deb" / "build.py"), "--out", str(out), "--compress", "none", *more]
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = out.glob("*.deb")
    return found


def unpack(file: Path, root: Path) -> Package:
    """Unpack, as dpkg would below `root`, without running anything of it."""
    subprocess.run(["dpkg-deb", "-x", str(file), str(root)], check=True)
    return Package(file, root)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """The package of this tree for this machine's /usr/bin/python3."""
    need("dpkg-deb", "dpkg")
    need("/usr/bin/python3", "python3")
    argv = ["/usr/bin/python3", "-I", "-c", "import sys; print(*sys.version_info[:2])"]
    minor = tuple(map(int, subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()))
    if not (3, 11) <= minor <= (3, 13):
        pytest.skip(f"/usr/bin/python3 is {minor[0]}.{minor[1]}; edgeops runs on 3.11 to 3.13")
    place = tmp_path_factory.mktemp("deb")
    return unpack(make(place / "out"), place / "root")
