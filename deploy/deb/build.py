"""Builds the agent's .deb: the base install from the lock, vendored beside the agent's own rooms, for one Python of a distribution.

    python deploy/deb/build.py [--python /usr/bin/python3] [--out dist] [--compress xz|gzip|none] [--revision 1]

Needs dpkg-deb. The same tree, lock and Python give the same bytes (SOURCE_DATE_EPOCH, or the date of the last commit).
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from email.parser import Parser
from email.utils import formatdate
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).resolve().parent
OURS = ("edgeops/*.py", "edgeops/py.typed", "edgeops/wire/**/*.py", "edgeops/parcel/**/*.py", "edgeops/sketch/**/*.py",
        "agent/edgeops_agent/**/*.py", "agent/edgeops_agent/py.typed")  # fmt: skip
STRAW = ROOT / "agent" / "edgeops_agent" / "sim"
NO_DEVICE_NEEDS = (
    "bin", "*.dist-info/RECORD", "*.dist-info/REQUESTED", "*.dist-info/INSTALLER", "*.dist-info/direct_url.json", "**/tests",
    "**/*.pyi", "**/*.pxd", "**/*.a", "**/*.h", "numpy/f2py", "numpy/distutils", "numpy/_pyinstaller", "onnxruntime/backend",
    "onnxruntime/datasets", "onnxruntime/quantization", "onnxruntime/tools", "onnxruntime/transformers",
)  # fmt: skip
"""Of the vendored distributions: lists for pip, tests, what compilers and model makers need."""


def main(arguments: list[str] | None = None) -> None:
    """Build one package; prints its path, sizes and distributions."""
    parser = argparse.ArgumentParser("build.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="/usr/bin/python3", help="the distribution's Python (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the package goes (default: dist)")
    parser.add_argument("--compress", choices=("xz", "gzip", "none"), default="xz", help="xz is smallest and slowest")
    parser.add_argument("--revision", default="1", help="the part of the version after the dash (default: %(default)s)")
    parser.add_argument("--maintainer", default="edgeops maintainers <maintainers@edgeops.invalid>", help="who answers for it")
    options = parser.parse_args(arguments)
    if shutil.which("dpkg-deb") is None:
        raise SystemExit("error: dpkg-deb is missing; build on Debian or Ubuntu, or: apt install dpkg")
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch())
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="edgeops-deb-") as made:
        package = Package(Path(made) / "root", options.python, options.revision, options.maintainer)
        package.fill()
        options.out.mkdir(parents=True, exist_ok=True)
        target = options.out / f"edgeops-agent_{package.version}_{package.architecture}.deb"
        # in the order of names: dpkg switches `launch` to a new version when all of that version is in place
        run("dpkg-deb", "--root-owner-group", f"-Z{options.compress}", "--build", package.root, target)
        inside = package.distributions()
        sizes = f"{target.stat().st_size / 1e6:.1f} MB, installed {package.installed_kib() / 1024:.0f} MiB"
        sys.stdout.write(f"{target}: {sizes}, Python {package.minor}, {len(inside)} distributions: {', '.join(inside)}\n")


def run(*argv: object) -> str:
    """Run a program to success; its output."""
    return subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.PIPE, text=True).stdout


def epoch() -> int:
    """The date that all files and the changelog bear."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    return int(run("git", "-C", ROOT, "log", "-1", "--format=%ct"))


def closure(python_version: str) -> dict[str, str]:
    """Names of the base dependencies and of all they need on that Python; the versions are the lock's (this environment's)."""
    environment = {"python_version": python_version, "python_full_version": f"{python_version}.0", "extra": ""}
    waiting = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found: dict[str, str] = {}
    while waiting:
        wanted = Requirement(waiting.pop())
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name not in found and (wanted.marker is None or wanted.marker.evaluate(environment)):
            there = metadata.distribution(name)
            found[name] = there.version
            waiting += there.requires or []
    return found


