"""Attacks on both brokers, a row each, with live connections: what is tried, and that the victim and the fleet notice nothing.

Rows that need a broker of its own (a revocation list, lists that change) are beside the table. The program `openssl` is a second
opinion on the TLS rows.
"""

import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgeops.broker import start_broker
from edgeops.broker.reach import claim_port

pytestmark = pytest.mark.real
FENCE = b"fence"
# mosquitto gives a connection that has not said who it is 60 s and half as much again; the built-in broker 10 s.
HALF_OPEN_S = {"mosquitto": 120.0, "built-in": 15.0}


def own(name, tail):
    """A topic of `name`."""
    return f"e/1/07/d/{name}/{tail}"


@dataclass(frozen=True)
class Attack:
    """`attempt` returns what the attacker got: nothing (empty) where the broker holds."""

    name: str
    attempt: Callable


def refused(open_wire, client_id="dev-b"):
    """Try to connect; empty when no CONNACK accepts."""
    try:
        code = open_wire().connect(client_id)
    except OSError:
        return ""
    return "" if code else "was let in"


def no_certificate(site):
    """No certificate at all."""
    return refused(lambda: site.wire(None))


def expired(site):
    """A certificate of yesterday."""
    return refused(lambda: site.wire("dev-b", expired=True))


def server_use_only(site):
    """A certificate for servers, as a stolen one of another machine would be."""
    return refused(lambda: site.wire("server-x", server=True), "server-x")


def foreign(site):
    """The same name by another authority of the same name."""
    other = type(site.pki)(site.pki.folder / "foreign")
    return refused(lambda: type(site.wire("dev-b"))(site.broker.port, site.pki.ca_path, other.issue("dev-b")))


