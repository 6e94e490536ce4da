"""What a person at the device sees: `edgeops-agent status`, `logs` and `doctor` on a folder as enrolment and orders leave it."""

import contextlib
import datetime
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeops.wire.envelope import digest_of
from edgeops_agent.cli import main
from edgeops_agent.core.record import Record
from edgeops_agent.core.slot import Build, Outcome, Slot, Target
from edgeops_agent.shell import doctor, live, surroundings
from edgeops_agent.shell.credentials import Pair, keep_pair
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.finding import Finding
from edgeops_agent.shell.identity import Paths, own_signer
from edgeops_agent.shell.logbook import MOST_BYTES, Logbook
from edgeops_agent.shell.logline import Line
from edgeops_agent.shell.reach import keep_site

from .conftest import Paper

ONE = Build("1" * 64, "int8", "digits", 1)
TWO = replace(ONE, release="2" * 64, version=2)
TARGET = Target(7, "run", "r-1", TWO)
SLOT = Slot("trial", ONE, None, TARGET, order=7, last=Outcome(6, "r-0", ONE.release, "committed"))
DAY = datetime.timedelta(days=1)


@dataclass
class Device:
    """An enrolled device's folder, with nobody at its manager's address."""

    folder: StateFolder
    record: Record

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([words[0], "--state", str(self.folder.root), *words[1:]])
        return code, out.getvalue(), err.getvalue()

    def answer(self, *words: str) -> Any:
        """The JSON object of one command."""
        return json.loads(self.run(*words, "--json")[1])

    def found(self) -> dict[str, Finding]:
        """The doctor's findings."""
        return {one.check: one for one in doctor.examine(self.folder.root, time.time())}


@pytest.fixture
def device(tmp_path: Path, paper: Paper, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A whole folder; the looks at the machine around it take no time."""
    folder = StateFolder(tmp_path / "state")
    folder.create()
    folder.prepare()
    site = paper.site(1, mqtt=("mqtts://127.0.0.1:1",), https=("https://127.0.0.1:1",))
    keep_site(folder, site)
    record = Record(replace(paper.trust, site_version=1), {"main": SLOT}, sites=(digest_of(site, "site"),))
    own_signer(Paths(folder.root))
    certify(folder, -10 * DAY, 20 * DAY)
    for _ in range(2):
        folder.save(record)
    folder.keep(record)
    monkeypatch.setattr(surroundings, "machine", lambda _root: iter(()))
    return Device(folder, record)


def certify(folder: StateFolder, begins: datetime.timedelta, ends: datetime.timedelta) -> None:
    """Give the device a certificate that begins and ends so long from now."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pi-01")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now + begins).not_valid_after(now + ends).sign(key, hashes.SHA256())
    )  # fmt: skip
    keep_pair(Paths(folder.root), Pair(key, made))


@contextlib.contextmanager
def running(device: Device, **more: Any) -> Iterator[None]:
    """As if an agent ran."""
    said = {"pid": 4711, "since": time.time() - 7300, "agent": "1.0", "manager": {"connected": True, "url": "mqtts://one:8883"}}
    lively = live.Live(device.folder.root, lambda: {**said, **more})
    lively.open()
    try:
        yield
    finally:
        lively.close()


def test_status_says_what_runs_and_what_is_going_on(device: Device) -> None:
    """One look tells the device, its agent, its link, its certificate, and each slot."""
    (device.folder.root / "endpoint.json").write_text('{"http": "http://127.0.0.1:8000", "unix": "/run/x.sock", "pid": 4711}')
    with running(device, slots={"main": {"worker": 4712, "confined": {"memory": True, "network": False}}}):
        code, out, err = device.run("status")
        told = device.answer("status")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "device       pi-01 of fleet berlin, incarnation 1, newest order 0"
    assert "running for 2 hours, process 4711, version 1.0" in out and "connected to mqtts://one:8883" in out
    assert "http://127.0.0.1:8000, /run/x.sock" in out and "19 days left" in out and "free" in out
    assert "confined     memory, NOT network" in lines
    row = next(line.split() for line in lines if line.startswith("main"))
    assert row == ["main", "digits:1", "int8", "trial", "digits:2", "–", "–", "–"]
    assert told["running"] and told["slots"]["main"]["worker"] == 4712 and told["slots"]["main"]["at"] == "digits:2"


