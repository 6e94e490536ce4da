"""The stage of hostile models: a real manager, one real agent with the good model, clients that never stop calling it.

Native models need an operator that ONNX Runtime does not have: their agent runs from a copy of its package whose session registers
one; the product has no such switch.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgeops.cli.remote.releases import upload
from edgeops.forge.pack import Folder, write_release
from edgeops.forge.sign import sign_release
from edgeops.manager.setup import load_signer
from edgeops.parcel.manifest import Manifest
from edgeops.wire import canonical, envelope, topics
from edgeops.wire.desired import Desired
from edgeops.wire.envelope import digest_of, seal
from edgeops.wire.fields import Fields
from edgeops.wire.messages import Bundle
from edgeops.wire.release import Release, Tensor, Variant
from edgeops_agent.client import Client
from tests.agent.real.site import Agent, Site, until

from .models import LINK, WEIGHTS, Crafted, Hostile, X, evil, good

SOURCE = Path(__file__).parents[3] / "agent" / "edgeops_agent"
QUIET = "    options.log_severity_level = 4\n"
TRIAL = {"window_s": 3, "load_ms": 4000, "call_ms": 1000, "memory_bytes": 256 << 20}
ROLLBACK_S = 10.0
PATIENCE_S = 120.0
TRIES = 3
PAUSE_S = 0.02
ALONE = threading.Lock()
"""Held while versions are given, and while an agent is enrolled, which changes this process for a moment."""
MOST_GROWTH = 48 << 20
Patch = tuple[str, str, str]
"""One line of a copy: (module of the shell, what stands there, what is put there)."""


class NoCompiler(Exception):
    """Nothing here makes native code."""


def tampered(folder: Path, *patches: Patch, native: bool = True) -> Path:
    """A copy of the agent's package to put before the real one; with native operators registered where asked for."""
    place = folder / "copy"
    shutil.copytree(SOURCE, place / "edgeops_agent", ignore=shutil.ignore_patterns("__pycache__"))
    shell = place / "edgeops_agent" / "shell"
    if native:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise NoCompiler("no C compiler is installed: apt install gcc")
        library, source = shell / "evil.so", Path(__file__).with_name("evil.c")
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-lpthread"], check=True, capture_output=True)
        patches = (("session", QUIET, f"{QUIET}    options.register_custom_ops_library({str(library)!r})\n"), *patches)
    for module, old, new in patches:
        path = shell / f"{module}.py"
        text = path.read_text()
        assert text.count(old) == 1, f"{module}.py has {text.count(old)} times: {old}"
        path.write_text(text.replace(old, new))
    return place


@dataclass
class Clients:
    """Two that call the model over TCP and the Unix socket, one call after the other, each on a connection of its own."""

    agent: Agent
    failed: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    answered: dict[str, dict[int, float]] = field(default_factory=lambda: {"tcp": {}, "unix": {}})
    over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to call."""
        for way, call in {"tcp": self._tcp, "unix": self._unix}.items():
            threading.Thread(target=self._go, args=(way, call), daemon=True).start()

    def _go(self, way: str, call: Callable[[], tuple[int, Any]]) -> None:
        while not self.over.wait(PAUSE_S):
            began = time.monotonic()
            try:
                version, y = call()
            except Exception as error:  # whatever a client may meet
                self.failed.append((began, f"{way}: {type(error).__name__}: {error}"))
                continue
            self.answered[way][version] = time.monotonic()
            if version == 1 and not np.allclose(y, X @ WEIGHTS, atol=1e-4):
                self.wrong.append(f"{way}: {y}")

    def _tcp(self) -> tuple[int, Any]:
        tensor = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.agent.port, timeout=5)) as connection:
            connection.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [tensor]}))
            reply = connection.getresponse()
            answer = json.loads(reply.read())
        if reply.status != 200:
            raise RuntimeError(str(answer)[:200])
        return int(answer["model_version"]), np.array(answer["outputs"][0]["data"])

    def _unix(self) -> tuple[int, Any]:
        """The version is not told in this way's answers, so it is asked for."""
        with Client(str(self.agent.folder / "run.sock"), "m", timeout=5) as client:
            y = client.infer({"x": X})["y"].ravel()
        return 1 if np.allclose(y, X @ WEIGHTS, atol=1e-4) else 0, y

    def answers_since(self, moment: float) -> bool:
        """Whether the good model has answered on both ways after `moment`."""
        return all(self.answered[way].get(1, 0.0) > moment for way in ("tcp", "unix"))