def self_signed(site):
    """A certificate signed by its own key."""
    other = type(site.pki)(site.pki.folder / "self")
    key = other.folder / "key"
    key.write_bytes(other.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return refused(lambda: type(site.wire("dev-b"))(site.broker.port, site.pki.ca_path, (other.ca_path, key)))


def two_names(site):
    """A certificate with two common names must not act as the second (we issue none; a broker must not pick)."""
    wire = site.wire("dev-b,dev-a")
    try:
        code = wire.connect("dev-a")
    except OSError:
        return ""
    return "" if code else reads(site, wire, own("dev-a", "dn/+"), "dev-b") or writes(site, wire, own("dev-a", "up/state"), "dev-b")


def stolen_client_id(site):
    """dev-b's certificate with client id dev-a."""
    wire = site.wire("dev-b")
    try:
        code = wire.connect("dev-a")
    except OSError:
        return ""
    return "" if code else reads(site, wire, own("dev-a", "dn/+"), "dev-b")


def the_managers_client_id(site):
    """dev-b's certificate with the client id and user name of the manager."""
    wire = site.wire("dev-b")
    try:
        code = wire.connect("manager")
    except OSError:
        return ""
    return "" if code else reads(site, wire, "e/1/#", "dev-b") or writes(site, wire, own("dev-a", "dn/desired"), "dev-b")


def reads(site, wire, wanted, name):
    """Subscribe as an attacker: anything heard that is another's."""
    wire.subscribe(wanted, own(name, "dn/+"))
    manager, victim = site.online("manager"), site.online("dev-a")
    victim.send(own("dev-a", "up/state"), b"private")
    manager.send(own("dev-a", "dn/cmd"), b"secret")
    assert victim.settled()
    manager.send(own(name, "dn/cmd"), FENCE)
    return " ".join(sorted({one[0] for one in wire.until(FENCE) if one[1] != FENCE}))


def writes(site, wire, topic, name="dev-b"):
    """Publish as an attacker: anything that arrives anywhere. Refusals may end the attacker's connection."""
    manager = site.online("manager", "e/1/#")
    wire.send(topic, b"forged", retain=True)
    wire.settled()
    site.online("dev-c").send(own("dev-c", "up/state"), FENCE)
    return " ".join(one[0] for one in manager.until(FENCE) if one[1] == b"forged")


def hears(wanted):
    """A row: a subscription."""
    return lambda site: reads(site, site.online("dev-b"), wanted, "dev-b")


def says(topic):
    """A row: a publication."""
    return lambda site: writes(site, site.online("dev-b"), topic)


def wills(topic):
    """A row: a last will."""

    def attempt(site):
        manager = site.online("manager", "e/1/#")
        dying = site.wire("dev-b")
        dying.connect("dev-b", will=(topic, b"forged"))
        dying.drop()
        site.online("dev-b").send(own("dev-b", "up/state"), FENCE)
        return " ".join(one[0] for one in manager.until(FENCE) if one[1] == b"forged")

    return attempt


def oversize(site):
    """A packet of 3 MiB, announced and sent."""
    manager, device = site.online("manager", "e/1/#"), site.online("dev-b")
    try:
        device.send(own("dev-b", "up/log"), bytes(3 << 20))
        device.settled()
    except OSError:
        pass
    site.online("dev-c").send(own("dev-c", "up/state"), FENCE)
    return " ".join(one[0] for one in manager.until(FENCE) if one[1] != FENCE)


def second_connect(site):
    """A second CONNECT as somebody else on an open connection."""
    device = site.online("dev-b")
    body = struct.pack("!H", 4) + b"MQTT\x04\x02\x00\x3c" + struct.pack("!H", 5) + b"dev-a"
    device.socket.sendall(bytes([0x10, len(body)]) + body)
    try:
        device.socket.sendall(b"")
        device.subscribe(own("dev-a", "dn/+"))
    except OSError:
        return ""
    return reads(site, device, own("dev-a", "dn/+"), "dev-b")


def before_connect(site):
    """PUBLISH before CONNECT."""
    manager, stranger = site.online("manager", "e/1/#"), site.wire("dev-b")
    stranger.send(own("dev-b", "up/state"), b"early")
    assert stranger.closed_within(10.0)
    site.online("dev-c").send(own("dev-c", "up/state"), FENCE)
    return " ".join(one[0] for one in manager.until(FENCE) if one[1] != FENCE)


def no_keepalive(site):
    """Keepalive 0 holds one place for ever at most: the next connection of the name, or the manager's, takes it."""
    held = site.wire("dev-b")
    assert held.connect("dev-b", keepalive=0) == 0
    site.online("dev-b")
    return "" if held.closed_within(5.0) else "two sessions of one name"


def old_tls(site):
    """TLS 1.1, by the real openssl."""
    return handshake(site.broker.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")


def no_forward_secrecy(site):
    """A cipher without forward secrecy."""
    return handshake(site.broker.port, "-tls1_2", "-cipher", "AES128-SHA:AES256-GCM-SHA384:@SECLEVEL=0")


def old_mac(site):
    """A cipher of the CBC kind."""
    return handshake(site.broker.port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")


def plain_text(site):
    """MQTT without TLS."""
    with socket.create_connection(("127.0.0.1", site.broker.port), timeout=5.0) as raw:
        raw.sendall(bytes([0x10, 17]) + struct.pack("!H", 4) + b"MQTT\x04\x02\x00\x3c" + struct.pack("!H", 5) + b"dev-b")
        try:
            return "was answered" if raw.recv(4)[:1] == b"\x20" else ""
        except OSError:
            return ""


def handshake(port, *options):
    """What `openssl s_client` got: empty when the handshake failed."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"CONNECTED" in done.stdout, done.stderr
    return "" if b"Cipher is (NONE)" in done.stdout else done.stdout.decode()[:400]


TABLE = (
    Attack("no-certificate", no_certificate),
    Attack("expired-certificate", expired),
    Attack("server-certificate-as-client", server_use_only),
    Attack("foreign-authority", foreign),
    Attack("self-signed", self_signed),
    Attack("two-common-names", two_names),
    Attack("client-id-theft", stolen_client_id),
    Attack("managers-client-id", the_managers_client_id),
    Attack("hear-anothers-orders", hears(own("dev-a", "dn/#"))),
    Attack("hear-anothers-reports", hears(own("dev-a", "up/#"))),
    Attack("hear-all-by-plus", hears("e/1/+/d/+/dn/+")),
    Attack("hear-all-by-hash", hears("#")),
    Attack("hear-broker-internals", hears("$SYS/#")),
    Attack("hear-by-shared-subscription", hears(f"$share/g/{own('dev-a', 'dn/+')}")),
    Attack("write-anothers-report", says(own("dev-a", "up/state"))),
    Attack("write-anothers-orders", says(own("dev-a", "dn/desired"))),
    Attack("write-own-orders", says(own("dev-b", "dn/desired"))),
    Attack("write-broadcast", says("e/1/b/ch/st/0")),
    Attack("write-broadcast-named-like-a-device", says("e/1/b/d/dev-b/up/x")),
    Attack("write-broker-internals", says("$SYS/broker/uptime")),
    Attack("will-on-anothers-presence", wills(own("dev-a", "up/presence"))),
    Attack("will-on-orders", wills(own("dev-a", "dn/cmd"))),
    Attack("will-on-broadcast", wills("e/1/b/ch/st/0")),
    Attack("oversize-packet", oversize),
    Attack("second-connect", second_connect),
    Attack("publish-before-connect", before_connect),
    Attack("keepalive-zero", no_keepalive),
    Attack("tls-1.1", old_tls),
    Attack("no-forward-secrecy", no_forward_secrecy),
    Attack("cbc-cipher", old_mac),
    Attack("plain-text", plain_text),
)


@pytest.mark.parametrize("attack", TABLE, ids=lambda attack: attack.name)
def test_an_attack_gets_nothing(site, attack, score, request):
    """The attacker gets nothing, and the victim's connection, opened before, still works after it."""
    victim = site.online("dev-v", own("dev-v", "dn/+"))
    assert attack.attempt(site) == "", attack.name
    site.online("manager").send(own("dev-v", "dn/cmd"), b"still here")
    assert victim.until(b"still here") == [(own("dev-v", "dn/cmd"), b"still here", False)]
    where = next(kind for kind in ("mosquitto", "built-in") if kind in request.node.name)
    score.refused(f"{where}-{attack.name}", "held-by-broker")


def test_who_says_nothing_is_hung_up_on(kind, pki, tmp_path, make_site):
    """Half-open in every way at once: TCP alone, TLS alone, half a CONNECT, a CONNECT a byte at a time, WebSocket alone, silence
    beyond the keepalive. Each is closed, and who speaks stays.
    """
    (tmp_path / "passwords").touch(mode=0o600)
    plan = pki.plan(tmp_path / "broker", browsers=tmp_path / "passwords")
    site = make_site(start_broker(kind, plan))
    limit = HALF_OPEN_S[kind]
    bare = {name: socket.create_connection(("127.0.0.1", site.broker.port)) for name in ("tcp", "wss tcp")}
    bare["wss tcp"].close()
    bare["wss tcp"] = socket.create_connection(("127.0.0.1", plan.wss_port))
    wires = {name: site.wire("dev-b") for name in ("tls", "half a CONNECT", "byte by byte")}
    wires["half a CONNECT"].socket.sendall(b"\x10\x11\x00\x04MQ")
    silent = site.wire("dev-a")
    assert silent.connect("dev-a", keepalive=1) == 0
    context = ssl.create_default_context(cafile=str(pki.ca_path))
    upgraded = context.wrap_socket(socket.create_connection(("127.0.0.1", plan.wss_port)), server_hostname="127.0.0.1")
    upgraded.sendall(
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    assert b" 101 " in upgraded.recv(65_536)
    lively = site.online("dev-c", own("dev-c", "dn/+"))
    waiting = {**bare, **{name: wire.socket for name, wire in wires.items()}, "silent": silent.socket, "websocket": upgraded}
    trickle = iter(b"\x10\x7f" + bytes(125))
    deadline, open_still = time.monotonic() + limit, dict(waiting)
    for one in waiting.values():
        one.settimeout(0.05)
    while open_still and time.monotonic() < deadline:
        if "byte by byte" in open_still:
            try:
                waiting["byte by byte"].sendall(bytes([next(trickle, 0)]))
            except OSError:
                open_still.pop("byte by byte")
        open_still = {name: one for name, one in open_still.items() if not _ended(one)}
        lively.ping()
    assert not open_still, f"still open after {limit} s: {sorted(open_still)}"
    site.online("manager").send(own("dev-c", "dn/cmd"), FENCE)
    assert lively.until(FENCE)
    for one in waiting.values():
        one.close()


def _ended(one):
    """Whether the broker has ended this connection; a frame or a byte of farewell is skipped."""
    try:
        return one.recv(4096) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_revoked_certificate_is_named_to_openssl(kind, pki_of_its_own, tmp_path, make_site):
    """No, a foreign, an expired and a revoked certificate, by the real openssl: only the good one gets an answer to its CONNECT."""
    pki = pki_of_its_own
    identities = {"good": pki.issue("dev-a"), "revoked": pki.issue("dev-r"), "expired": pki.issue("dev-e", expired=True)}
    identities["foreign"] = type(pki)(tmp_path / "foreign").issue("dev-a")
    pki.revoke("dev-r")
    site = make_site(start_broker(kind, pki.plan(tmp_path / "broker", crl=True)), pki)
    for version in ("-tls1_2", "-tls1_3"):
        answered = {name: _asked(site, version, identity) for name, identity in {**identities, "no": None}.items()}
        assert answered == {"good": True, "revoked": False, "expired": False, "foreign": False, "no": False}, version


def _asked(site, version, identity):
    """Whether a CONNECT through `openssl s_client` is answered."""
    command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{site.broker.port}", "-CAfile", site.pki.ca_path, version]
    if identity:
        command += ["-cert", identity[0], "-key", identity[1]]
    body = struct.pack("!H", 4) + b"MQTT\x04\x02\x00\x3c" + struct.pack("!H", 5) + b"dev-a"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin and child.stdout
        try:
            child.stdin.write(bytes([0x10, len(body)]) + body + b"\xe0\x00")
            child.stdin.flush()
        except BrokenPipeError:
            pass
        head = child.stdout.read(4)
        child.kill()
    return head == b"\x20\x02\x00\x00"


def test_a_taken_browser_port_is_said(kind, pki, tmp_path):
    """Two programs on one port for browsers: the second start says which port it is about."""
    (tmp_path / "passwords").touch(mode=0o600)
    plan = pki.plan(tmp_path / "broker", browsers=tmp_path / "passwords")
    with socket.create_server(("127.0.0.1", plan.wss_port)), pytest.raises(Exception, match=str(plan.wss_port)):
        start_broker(kind, plan)
    assert claim_port("127.0.0.1", plan.wss_port) == plan.wss_port
