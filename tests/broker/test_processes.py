"""Starting and ending: ports, revocation, what is left behind, what happens when our own process dies."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from edgeops.broker import mosquitto as mosquitto_module
from edgeops.broker import reach, start_broker
from edgeops.wire.errors import Misuse, Unreachable

pytestmark = pytest.mark.real

START = """
import sys
from pathlib import Path
from edgeops.broker import BrokerPlan, start_broker
kind, folder, ca, cert, key = sys.argv[1:]
broker = start_broker(kind, BrokerPlan(Path(folder), "127.0.0.1", 0, Path(ca), Path(cert), Path(key)))
print(broker.port, flush=True)
try:
    sys.stdin.read()
except KeyboardInterrupt:
    broker.stop()
"""


def descendants(pid):
    """All processes below `pid`."""
    return psutil.Process(pid).children(recursive=True)


def test_stop_leaves_no_process(kind, pki, tmp_path):
    """After `stop` every process is gone, the port is free again, and a second `stop` does nothing."""
    before = set(descendants(os.getpid()))
    broker = start_broker(kind, pki.plan(tmp_path))
    started = set(descendants(os.getpid())) - before
    assert broker.alive() and started
    broker.stop()
    broker.stop()
    assert not broker.alive()
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started)
    start_broker(kind, pki.plan(tmp_path, broker.port)).stop()


def test_stop_is_quick_with_a_half_open_client(kind, pki, tmp_path, make_site):
    """A client that never reads does not hold up the end."""
    site = make_site(start_broker(kind, pki.plan(tmp_path)))
    site.online("dev-a", "e/1/b/#")
    manager = site.online("manager")
    for _ in range(100):
        manager.send("e/1/b/ch/st/0", bytes(60 << 10), qos=0)
    site.broker.stop()
    assert not site.broker.alive()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_broker_ends_with_its_parent(kind, pki, tmp_path, end, eventually):
    """Whether our process is killed or gets Ctrl-C, the broker does not outlive it."""
    plan = pki.plan(tmp_path)
    args = [kind, str(plan.folder), str(plan.ca_path), str(plan.cert_path), str(plan.key_path)]
    parent = subprocess.Popen([sys.executable, "-c", START, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin and parent.stdout
    with parent.stdin, parent.stdout:
        assert int(parent.stdout.readline()) > 0
        children = descendants(parent.pid)
        assert children
        parent.send_signal(end)
        parent.wait(60)
    assert eventually(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))


def test_a_killed_broker_is_noticed(kind, pki, tmp_path, eventually):
    """`alive` turns false when the process is killed from outside."""
    before = set(descendants(os.getpid()))
    broker = start_broker(kind, pki.plan(tmp_path))
    deepest = (set(descendants(os.getpid())) - before).pop()
    deepest = (descendants(deepest.pid) or [deepest])[0]
    deepest.kill()
    assert eventually(lambda: not broker.alive())
    broker.stop()


def test_a_busy_port_is_said_so(kind, pki, tmp_path):
    """A taken port is the caller's to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Misuse) as caught:
        start_broker(kind, pki.plan(tmp_path, taken.getsockname()[1]))
    assert caught.value.reason == "port-busy"


def test_a_lost_race_for_a_free_port_is_run_again(kind, pki, tmp_path, monkeypatch):
    """If another program takes the free port before the broker does, the next one is used; a chosen port is not given up."""
    with socket.create_server(("127.0.0.1", 0)) as rival:
        lost = [rival.getsockname()[1]]
        real = reach.claim_port
        monkeypatch.setattr(reach, "claim_port", lambda host, port: lost.pop() if lost else real(host, port))
        broker = start_broker(kind, pki.plan(tmp_path))
        broker.stop()
        assert broker.port != rival.getsockname()[1] and not lost


