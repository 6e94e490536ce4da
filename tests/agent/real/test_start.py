"""Starting where something is wrong: a clear error that names the thing, its exit code, and nothing harmed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import threading
from pathlib import Path

import psutil
import pytest

from edgeops.wire.token import Token

from .site import until

pytestmark = pytest.mark.real


def refused(done, code, reason):
    """The command ended with this exit code and reason, said once, without a traceback."""
    assert done.code == code, done
    assert "Traceback" not in done.err + done.out
    assert f"[{reason}]" in done.err, done
    return done.err


def test_not_enrolled(device, tmp_path):
    """`run` and `status` on an empty, a missing and an impossible folder."""
    agent = device(enroll=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder, reason in (("empty", "not-enrolled"), ("missing", "not-enrolled"), ("file", "state-folder")):
        state = ("--state", str(tmp_path / folder))
        for done in (agent.run(*state), agent.command("status", *state)):
            assert str(tmp_path / folder) in refused(done, 2, reason)
    assert not list((tmp_path / "empty").iterdir())


def test_a_folder_that_cannot_be_made_does_not_spend_the_token(site, device):
    """Enrolling into a folder that cannot be written is refused before the manager is asked: the token still works."""
    agent = device(enroll=False)
    token = site.register(agent.name)
    refused(agent.command("enroll", token, "--state", "/proc/edgeops-agent"), 2, "state-folder")
    assert agent.command("enroll", token, "--state", str(agent.folder)).code == 0
    refused(agent.command("enroll", token, "--state", str(agent.folder)), 2, "already-enrolled")


def test_damaged_files_are_named(device, tmp_path):
    """All copies of the record, the identity key: each error names its file and the way out."""
    agent = device(start=False)
    hurt = ((("record.a", "record.b", "record.kept"), "record-lost"), (("identity.key",), "identity-damaged"))
    for number, (names, reason) in enumerate(hurt):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(agent.folder, copy)
        for name in names:
            (copy / name).write_bytes(b"rubbish" * 100)
        said = refused(agent.run("--port", "0", "--state", str(copy)), 3, reason)
        assert all(str(copy / name) in said for name in names) and "enrol" in said
        for name in names:
            (copy / name).unlink()
        assert agent.run("--port", "0", "--state", str(copy)).code == 2
        assert not (copy / "run.sock").exists()


@pytest.mark.parametrize("names", [("record.a", "record.b"), ("site.json",), ("tls.pem",)], ids=str)
def test_damaged_files_do_not_stop_a_device(site, device, names):
    """Record, site or TLS files of a device that ran before: its model goes on, and it takes its next order unvisited."""
    agent = device(holds="small:1")
    for hurt in (lambda path: path.write_bytes(b"rubbish" * 100), lambda path: path.unlink(missing_ok=True)):
        agent.end()
        for name in names:
            hurt(agent.folder / name)
        agent.start()
        until(lambda: agent.serves() == "small:1", "the last proven model to answer")
        rollout = site.order(agent.name, "small:1")
        until(lambda rollout=rollout: getattr(agent.main().last, "rollout", "") == rollout, "the next order to be carried out")


def test_one_torn_copy_is_enough(device):
    """With either copy of the record damaged the other is taken."""
    agent = device(holds="small:1")
    agent.end()
    for name in ("record.a", "record.b"):
        path = agent.folder / name
        whole = path.read_bytes()
        path.write_bytes(b"\0" * 100 + whole[100:])
        done = agent.command("status", "--state", str(agent.folder), "--json")
        assert json.loads(done.out)["device"] == agent.name
        path.write_bytes(whole)


def test_a_second_agent_on_the_folder(device):
    """A second `run` (or `enroll`) on a folder in use is refused, names the process, and the first serves on over both sockets."""
    agent = device(holds="small:1")
    said = refused(agent.run("--port", "0", "--state", str(agent.folder)), 2, "agent-running")
    assert str(agent.process.pid) in said
    assert agent.serves() == "small:1"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(agent.folder / "run.sock"))
        sock.sendall(b"GET /v2/health/ready HTTP/1.1\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert json.loads((agent.folder / "endpoint.json").read_text())["pid"] == agent.process.pid
    assert agent.command("status", "--state", str(agent.folder)).code == 0


def test_busy_ports_and_sockets(device, tmp_path):
    """A port in use, a socket somebody answers on, a path that is too long or holds something else: refused and left alone."""
    agent = device(start=False)
    words = ("--state", str(agent.folder))
    with socket.create_server(("127.0.0.1", 0)) as busy, socket.socket(socket.AF_UNIX) as other:
        port = str(busy.getsockname()[1])
        assert port in refused(agent.run(*words, "--port", port), 2, "port-busy")
        other.bind(str(tmp_path / "busy.sock"))
        other.listen()
        refused(agent.run(*words, "--port", "0", "--socket", str(tmp_path / "busy.sock")), 2, "socket-busy")
        assert (tmp_path / "busy.sock").is_socket()
    (tmp_path / "precious").write_text("not yours")
    refused(agent.run(*words, "--port", "0", "--socket", str(tmp_path / "precious")), 2, "socket-path")
    assert (tmp_path / "precious").read_text() == "not yours"
    refused(agent.run(*words, "--port", "0", "--socket", str(tmp_path / ("x" * 120))), 2, "socket-path")
    refused(agent.run(*words, "--host", "192.0.2.1", "--port", "0"), 2, "cannot-listen")
    for wrong in ("65536", "-1", "http"):
        assert agent.command("run", *words, "--port", wrong).code == 2
    for wrong in ("0", "-1", "nan", "soon"):
        assert agent.command("run", *words, "--telemetry-s", wrong).code == 2


def test_a_stale_socket_file_is_replaced(device, tmp_path):
    """What a killed agent left lying does not keep the next one from serving."""
    agent = device(start=False)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(agent.folder / "run.sock"))
    agent.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(agent.folder / "run.sock"))
    assert agent.end() == 0
    assert not (agent.folder / "run.sock").exists() and not (agent.folder / "endpoint.json").exists()


def test_leaving_leaves_nothing(device):
    """Ctrl-C and SIGTERM: exit code 0, also with idle clients; no worker, socket file or lock stays."""
    agent = device(holds="small:1")
    for number in (signal.SIGINT, signal.SIGTERM):
        with socket.create_connection(("127.0.0.1", agent.port)):
            family = [psutil.Process(agent.process.pid), *agent.workers()]
            assert agent.end(number) == 0
        assert not [one for one in family if one.is_running()]
        assert not (agent.folder / "run.sock").exists() and not (agent.folder / "endpoint.json").exists()
        agent.start()
        until(lambda: agent.serves() == "small:1", "the model")


def test_tokens_that_do_not_work(site, device, tmp_path):
    """Unknown, spent, expired and garbled tokens: misuse, one clear line, and no half-enrolled folder."""
    agent = device(enroll=False)
    good = site.register(agent.name)
    token = Token.decode(good)
    short = Token.decode(site.register(f"{agent.name}-short"))
    with contextlib.closing(sqlite3.connect(next(site.root.glob("*.db")))) as database, database:
        database.execute("UPDATE devices SET token_expires = 1 WHERE id = ?", (short.device,))

    def change(**changes):
        return Token(**{name: changes.get(name, getattr(token, name)) for name in Token.__slots__}).encode()

    cases = {
        "token-refused": [change(secret="0" * 64), change(device="ghost"), short.encode()],
        "token-malformed": ["", "edgeops1.", "hello", good[:-9], good.replace("ops1.", "ops2."), good[:40] + "é" + good[41:]],
    }
    for reason, tokens in cases.items():
        for text in tokens:
            refused(agent.command("enroll", text, "--state", str(agent.folder)), 2, reason)
            refused(agent.command("status", "--state", str(agent.folder)), 2, "not-enrolled")
    assert agent.command("enroll", "-", "--state", str(agent.folder), text=good + "\n").code == 0
    refused(agent.command("enroll", good, "--state", str(tmp_path / "second")), 2, "token-refused")


def test_managers_that_are_not_the_tokens(site, device, tmp_path):
    """Another CA or another root than the token names is rejected; nobody there, or no HTTP there, is unreachable."""
    agent = device(enroll=False)
    token = Token.decode(site.register(agent.name))

    def change(**changes):
        return Token(**{name: changes.get(name, getattr(token, name)) for name in Token.__slots__}).encode()

    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"https://127.0.0.1:{held.getsockname()[1]}"
    for text, code, reason in (
        (change(ca_pin="0" * 64), 3, "ca-pin"), (change(urls=(nobody,)), 4, "manager-unreachable"),
        (change(urls=(_talker(tmp_path, b"SSH-2.0-OpenSSH_9.2\r\n"),)), 4, "manager-unreachable"),
        (change(urls=(_talker(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort"),)), 3, "ca-pin"),
    ):  # fmt: skip
        refused(agent.command("enroll", text, "--state", str(agent.folder)), code, reason)
    assert agent.command("enroll", change(urls=(nobody, *token.urls)), "--state", str(agent.folder)).code == 0


def _talker(folder: Path, answer: bytes) -> str:
    """A TLS server that gives everybody this answer; its address."""
    from ...cli.conftest import certificate

    name = os.urandom(4).hex()
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(*certificate(folder, name))
    server = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        while True:
            try:
                with trust.wrap_socket(server.accept()[0], server_side=True) as sock:
                    sock.recv(4096)
                    sock.sendall(answer)
            except OSError:
                continue

    threading.Thread(target=talk, daemon=True).start()
    return f"https://127.0.0.1:{server.getsockname()[1]}"


def test_a_lost_answer_does_not_lose_the_device(site, device, monkeypatch):
    """When the manager's answer is lost on the way, the same token works once more, and it is the same device."""
    from edgeops.wire.errors import Unreachable
    from edgeops_agent.shell import enrolment

    agent = device(enroll=False)
    token = site.register(agent.name)
    real = enrolment._ask

    def lose(*words):
        real(*words)
        raise Unreachable("manager-unreachable", "the line went dead")

    monkeypatch.setattr(enrolment, "_ask", lose)
    with pytest.raises(Unreachable):
        enrolment.enroll(token, agent.folder)
    monkeypatch.undo()
    done = agent.command("enroll", token, "--state", str(agent.folder), "--json")
    assert json.loads(done.out)["incarnation"] == 1
    agent.start()
    until(lambda: site.device(agent.name)["presence"] == "online", "the device to be online")