def test_status_of_an_agent_that_does_not_run(device: Device) -> None:
    """It says so, still tells what it would run, and that is no failure of the command."""
    code, out, _ = device.run("status")
    assert code == 0 and "not running; start it" in out and "digits:1" in out and "connected" not in out
    assert device.answer("status")["running"] is False


def test_status_of_a_folder_without_a_device(tmp_path: Path) -> None:
    """It says how to get one."""
    device = Device(StateFolder(tmp_path / "none"), None)  # type: ignore[arg-type]
    code, out, err = device.run("status", "--json")
    assert code == 2 and "edgeops-agent enroll TOKEN" in err and json.loads(out)["error"]["reason"] == "not-enrolled"


@pytest.mark.parametrize("length", [20, 200])
def test_an_agent_is_asked_whatever_the_length_of_its_path(tmp_path: Path, length: int) -> None:
    """A socket's address has room for about a hundred bytes; a folder's path may be longer."""
    root = tmp_path / ("x" * length)
    root.mkdir()
    assert live.ask(root) is None
    answering = live.Live(root, lambda: {"pid": 1})
    answering.open()
    try:
        assert live.ask(root) == {"pid": 1} == live.ask(root)
        assert (root / "live.sock").stat().st_mode & 0o777 == 0o600
    finally:
        answering.close()
    assert live.ask(root) is None and not (root / "live.sock").exists()


def test_a_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    """The next agent answers."""
    for number in (1, 2):
        answering = live.Live(tmp_path, lambda number=number: {"pid": number})
        answering.open()
        assert live.ask(tmp_path) == {"pid": number}