@dataclass(frozen=True)
class Row:
    """How one hostile model ended."""

    id: str
    phase: str
    verdict: str
    reason: str
    seconds: float
    failed_calls: int
    problems: tuple[str, ...]

    def line(self) -> str:
        """For the table."""
        text = f"{self.id:<28} {self.phase:<10} {self.verdict:<12} {self.reason:<18} {self.seconds:5.1f} s {self.failed_calls:7}"
        return text + "".join(f"\n    {problem}" for problem in self.problems)


@dataclass
class Scene:
    """One agent that runs the good model; `play` orders a hostile one and says what came of it."""

    site: Site
    folder: Path
    name: str
    code: Path | None = None
    version: int = 0
    kept: dict[str, dict[str, bytes]] = field(default_factory=dict)
    agent: Agent = field(init=False)
    clients: Clients = field(init=False)

    def open(self) -> None:
        """Enrol, start, commit the good model, let the clients call."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.agent = Agent(self.site, self.name, self.folder / self.name)
        with ALONE:
            self.agent.enroll()
            self.start()
            if 1 not in self._released:
                self.release(good(), 1)
        self.order(1, {"window_s": 0})
        until(lambda: self.agent.runs() == "m:1", f"the good model; log: {self.agent.log[-1500:]}")
        self.clients = Clients(self.agent)
        self.clients.start()
        until(lambda: self.clients.answers_since(0), f"the good model to answer; {self.clients.failed[-3:]}")

    @property
    def _released(self) -> set[int]:
        return {int(name.partition(":")[2]) for name in self.site.released if name.startswith("m:")}

    def start(self) -> None:
        """Run the agent, from the copy where there is one."""
        (self.folder / "safe").mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EVIL_FOLDER", str(self.folder / "safe"))
            patch.setenv("EVIL_STATE", str(self.agent.folder))
            patch.setenv("EVIL_PORT", str(self.agent.port or 9))
            if self.code is not None:
                patch.setenv("PYTHONPATH", f"{self.code}:{os.environ.get('PYTHONPATH', '')}")
            self.agent.start()

    def close(self) -> None:
        """End everything."""
        if hasattr(self, "clients"):
            self.clients.over.set()
        if self.agent.process is not None:
            self.agent.process.kill()
            self.agent.process.wait()

    def release(self, made: Crafted, version: int) -> str:
        """Put a release together by hand, past every gate of the forge, sign it with the fleet's release key, upload it."""
        folder = Folder(self.folder / f"release-{version}")
        skeleton, vectors = folder.put(made.file), folder.put(made.golden.encode())
        manifest = Manifest(skeleton, (), vectors)
        side = folder.put(manifest.encode())
        variant = Variant(("any",), {}, side, side.size + manifest.size)
        tensors = (Tensor("x", "float32", (-1, 4)),), (Tensor("y", "float32", (-1, 3)),)
        write_release(folder, Release("berlin", "model", "m", version, 1, *tensors, 9, 17, "1.16", {"fp32": variant}, {}))
        sealed = sign_release(folder.root, [load_signer(self.site.root / "keys" / "release.key")])
        upload(self.site.api, sealed, lambda digest: (folder.objects / digest).read_bytes(), lambda size: None)
        self.site.released.add(f"m:{version}")
        return digest_of(sealed, "release")

    def order(self, version: int, trial: Mapping[str, int]) -> None:
        """A rollout to this device."""
        body = {
            "model": "m", "version": version, "to": f"name={self.name}", "waves": "1", "policy": {"dwell_s": 0},
            "trial": {**TRIAL, **trial},
        }  # fmt: skip
        until(lambda: self.site._started(body), "the rollout before to settle")

    def order_again(self, digests: Sequence[str]) -> Iterator[str]:
        """Every one of these orders once more, each under the next number and signed with the fleet's online key: all must be
        refused as known to be bad. The manager's own count is behind the device's afterwards."""
        signer = load_signer(self.site.root / "keys" / "online.key")
        with self.site.thief() as put:
            for digest in digests:
                documents, last = self.kept[digest], None
                for _ in range(TRIES):  # the manager, which counts too, may have been faster
                    counter = self.agent.record().trust.counter
                    said = Desired.parse(_read(documents["desired"]))
                    sealed = seal("desired", replace(said, counter=counter + 1).payload(), [signer])
                    put(topics.down(self.name, "desired"), Bundle(tuple({**documents, "desired": sealed}.items())).encode())
                    with contextlib.suppress(AssertionError):
                        last = until(lambda known=counter, name=digest: self._ended(known, name), "its end", ROLLBACK_S)
                        break
                if last is None or (last.verdict, last.reason) != ("rolled-back", "known-bad"):
                    yield f"{digest[:8]} ordered again: {last}"

    def _ended(self, counter: int, digest: str) -> Any:
        slot = self.agent.record().slots["main"]
        over = slot.phase == "idle" and slot.order > counter and slot.last is not None and slot.last.release == digest
        return slot.last if over else None

    def play(self, hostile: Hostile) -> Row:
        """Order it; wait for its end; look at everything it might have hurt."""
        made = hostile.make()
        with ALONE:
            self.version = max(self._released) + 1
            digest = self.release(made, self.version)
        before, began = Vitals.of(self), time.monotonic()
        with self._planted():
            self.order(self.version, {"window_s": 1, **hostile.trial} if hostile.phase == "committed" else hostile.trial)
            self.kept[digest] = until(lambda: self._order_of(digest), "the order")
            found = self._watch(digest, hostile)
        problems = [*found.problems(hostile), *self._answers(found), *before.differences(Vitals.of(self))]
        failed = [(at, why) for at, why in list(self.clients.failed) if at >= began]
        untouched = [why for at, why in failed if hostile.phase == "load" or at < found.tried]
        if untouched:
            problems.append(f"{len(untouched)} calls failed while it took none, as {untouched[0]}")
        return Row(hostile.id, hostile.phase, found.last.verdict, found.last.reason, found.seconds, len(failed), tuple(problems))

    def orphan(self) -> Row:
        """A model that closes every descriptor and asks to outlive its parent, which is then killed: it must go too, and the next
        start of the agent finds all as it was.
        """
        with ALONE:
            self.version = max(self._released) + 1
            self.release(evil("outlive", 0), self.version)
        self.order(self.version, {"call_ms": 60_000})
        bare = until(self._bare, "a worker that has closed everything")
        began = time.monotonic()
        self.agent.end(signal.SIGKILL)
        problems = []
        try:
            until(lambda: not bare.is_running() or bare.status() == psutil.STATUS_ZOMBIE, "its end", ROLLBACK_S)
        except AssertionError:
            problems.append("it lives on without the agent")
            bare.kill()
        seconds, moment = time.monotonic() - began, time.monotonic()
        with ALONE:
            self.start()
        until(lambda: self.clients.answers_since(moment), "the good model to answer")
        return Row("outlive@load", "load", "killed", "-", seconds, 0, tuple(problems))

    def _bare(self) -> psutil.Process | None:
        """The worker that holds nothing but its standard streams."""
        with contextlib.suppress(psutil.Error, OSError):
            return next((child for child in self.agent.workers() if child.num_fds() <= 3 and child.cpu_times().user > 0.2), None)
        return None

    def _order_of(self, digest: str) -> dict[str, bytes] | None:
        """The documents of the newest order, as the manager keeps them; None when it names another release."""
        with contextlib.closing(sqlite3.connect(f"file:{self.site.root / 'edgeops.db'}?mode=ro", uri=True)) as store:
            (sealed,) = store.execute("SELECT desired FROM devices WHERE id = ?", (self.name,)).fetchone()
            wish = Desired.parse(_read(sealed)).slots["main"] if sealed else None
            if wish is None or wish.release != digest:
                return None
            named = {"release": wish.release, "stream": wish.stream}
            asked = {kind: f"SELECT envelope FROM {kind}s WHERE digest = ?" for kind in named}
            found = {kind: store.execute(asked[kind], (name,)).fetchone() for kind, name in named.items()}
        return {**{kind: row[0] for kind, row in found.items() if row}, "desired": sealed}

    def _watch(self, digest: str, hostile: Hostile) -> "Found":
        """Follow the record until the good model is back. A committed one reaches its limit with the last of its crashes."""
        tried, limit, crashes = 0.0, 0.0, self.agent.record().counters.get("worker_crashes", 0)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            record, now = self.agent.record(), time.monotonic()
            slot = record.slots["main"]
            mine = slot.target is not None and slot.target.build is not None and slot.target.build.release == digest
            if mine and slot.phase == "trial" and not tried:
                tried = limit = now
            if hostile.phase == "committed" and record.counters.get("worker_crashes", 0) > crashes:
                crashes, limit = record.counters["worker_crashes"], now
            over = mine and slot.phase == "idle" and slot.last is not None and slot.last.release == digest
            if over and (hostile.phase != "committed" or (slot.current is not None and slot.current.version == 1)):
                return Found(tried or now, limit or now, now, slot.last)
            time.sleep(0.01)
        raise AssertionError(f"{hostile.id} did not end; {self.agent.main()}; log: {self.agent.log[-1500:]}")

    def _answers(self, found: "Found") -> Iterator[str]:
        """Wait until the good model answers on both ways again."""
        over = found.ended
        with contextlib.suppress(AssertionError):
            until(lambda: self.clients.answers_since(over), "answers", ROLLBACK_S)
        found.ended = time.monotonic()
        for way, answered in self.clients.answered.items():
            if answered.get(1, 0.0) <= over:
                yield f"the good model does not answer over {way}: {self.clients.failed[-1:]}"
        while self.clients.wrong:
            yield f"a wrong answer over {self.clients.wrong.pop()}"

    @contextlib.contextmanager
    def _planted(self) -> Iterator[None]:
        """A link out of the objects' folder, as no release can make one."""
        link = self.agent.folder / "objects" / LINK
        with contextlib.suppress(FileExistsError):
            link.symlink_to("/etc/passwd")
        yield
        link.unlink(missing_ok=True)