def test_somebody_elses_server_is_not_taken_for_ours(site, pki):
    """A TLS server with another certificate on our port does not count as a started broker."""
    with pytest.raises(Unreachable, match="did not answer"):
        ours = pki.issue("dev-a")[0]
        reach.wait_until_ready("127.0.0.1", site.broker.port, ours, lambda: True, lambda: "", patience_s=0.3)


def test_unreadable_keys_show_the_brokers_last_words(kind, pki, tmp_path):
    """A key that does not belong to the certificate ends in broker-failed with log lines, and leaves no process."""
    good = pki.plan(tmp_path)
    before = set(descendants(os.getpid()))
    with pytest.raises(Unreachable) as caught:
        start_broker(kind, type(good)(tmp_path, "127.0.0.1", 0, good.ca_path, good.cert_path, pki.issue("dev-a")[1]))
    assert caught.value.reason == "broker-failed" and "key" in caught.value.message.lower()
    assert set(descendants(os.getpid())) == before


def refused(site, name):
    """True if a new connection of `name` gets no positive CONNACK."""
    try:
        return site.wire(name).connect(name) != 0
    except OSError:
        return True


def test_the_revocation_list_is_read_again(kind, pki_of_its_own, tmp_path, make_site):
    """After `reload` the list alone keeps a revoked certificate out; before it, and for others, the door is open."""
    site = make_site(start_broker(kind, pki_of_its_own.plan(tmp_path, crl=True)), pki_of_its_own)
    assert not refused(site, "dev-a")
    pki_of_its_own.revoke("dev-a")
    site.broker.reload()
    assert site.eventually(lambda: refused(site, "dev-a"))
    assert not refused(site, "dev-b")


def test_live_connections_of_revoked_devices_are_cut_off(kind, pki, tmp_path, make_site):
    """A device named in `reload` neither writes nor hears anything from then on, also after connecting again."""
    site = make_site(start_broker(kind, pki.plan(tmp_path)))
    manager = site.online("manager", "e/1/+/d/+/up/+")
    lost, kept = site.online("dev-a", "e/1/b/#"), site.online("dev-b", "e/1/b/#")
    site.broker.reload(["dev-a"])

    def silenced():
        manager.send("e/1/b/ch/st/0", b"frame", qos=0)
        lost.got.clear()
        kept.until(b"frame")
        kept.got.clear()
        return not lost.settled() or not lost.got

    assert site.eventually(silenced)
    manager.got.clear()
    again = site.wire("dev-a")
    for wire in (lost, again):
        try:
            if wire is again:
                wire.connect("dev-a")
            wire.send("e/1/07/d/dev-a/up/state", b"from the grave")
        except OSError:
            assert kind == "built-in"
    kept.send("e/1/07/d/dev-b/up/state", b"alive")
    assert [one[1] for one in manager.until(b"alive")] == [b"alive"]


def test_auto_takes_mosquitto_where_there_is_one(pki, tmp_path, monkeypatch):
    """`auto` falls back to the built-in broker and says for how many devices it is meant."""
    monkeypatch.setattr("edgeops.broker.choose.find_mosquitto", lambda: None)
    broker = start_broker("auto", pki.plan(tmp_path))
    assert broker.kind == "built-in"
    broker.stop()


def test_the_built_in_broker_says_what_it_is_for(pki, tmp_path, caplog):
    """One log line names the number of devices."""
    with caplog.at_level("INFO", "edgeops.broker"):
        start_broker("built-in", pki.plan(tmp_path)).stop()
    assert sum("about 100 devices" in record.getMessage() for record in caplog.records) == 1


def test_without_mosquitto_the_choice_fails(pki, tmp_path, monkeypatch):
    """`mosquitto` where there is none is a Misuse with a way out."""
    monkeypatch.setattr(mosquitto_module.shutil, "which", lambda *_, **__: None)
    with pytest.raises(Misuse, match="built-in"):
        start_broker("mosquitto", pki.plan(tmp_path))