def locked(names: set[str]) -> str:
    """The lock's entries of these names, with their hashes."""
    entries = re.findall(r"^\S[^\n]*(?:\n[ \t]+[^\n]*)*", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    chosen = {entry: re.split(r"[= ;]", entry)[0] for entry in entries}
    missing = names - set(chosen.values())
    if missing:
        raise SystemExit(f"error: {', '.join(sorted(missing))} not in requirements.lock; lock anew")
    return "\n".join(entry for entry, name in chosen.items() if name in names) + "\n"


TOPS = {"cffi": ("_cffi_backend",), "paho_mqtt": ("paho",), "protobuf": ("google",)}
"""Folders and files that are not named like their distribution."""


class Package:
    """One package on its way; `fill` makes the tree that dpkg-deb packs."""

    def __init__(self, root: Path, python: str, revision: str, maintainer: str) -> None:
        self.root, self.maintainer = root, maintainer
        self.python = str(Path(python).resolve())
        self.minor = run(python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
        self.architecture = run("dpkg", "--print-architecture").strip()
        scope: dict[str, str] = {}
        exec((ROOT / "edgeops" / "__init__.py").read_text(), scope)  # noqa: S102 - our own file, that holds the version
        self.upstream = scope["__version__"]
        self.version = f"{self.upstream}-{revision}"
        self.home = root / "usr" / "lib" / "edgeops-agent" / self.version
        self.site = self.home / "lib" / f"python{self.minor}" / "site-packages"

    def fill(self) -> None:
        """Everything the package holds."""
        self._vendor()
        self._own()
        self._environment()
        self._documents()
        self._compile()
        self._plain()
        self._control()

    def distributions(self) -> list[str]:
        """NAME VERSION of every distribution inside."""
        return [f"{one.metadata['Name']} {one.version}" for one in sorted(
            metadata.distributions(path=[str(self.site)]), key=lambda one: one.metadata["Name"].lower())]  # fmt: skip

    def installed_kib(self) -> int:
        """What the files take, in KiB, as dpkg counts: each file rounded up, one for every folder."""
        return sum(-(-path.lstat().st_size // 1024) if path.is_file() else 1 for path in (self.root / "usr").rglob("*"))

    def _vendor(self) -> None:
        """pip of this environment, run by the distribution's Python, so that the wheels are the ones that Python can load."""
        wanted = self.root.parent / "wanted.txt"
        wanted.write_text(locked(set(closure(self.minor))))
        run(
            sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--require-hashes", "--no-deps",
            "--no-compile", "--only-binary", ":all:", "--root-user-action", "ignore", "--target", self.site, "-r", wanted,
        )  # fmt: skip
        for pattern in NO_DEVICE_NEEDS:
            for path in sorted(self.site.glob(pattern)):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.exists():
                    path.unlink()

    def _own(self) -> None:
        """The agent and the three rooms it shares with the manager; straw devices and all of the manager stay at home."""
        for path in (path for pattern in OURS for path in sorted(ROOT.glob(pattern)) if STRAW not in path.parents):
            target = self.site / path.relative_to(ROOT / "agent" if path.is_relative_to(ROOT / "agent") else ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        about = self.site / f"edgeops-{self.upstream}.dist-info"
        about.mkdir()
        fields = [("Metadata-Version", "2.4"), ("Name", "edgeops"), ("Version", self.upstream), ("Summary", project["description"]),
                  ("License-Expression", project["license"]), ("Requires-Python", project["requires-python"])]  # fmt: skip
        fields += [("Requires-Dist", each) for each in project["dependencies"]]
        (about / "METADATA").write_text("".join(f"{name}: {value}\n" for name, value in fields))

    def _environment(self) -> None:
        """A virtual environment of the distribution's Python: the workers, which it starts, are in it too. And what starts it."""
        (self.home / "bin").mkdir()
        (self.home / "bin" / "python3").symlink_to(self.python)
        home = Path(self.python).parent
        (self.home / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\nversion = {self.minor}\n")
        launch = self.home.parent / "launch"
        launch.write_text((PARTS / "launch").read_text().replace("@VERSION@", self.version))
        (self.root / "usr" / "bin").mkdir(parents=True)
        (self.root / "usr" / "bin" / "edgeops-agent").symlink_to("../lib/edgeops-agent/launch")
        for source, target in (
            (ROOT / "deploy" / "edgeops-agent.service", "usr/lib/systemd/system/edgeops-agent.service"),
            (PARTS / "sysusers.conf", "usr/lib/sysusers.d/edgeops-agent.conf"),
            (PARTS / "tmpfiles.conf", "usr/lib/tmpfiles.d/edgeops-agent.conf"),
            (PARTS / "default", "etc/default/edgeops-agent"),
            (PARTS / "lintian-overrides", "usr/share/lintian/overrides/edgeops-agent"),
        ):
            (self.root / target).parent.mkdir(parents=True)
            shutil.copyfile(source, self.root / target)

    def _documents(self) -> None:
        """Licences, what changed, the manual page, and how to run it."""
        place = self.root / "usr" / "share" / "doc" / "edgeops-agent"
        place.mkdir(parents=True)
        licences = map(self._licence, sorted(self.site.glob("*.dist-info")))
        (place / "copyright").write_text((PARTS / "copyright").read_text() + "".join(licences))
        shutil.copyfile(ROOT / "docs" / "device.md", place / "device.md")
        changes = f"  * edgeops {self.upstream}, built from its repository.\n\n -- {self.maintainer}  {formatdate(epoch())}\n"
        squeeze(place / "changelog.Debian.gz", f"edgeops-agent ({self.version}) unstable; urgency=medium\n\n{changes}")
        manual = self.root / "usr" / "share" / "man" / "man1"
        manual.mkdir(parents=True)
        squeeze(manual / "edgeops-agent.1.gz", (PARTS / "edgeops-agent.1").read_text())

    def _licence(self, about: Path) -> str:
        """One paragraph on a vendored distribution: its licence by its own words, and where its text lies."""
        told = Parser().parsestr((about / "METADATA").read_text())
        if told["Name"] == "edgeops":
            return ""
        name, short = about.name.split("-")[0], told["License-Expression"] or told["License"].splitlines()[0]
        texts = {path for each in ("LICEN[CS]E*", "licenses/**/*", f"../{name}/LICENSE*") for path in about.glob(each)}
        where = sorted(self._installed(path.parent.resolve() / path.name) for path in texts if path.is_file())
        files = [f"{self._installed(self.site)}/{each}*" for each in sorted({name, *TOPS.get(name, ())})]
        return "\n".join((
            "", f"Files: {' '.join(files)}", f"Copyright: the authors of {told['Name']}",
            f"License: {re.sub(r'[^A-Za-z0-9.+-]+', '-', short)}", f" {told['Name']} {told['Version']}, {short}. The text is in:",
            *(f"  {path}" for path in where or ["/usr/share/common-licenses/Apache-2.0"]), "",
        ))  # fmt: skip

    def _installed(self, path: Path) -> str:
        return f"/{path.relative_to(self.root)}"

    def _compile(self) -> None:
        """Bytecode comes with the package: dpkg syncs what it unpacks, and a device's root may be read-only."""
        os.environ["PYTHONHASHSEED"] = "0"  # -I would ignore it; constant sets are written in the order of their hashes
        run(self.python, "-s", "-P", "-m", "compileall", "-q", "-j1", "--invalidation-mode", "unchecked-hash",
            "-s", self.root, "-p", "/", self.site)  # fmt: skip

    def _plain(self) -> None:
        """Modes that do not tell who built it; the dates are dpkg-deb's doing, which allows none after SOURCE_DATE_EPOCH."""
        programs = {self.home.parent / "launch"}
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path in programs else 0o644)

    def _control(self) -> None:
        place = self.root / "DEBIAN"
        place.mkdir()
        files = sorted(path for part in ("etc", "usr") for path in (self.root / part).rglob("*"))
        sums = [(path, hashlib.md5(path.read_bytes(), usedforsecurity=False)) for path in files if _is_plain(path)]
        (place / "md5sums").write_text("".join(f"{sum.hexdigest()}  {path.relative_to(self.root)}\n" for path, sum in sums))
        (place / "conffiles").write_text("/etc/default/edgeops-agent\n")
        fields = {
            "version": self.version, "architecture": self.architecture, "maintainer": self.maintainer,
            "size": self.installed_kib(), "python": self.minor, "glibc": self._glibc(),
        }  # fmt: skip
        (place / "control").write_text((PARTS / "control").read_text().format(**fields))
        for name in ("postinst", "prerm", "postrm"):
            shutil.copyfile(PARTS / name, place / name)
            (place / name).chmod(0o755)

    def _glibc(self) -> str:
        """The least C library that all vendored wheels load on: the newest of the oldest each of them was built for."""
        least = []
        for wheel in self.site.glob("*.dist-info/WHEEL"):
            tags = [tuple(map(int, found)) for found in re.findall(r"manylinux_(\d+)_(\d+)_", wheel.read_text())]
            least += [min(tags)] if tags else []
        return ".".join(map(str, max(least)))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def squeeze(path: Path, text: str) -> None:
    """Write a .gz that bears no date and no name."""
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