def _read(sealed: bytes) -> Fields:
    return Fields.of(canonical.decode(envelope.split(sealed, "desired")[0], "desired"), "desired")


@dataclass
class Found:
    """When it was first tried, from when on it had to end, when the good model was back (monotonic seconds); its outcome."""

    tried: float
    limit: float
    ended: float
    last: Any

    @property
    def seconds(self) -> float:
        """From the begin of the trial, or from the last crash of what was committed, until the good model is back."""
        return self.ended - self.limit

    def problems(self, hostile: Hostile) -> Iterator[str]:
        """What is wrong with this end."""
        allowed = hostile.limit_s + (TRIAL["window_s"] if hostile.phase == "trial" else 0) + ROLLBACK_S
        if self.last.reason not in hostile.reasons:
            yield f"ended for {self.last.reason}: {self.last.detail[:300]}"
        if hostile.says not in self.last.detail:
            yield f"does not say {hostile.says!r}: {self.last.detail[:300]}"
        if self.last.verdict != ("failed" if hostile.phase == "committed" else "rolled-back"):
            yield f"ended {self.last.verdict}"
        if self.seconds > allowed:
            yield f"took {self.seconds:.1f} s, {allowed:g} are allowed"


@dataclass(frozen=True)
class Vitals:
    """What of the supervisor and the machine a model might reach."""

    pid: int
    alive: bool
    memory: int
    limits: tuple[Any, ...]
    nice: int
    mode: int
    written: tuple[str, ...]
    children: int
    strangers: int

    @staticmethod
    def of(scene: Scene) -> "Vitals":
        """As it is now."""
        process = scene.agent.process
        assert process is not None
        alive = process.poll() is None
        supervisor = psutil.Process(process.pid) if alive else psutil.Process()
        limits = tuple(supervisor.rlimit(kind) for kind in (psutil.RLIMIT_CPU, psutil.RLIMIT_AS))
        written = tuple(sorted(path.name for path in (scene.folder / "safe").iterdir()))
        mine = f"EVIL_FOLDER={scene.folder / 'safe'}".encode()
        return Vitals(
            process.pid, alive, supervisor.memory_info().rss, limits, supervisor.nice(),
            stat.S_IMODE(scene.agent.folder.stat().st_mode), written, len(supervisor.children(recursive=True)),
            _strangers(mine, process.pid),
        )  # fmt: skip

    def differences(self, after: "Vitals") -> Iterator[str]:
        """What has changed to the worse."""
        if not after.alive:
            yield "the agent is dead"
        for name in ("pid", "limits", "nice", "mode", "written"):
            if getattr(self, name) != getattr(after, name):
                yield f"{name}: {getattr(self, name)} before, {getattr(after, name)} after"
        if after.memory - self.memory > MOST_GROWTH:
            yield f"the supervisor grew by {(after.memory - self.memory) >> 20} MiB"
        if after.children > 1 or after.strangers > 0:
            yield f"{after.children} children and {after.strangers} others are left"


def _strangers(mark: bytes, agent: int) -> int:
    """Processes that carry the agent's environment and are neither it nor its children."""
    found = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == agent or process.ppid() == agent or process.pid == os.getpid():
                continue
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                found += 1
    return found


def sweep(mark: bytes) -> None:
    """End what has escaped from a copy with a bug, by its id."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                process.send_signal(signal.SIGKILL)