def fill(device: Device, count: int = 9) -> None:
    """Some lines, the older half an hour old."""
    book, now = Logbook(device.folder.root), time.time()
    for number in range(count):
        age, level = (3600 if number < count // 2 else 1), ("warn" if number % 3 == 0 else "info")
        assert book.take(Line(now - age, level, "link" if number % 2 else "update", f"line {number}", {"number": number}))


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ((), range(9)), (("-n", "3"), (6, 7, 8)), (("-n", "0"), ()), (("--since", "10m"), range(4, 9)),
        (("--level", "warn"), (0, 3, 6)), (("--level", "warn", "-n", "1"), (6,)), (("--event", "link"), (1, 3, 5, 7)),
    ],
)  # fmt: skip
def test_logs_shows_what_was_asked_for(device: Device, words: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    """Of the lines that fit, the newest come last."""
    fill(device)
    code, out, err = device.run("logs", *words)
    assert (code, err) == (0, "")
    assert [int(line.rsplit(" ", 1)[1]) for line in out.splitlines()] == list(numbers)
    assert [json.loads(line)["number"] for line in device.run("logs", *words, "--json")[1].splitlines()] == list(numbers)


@pytest.mark.parametrize("words", [("--since", "soon"), ("--since", "1"), ("-n", "-1"), ("-n", "x"), ("--level", "loud")])
def test_logs_says_what_it_does_not_understand(device: Device, words: tuple[str, str]) -> None:
    """Wrong arguments are misuse."""
    with pytest.raises(SystemExit, match="2"), contextlib.redirect_stderr(io.StringIO()):
        main(["logs", *words])


def test_logs_without_a_log(device: Device) -> None:
    """No agent has run here yet: that is said, with where it was looked for."""
    code, _, err = device.run("logs")
    assert code == 2 and "no-log" in err and str(device.folder.root) in err


def test_logs_follows(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    """What is said while somebody looks is shown, until he has seen enough."""
    fill(device, 2)
    seen: list[str] = []
    came = threading.Event()

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            seen.append(text)
            came.set()
            if "enough" in text:
                raise KeyboardInterrupt
            return len(text)

    def speak() -> None:
        came.wait(10)
        Logbook(device.folder.root).take(Line(time.time(), "info", "update", "enough"))

    speaking = threading.Thread(target=speak)
    speaking.start()
    with contextlib.redirect_stdout(Screen()):
        assert main(["logs", "-f", "-n", "1", "--state", str(device.folder.root)]) == 130
    speaking.join()
    told = [text for text in seen if text.strip()]
    assert len(told) == 2 and "line 1" in told[0] and "enough" in told[1]


def test_a_healthy_folder_gives_the_doctor_no_work(device: Device) -> None:
    """But for its manager, which is not there: that is said for each address, and what to do."""
    found = device.found()
    bad = {name: one for name, one in found.items() if one.level != "ok"}
    assert bad.keys() == {"https 127.0.0.1:1", "mqtt 127.0.0.1:1"}
    assert all(one.level == "fail" and "network" in one.advice for one in bad.values())
    assert found["record a"].detail == "save 1, whole" and found["record b"].detail == "save 2, whole"


def test_the_doctor_ends_with_five_when_something_fails(device: Device) -> None:
    """In JSON the findings, for people a table and what to do."""
    code, out, err = device.run("doctor")
    assert (code, err) == (5, "") and "what to do" in out and "https 127.0.0.1:1" in out
    told = device.answer("doctor")
    assert told["ok"] is False and {"check", "level", "detail", "advice"} == told["findings"][0].keys()


def spoil(path: Path, at: int = 40) -> None:
    """Flip a byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_the_doctor_sees_a_torn_copy(device: Device) -> None:
    """One torn copy is a warning, with none left it fails; a torn keepsake is seen too."""
    check_torn(doctor, device.folder.root)


def check_torn(made: Any, root: Path) -> None:
    """The same, for a copy of the module too."""
    for name in ("a", "b"):
        spoil(root / f"record.{name}")
        found = {one.check: one for one in made.examine(root, time.time())}
        assert found[f"record {name}"].level == "warn" and "torn" in found[f"record {name}"].detail
        assert found["orders"].level == "warn"
    spoil(root / "record.kept")
    found = {one.check: one for one in made.examine(root, time.time())}
    assert found["record"].level == "fail" and "new token" in found["record"].advice


def test_the_doctor_sees_a_torn_keepsake(device: Device) -> None:
    """The third copy counts too."""
    spoil(device.folder.root / "record.kept")
    assert device.found()["keepsake"].level == "warn"


def test_the_doctor_sees_keys_others_may_read(device: Device) -> None:
    """An open key fails, an open folder warns."""
    Paths(device.folder.root).pair.chmod(0o644)
    device.folder.root.chmod(0o755)
    found = device.found()
    assert found["permissions"].level == "fail" and "chmod 600" in found["permissions"].advice
    assert found["folder"].level == "warn"


def test_the_doctor_sees_a_certificate_that_does_not_fit_or_has_ended(device: Device) -> None:
    """Due, over, not begun, damaged: each has a level and a next step."""
    for begins, ends, level in ((-20, 5, "warn"), (-40, -1, "fail"), (2, 9, "warn"), (-1, 29, "ok")):
        certify(device.folder, begins * DAY, ends * DAY)
        found = device.found()["certificate"]
        assert found.level == level and bool(found.advice) == (level != "ok"), found
    path = Paths(device.folder.root).pair
    one = path.read_bytes()
    certify(device.folder, -DAY, DAY)
    path.write_bytes(one[: one.index(b"-----BEGIN CERT")] + path.read_bytes()[path.read_bytes().index(b"-----BEGIN CERT") :])
    assert device.found()["certificate"].level == "fail"


def test_the_doctor_sees_an_identity_that_is_gone(device: Device) -> None:
    """Nothing can be signed without it."""
    Paths(device.folder.root).identity.write_bytes(b"junk")
    assert device.found()["identity"].level == "fail"


def test_the_doctor_sees_a_clock_that_was_never_set(device: Device) -> None:
    """1970, and a clock behind what was signed; the agent gets along, so it is a warning."""
    later = replace(device.record, trust=replace(device.record.trust, time_floor=int(time.time()) + 10**6))
    assert {one.check: one for one in doctor.examine(device.folder.root, 0.0)}["clock"].level == "warn"
    assert device.found()["clock"].level == "ok"
    device.folder.save(later)
    assert device.found()["clock"].level == "warn"


def test_the_doctor_sees_a_disk_without_room(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an update at hand needs, what the next one may need, files that cannot be made, a disk mounted read-only."""
    real = os.statvfs(device.folder.root)

    def found(blocks: int, files: int = 9, flags: int = 0) -> str:
        status = os.statvfs_result((4096, 4096, 10**6, blocks, blocks, 10, files, files, flags, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: status)
        return device.found()["disk"].level

    assert real.f_frsize
    assert [found(10), found(10**6), found(10**6, 0), found(10**6, 9, os.ST_RDONLY)] == ["fail", "ok", "fail", "fail"]
    (device.folder.objects / ("a" * 64)).write_bytes(bytes(1 << 20))
    assert found(2100) == "warn"
    target = replace(TARGET, most_bytes=1 << 30)
    device.folder.save(replace(device.record, slots={"main": replace(SLOT, target=target)}))
    assert found(2100) == "fail"


def test_the_doctor_sees_whether_an_agent_runs(device: Device) -> None:
    """One that answers, one that holds the folder and does not, none; and it puts out neither."""
    assert "does not run" in device.found()["agent"].detail
    with running(device):
        assert device.found()["agent"].detail == "runs, process 4711"
    device.folder.claim()
    found = device.found()["agent"]
    assert found.level == "warn" and str(os.getpid()) in found.detail
    device.folder.release()
    assert device.found()["agent"].level == "ok"


def test_the_doctor_sees_a_log_that_is_not_bounded(device: Device) -> None:
    """More than the agent ever keeps."""
    book = Logbook(device.folder.root)
    book.take(Line(time.time(), "info", "update", "x"))
    assert device.found()["log"].level == "ok"
    book.older.write_bytes(bytes(2 * MOST_BYTES + 1))
    assert device.found()["log"].level == "warn"


def test_the_doctor_sees_that_nobody_can_be_reached(device: Device) -> None:
    """Without a site document there is no address to try."""
    for path in device.folder.documents.iterdir():
        path.unlink()
    assert device.found()["site"].level == "fail"


def test_the_doctor_loads_the_runtime_elsewhere() -> None:
    """What the worker will load is loaded once, in a process of its own."""
    found = surroundings._runtime()
    assert found.level == "ok" and found.detail.startswith("onnxruntime 1.")


def test_the_doctor_tries_what_keeps_a_model_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that confines itself as workers do; what does not hold is said."""
    found = surroundings._confinement()
    assert found.check == "confinement" and "memory" in found.detail
    trial = 'print(\'[{"memory": true, "network": false}, ["this kernel has no Landlock"]]\')'
    monkeypatch.setattr(surroundings, "TRIAL", trial)
    found = surroundings._confinement()
    assert found.level == "warn" and "network" in found.detail and "Landlock" in found.detail and "memory" not in found.detail
    monkeypatch.setattr(surroundings, "TRIAL", "raise SystemExit(1)")
    assert surroundings._confinement().level == "warn"


def test_the_doctor_sees_what_the_owner_has_left_in_vain(tmp_path: Path) -> None:
    """Facts that are none, programs that are none, files that others could change: each by name; no program is run."""
    def found(name: str) -> dict[str, int]:
        check = {"facts.d": surroundings._check_fact, "health.d": surroundings._check_program}[name]
        levels = [one.level for one in surroundings._dropped(name, (tmp_path / name,), check)]
        return {level: levels.count(level) for level in levels}

    for name in ("facts.d", "health.d"):
        assert found(name) == {"ok": 1}
        (tmp_path / name).mkdir(mode=0o755)
        program = tmp_path / name / "program"
        program.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        program.chmod(0o755)
        (tmp_path / name / "good.json").write_text('{"parked": true}')
    assert (found("facts.d"), found("health.d")) == ({"ok": 1}, {"fail": 1, "ok": 1})
    for name, text in (("bad.json", "{"), ("half.json", '{"x": 1.5}'), ("note.txt", "")):
        (tmp_path / "facts.d" / name).write_text(text)
    assert found("facts.d") == {"fail": 3, "ok": 1}
    (tmp_path / "health.d").chmod(0o777)
    (tmp_path / "facts.d" / "program").chmod(0o777)
    assert (found("facts.d"), found("health.d")) == ({"fail": 4, "ok": 1}, {"fail": 1, "ok": 1})
    assert not (tmp_path / "was-run").exists()


def test_the_doctor_changes_nothing(device: Device) -> None:
    """Not one byte, name, mode or time of the folder is another one afterwards."""
    def seen() -> list[tuple[str, int, int, int]]:
        every = [device.folder.root, *sorted(device.folder.root.rglob("*"))]
        return [(str(path), path.stat().st_mode, path.stat().st_size, path.stat().st_mtime_ns) for path in every]

    before = seen()
    device.found()
    assert seen() == before
