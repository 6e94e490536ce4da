"""Enrolment with both houses: killed at every point, without a clock, while an operator thinks, while the manager is away."""

import contextlib
import itertools
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from edgeops.api.app import make_app
from edgeops.api.enroll import Strangers
from edgeops.manager import register
from edgeops.manager.hub import Hub, open_hub
from edgeops.manager.register import Wanted
from edgeops.wire.errors import EdgeopsError, Misuse, Rejected, Unreachable
from edgeops.wire.token import Token
from edgeops_agent.core.record import Record
from edgeops_agent.shell import disk, enrolment, identity
from edgeops_agent.shell.disk import StateFolder
from edgeops_agent.shell.enrolment import FIRST_S, MOST_S, Patience, enroll, make_identity

from ..manager.house import Clock, new_manager, seen

NAMES = itertools.count(1)
IN_2096 = 4_000_000_000


@dataclass
class Manager:
    """A manager's HTTPS side, whose clock and certificates are far in the future: to it, every device has no clock."""

    hub: Hub
    url: str

    def token(self, **wanted: Any) -> str:
        """Register a device; its token."""
        return str(register.register(self.hub, "me", f"d-{next(NAMES)}", Wanted({}, **wanted))["token"])

    def incarnation(self, text: str) -> int:
        """How often the device of a token has been enrolled."""
        with self.hub.store.read() as tx:
            return int(register.must_get(tx, Token.decode(text).device)["incarnation"])


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """A manager that answers HTTPS; made in 2096."""
    folder = tmp_path_factory.mktemp("site") / "m"
    new_manager(folder, IN_2096)
    hub = open_hub(folder, Clock(IN_2096))
    app = make_app(hub)
    app.state.strangers = Strangers(lambda: 1e9 * next(NAMES))  # nobody is ever wrong too often here
    config = uvicorn.Config(
        app, ssl_certfile=str(hub.layout.certificate("server")), ssl_keyfile=str(hub.layout.tls_key("server")), log_config=None,
        lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    sock = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    port = sock.getsockname()[1]
    yield Manager(hub.with_settings(replace(hub.settings, https_port=port)), f"https://localhost:{port}")
    server.should_exit = True
    thread.join(10)
    hub.close()


class PowerCut(BaseException):
    """The power goes; nothing in the program catches this."""


def cut_at(patch: pytest.MonkeyPatch, point: int, after: bool) -> list[str]:
    """End the program before or after its `point`-th write or word with the manager; the list says what it did so far."""
    done: list[str] = []

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(*words: Any, **more: Any) -> Any:
            done.append(name)
            if len(done) == point and not after:
                raise PowerCut
            answer = real(*words, **more)
            if len(done) == point and after:
                raise PowerCut
            return answer

        return act

    for module in (disk, identity):
        patch.setattr(module, "write_whole", guarded("write", module.write_whole))
    patch.setattr(enrolment.https, "ask", guarded("ask", enrolment.https.ask))
    patch.setattr(StateFolder, "save", guarded("save", StateFolder.save))
    return done


def test_killed_at_any_point_the_same_command_goes_on(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each write and each word with the manager: the same device, one incarnation, keys that were kept."""
    with monkeypatch.context() as patch:
        steps = cut_at(patch, 10**6, False)
        enroll(manager.token(), tmp_path / "whole")
        count = len(steps)
    assert steps.count("write") >= 4 and steps[-1] == "save"
    for point, after in itertools.product(range(1, count + 1), (False, True)):
        state, text = tmp_path / f"cut-{point}-{after}", manager.token()
        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            cut_at(patch, point, after)
            enroll(text, state)
        before = (state / "identity.key").read_bytes() if (state / "identity.key").exists() else b""
        with contextlib.suppress(Misuse):  # already enrolled: the power went after the last save
            enroll(text, state)
        record = StateFolder(state).load()
        assert (record.trust.incarnation, manager.incarnation(text)) == (1, 1), (point, after)
        assert not before or (state / "identity.key").read_bytes() == before
        assert not list(state.rglob("*.tmp"))


def test_what_enrolment_leaves_is_private(manager: Manager, tmp_path: Path) -> None:
    """Keys and certificate are for the owner alone; the folder too."""
    enroll(manager.token(), tmp_path / "d")
    for name in ("identity.key", "tls.key", "tls.crt", "record.a"):
        assert stat.S_IMODE((tmp_path / "d" / name).stat().st_mode) & 0o077 == 0 or name == "record.a", name
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


def test_a_device_waits_for_an_operator(manager: Manager, tmp_path: Path) -> None:
    """It says whom it waits for and with which fingerprint, asks less and less often, and is let in by the same call."""
    text, said, pauses = manager.token(approval=True), list[str](), list[float]()
    device = Token.decode(text).device

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            register.decide(manager.hub, "me", "granted", seen(manager.hub, device))

    trust = enroll(text, tmp_path / "d", Patience(said.append, pause).wait)
    (waiting,) = said
    assert (trust.device, trust.incarnation, len(pauses)) == (device, 1, 8)
    assert f"edgeops device approve {device}" in waiting and make_identity(tmp_path / "d") in waiting
    assert FIRST_S / 2 <= pauses[0] <= FIRST_S * 1.5 and MOST_S / 2 <= pauses[-1] <= MOST_S * 1.5


def test_a_wait_is_not_lost(manager: Manager, tmp_path: Path) -> None:
    """Interrupted while it waits, the same command goes on with the same key; a rejected device is told so."""
    text = manager.token(approval=True)

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enroll(text, tmp_path / "d", Patience(lambda _: None, interrupt).wait)
    first = make_identity(tmp_path / "d")
    assert reason(lambda: enroll(text, tmp_path / "d")) == "enrolment-pending"
    assert [one["fingerprint"] for one in register.pending(manager.hub) if one["id"] == Token.decode(text).device] == [first]
    assert reason(lambda: enroll(text, tmp_path / "thief")) == "token-refused"
    register.decide(manager.hub, "me", "rejected", seen(manager.hub, Token.decode(text).device))
    assert reason(lambda: enroll(text, tmp_path / "d")) == "enrolment-rejected"


def reason(call: Callable[[], object]) -> str:
    """Why a call fails."""
    with pytest.raises(EdgeopsError) as caught:
        call()
    return caught.value.reason


def test_a_manager_that_restarts_is_waited_for(manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a device waits, an unreachable manager is no end of it; before, it is."""
    text = manager.token(approval=True)
    real, answers = enrolment._ask, iter([None, OSError, OSError, None])

    def ask(*words: Any) -> Any:
        if next(answers):
            raise Unreachable("manager-unreachable", "away")
        return real(*words)

    def pause(_seconds: float) -> None:
        with contextlib.suppress(Misuse):
            register.decide(manager.hub, "me", "granted", seen(manager.hub, Token.decode(text).device))

    monkeypatch.setattr(enrolment, "_ask", ask)
    assert enroll(text, tmp_path / "d", Patience(lambda _: None, pause).wait).incarnation == 1
    monkeypatch.setattr(enrolment, "_ask", lambda *_: (_ for _ in ()).throw(Unreachable("manager-unreachable", "away")))
    assert reason(lambda: enroll(manager.token(), tmp_path / "e", Patience(lambda _: None, pause).wait)) == "manager-unreachable"


def test_a_key_made_at_the_factory(manager: Manager, tmp_path: Path) -> None:
    """The fingerprint is known before the device is: one line without a secret enrols each of them under its own name."""
    prints = {name: make_identity(tmp_path / name) for name in ("x", "y")}
    assert prints == {name: make_identity(tmp_path / name) for name in ("x", "y")}
    names = {}
    for name, found in prints.items():
        names[name] = f"made-{name}-{next(NAMES)}"
        line = str(register.register(manager.hub, "me", names[name], Wanted({}, fingerprint=found))["token"])
    assert reason(lambda: enroll(line, tmp_path / "z")) == "token-refused"
    assert {name: enroll(line, tmp_path / name).device for name in prints} == names


def test_folders_that_are_not_for_agents(manager: Manager, tmp_path: Path) -> None:
    """A manager's folder is refused before anything is written there, and a folder with a damaged key before the token is spent."""
    text = manager.token()
    home = manager.hub.layout.root
    before = sorted(path.name for path in home.iterdir())
    assert reason(lambda: enroll(text, home)) == reason(lambda: make_identity(home)) == "state-folder"
    assert sorted(path.name for path in home.iterdir()) == before
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "identity.key").write_bytes(b"")
    with pytest.raises(Rejected, match="identity-damaged"):
        enroll(text, tmp_path / "d")
    assert enroll(text, tmp_path / "e").incarnation == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"device": "other"}, "wrong-device"), ({"device": "a/b"}, "wrong-device"), ({"incarnation": "x"}, "malformed"),
        ({"certificate": "no"}, "pair-damaged"), ({"root": "{}"}, "malformed"), ({"site": ""}, "not-canonical"),
        ({}, "malformed"),
    ],
)  # fmt: skip
def test_an_answer_is_believed_only_if_it_fits(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], expected: str
) -> None:
    """A manager (or who speaks for it) that answers for another device, key or root enrols nothing."""
    real = enrolment._ask
    with monkeypatch.context() as patch:
        patch.setattr(enrolment, "_ask", lambda *words: (201, (real(*words)[1] | change) if change else {}))
        text = manager.token()
        found = reason(lambda: enroll(text, tmp_path / "d"))
    assert found == expected or (found, expected) == ("root-pin", "not-canonical")
    assert not StateFolder(tmp_path / "d").is_enrolled()
    assert isinstance(enroll(text, tmp_path / "d"), type(Record(enroll(manager.token(), tmp_path / "e")).trust))
