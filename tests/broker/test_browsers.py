"""Browsers on both brokers: secure WebSocket and a password instead of a certificate, then the same rules as for everybody."""

import queue
import secrets
import shutil
import ssl
import subprocess
from dataclasses import dataclass, field

import paho.mqtt.client as mqtt
import pytest

from edgeops.broker import passwords, start_broker

pytestmark = pytest.mark.real
PATIENCE_S = 10.0
FENCE = b"fence"


def own(name, tail):
    """A topic of `name`."""
    return f"e/1/07/d/{name}/{tail}"


@dataclass
class Browser:
    """paho over secure WebSocket without a certificate."""

    port: int
    ca: str
    name: str
    password: str | None
    client_id: str
    will: tuple[str, bytes] | None = None
    answers: queue.Queue = field(default_factory=queue.Queue)
    ended: queue.Queue = field(default_factory=queue.Queue)
    granted: queue.Queue = field(default_factory=queue.Queue)
    inbox: queue.Queue = field(default_factory=queue.Queue)

    def __post_init__(self):
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=self.client_id, transport="websockets", reconnect_on_failure=False
        )
        self.client.tls_set(self.ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if self.name:
            self.client.username_pw_set(self.name, self.password)
        if self.will:
            self.client.will_set(*self.will, qos=1)
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.answers.put(reason.value)
        self.client.on_disconnect = lambda _c, _u, _f, reason, _p: self.ended.put(str(reason))
        self.client.on_subscribe = lambda *_args: self.granted.put(1)
        self.client.on_message = lambda _c, _u, message: self.inbox.put((message.topic, message.payload))
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()

    def subscribe(self, *filters):
        """Subscribe and wait for the answer."""
        self.client.subscribe([(one, 1) for one in filters])
        self.granted.get(timeout=PATIENCE_S)

    def send(self, topic, payload):
        """Publish and wait for the acknowledgement."""
        self.client.publish(topic, payload, 1).wait_for_publish(PATIENCE_S)

    def until(self, payload):
        """All messages up to the one with this payload."""
        got = [self.inbox.get(timeout=PATIENCE_S)]
        while got[-1][1] != payload:
            got.append(self.inbox.get(timeout=PATIENCE_S))
        return got

    def close(self):
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


class Place:
    """A broker with a listener for browsers, its passwords and its clients."""

    def __init__(self, kind, pki, folder, make_site):
        self.file = folder / "passwords"
        self.known = {name: secrets.token_hex(32) for name in ("dev-a", "dev-b")}
        self.lines = {name: passwords.verifier(text, secrets.token_bytes(12)) for name, text in self.known.items()}
        self.write()
        self.plan = pki.plan(folder / "broker", browsers=self.file)
        self.site = make_site(start_broker(kind, self.plan))
        self.browsers = []

    def write(self, **changed):
        """Write the password file with other lines for some."""
        self.lines |= {name.replace("_", "-"): line for name, line in changed.items()}
        self.file.touch(mode=0o600)
        self.file.write_text(passwords.render(self.lines))

    def browser(self, name, password=None, client_id=None, will=None):
        """A browser that has been answered, or hung up on (code -1)."""
        given = password if password is not None else self.known.get(name, "")
        made = Browser(self.plan.wss_port, str(self.plan.ca_path), name, given, client_id or name, will)
        self.browsers.append(made)
        return made

    def online(self, name, *filters, will=None):
        """A browser that was let in."""
        made = self.browser(name, will=will)
        assert made.answers.get(timeout=PATIENCE_S) == 0
        if filters:
            made.subscribe(*filters)
        return made


@pytest.fixture
def place(kind, pki, tmp_path, make_site):
    """A broker with a listener for browsers."""
    made = Place(kind, pki, tmp_path, make_site)
    yield made
    for browser in made.browsers:
        browser.close()


def test_a_browser_talks_under_its_name(place):
    """Down, up and broadcast messages arrive; what is another's does not; its will is delivered."""
    manager = place.site.online("manager", "e/1/#")
    other = place.site.online("dev-c", own("dev-c", "dn/+"))
    browser = place.online("dev-a", own("dev-a", "dn/+"), "e/1/b/#", will=(own("dev-a", "up/presence"), b"gone"))
    browser.subscribe(own("dev-c", "dn/+"), "e/1/#", "#", "$SYS/#")
    browser.send(own("dev-c", "dn/cmd"), b"forged")
    browser.send("e/1/b/ch/st/0", b"forged")
    browser.send(own("dev-a", "up/state"), b"mine")
    assert [one[1] for one in manager.until(b"mine")] == [b"mine"]
    manager.send(own("dev-c", "dn/cmd"), FENCE)
    manager.send("e/1/b/ch/st/0", b"frame")
    manager.send(own("dev-a", "dn/cmd"), FENCE)
    assert {one[1] for one in other.until(FENCE)} == {FENCE}
    assert {one[1] for one in browser.until(FENCE)} == {b"frame", FENCE}
    browser.client.socket().close()
    assert manager.until(b"gone")[-1][0] == own("dev-a", "up/presence")


@pytest.mark.parametrize("topic", [own("dev-c", "up/presence"), own("dev-c", "dn/cmd"), "e/1/b/ch/st/0"])
def test_a_forged_will_of_a_browser_reaches_nobody(place, topic):
    """A last will elsewhere is refused with its CONNECT, or dropped."""
    manager = place.site.online("manager", "e/1/#")
    dying = place.browser("dev-a", will=(topic, b"forged"))
    if dying.answers.get(timeout=PATIENCE_S) == 0:
        dying.client.socket().close()
    place.online("dev-a").send(own("dev-a", "up/state"), FENCE)
    assert [one[1] for one in manager.until(FENCE)] == [FENCE]


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("dev-a", "wrong"), ("dev-a", ""), ("dev-a", "dev-b"), ("manager", ""), ("manager", "dev-a"), ("dev-x", "dev-a"),
        ("", ""), ("dev-a:", "dev-a"), ("#", "dev-a"), ("dev-a\n", "dev-a"), ("dev-a" * 200, "dev-a"),
    ],
)  # fmt: skip
def test_who_has_no_password_of_the_name_is_refused(place, name, password):
    """Wrong, empty, somebody else's: refused, and the one who has the name stays connected. `password` may name whose to take."""
    victim = place.online("dev-a", own("dev-a", "dn/+"))
    thief = place.browser(name, place.known.get(password, password), client_id=name[:20] or "dev-a")
    assert place.site.eventually(lambda: not thief.answers.empty() or not thief.ended.empty())
    assert thief.answers.empty() or thief.answers.get() != 0
    place.site.online("manager").send(own("dev-a", "dn/cmd"), FENCE)
    assert victim.until(FENCE) and victim.ended.empty()


def test_a_browser_cannot_borrow_a_client_id(place):
    """The password of dev-b with client id dev-a neither ends dev-a's session nor hears its messages."""
    victim = place.online("dev-a", own("dev-a", "dn/+"))
    thief = place.browser("dev-b", client_id="dev-a")
    if thief.answers.get(timeout=PATIENCE_S) == 0:
        thief.subscribe(own("dev-a", "dn/+"), own("dev-b", "dn/+"))
    manager = place.site.online("manager")
    manager.send(own("dev-a", "dn/cmd"), FENCE)
    assert victim.until(FENCE) and victim.ended.empty()
    if place.site.broker.kind == "mosquitto":
        manager.send(own("dev-b", "dn/cmd"), b"end")
        assert [one[1] for one in thief.until(b"end")] == [b"end"]


def test_a_password_is_no_certificate(place, pki):
    """The listener of devices refuses a client with the right password and no certificate."""
    with pytest.raises(OSError):
        place.site.wire(None).connect("dev-a")


def test_a_lapsed_password_ends_its_session_only(place):
    """A line that changed ends the live session and is refused afterwards; other browsers and devices notice nothing."""
    lapsing, other = place.online("dev-a"), place.online("dev-b", own("dev-b", "dn/+"))
    device = place.site.online("dev-c", own("dev-c", "dn/+"))
    manager = place.site.online("manager")
    place.write(dev_a=passwords.LOCKED)
    place.site.broker.reload()
    lapsing.ended.get(timeout=PATIENCE_S)
    assert place.browser("dev-a").answers.get(timeout=PATIENCE_S) != 0
    for name in ("dev-b", "dev-c"):
        manager.send(own(name, "dn/cmd"), FENCE)
    assert other.until(FENCE) and other.ended.empty() and device.until(FENCE)


def test_a_new_password_lets_in_after_the_reload(place):
    """A line that is added while the broker runs works once `reload` has returned."""
    place.known["dev-c"] = "x" * 64
    place.write(dev_c=passwords.verifier("x" * 64, bytes(12)))
    place.site.broker.reload()
    place.online("dev-c")


def test_a_shut_out_browser_is_silent(place):
    """A name that `reload` names can say and hear nothing, whether it stays connected or not."""
    manager = place.site.online("manager", "e/1/#")
    shut = place.online("dev-a", own("dev-a", "dn/+"))
    place.site.broker.reload(["dev-a"])
    shut.client.publish(own("dev-a", "up/state"), b"late", 1)
    place.online("dev-b").send(own("dev-b", "up/state"), FENCE)
    assert [one[1] for one in manager.until(FENCE)] == [FENCE]


def test_the_form_is_mosquittos(tmp_path):
    """What we keep is what the real mosquitto_passwd makes, where there is one; whatever else stands there fits nothing."""
    if program := shutil.which("mosquitto_passwd"):
        subprocess.run([program, "-b", "-c", tmp_path / "file", "dev-a", "secret"], check=True, capture_output=True)
        assert passwords.fits("secret", passwords.parse((tmp_path / "file").read_text())["dev-a"])
    kept = passwords.verifier("secret", bytes(range(12)))
    assert passwords.fits("secret", kept) and not passwords.fits("Secret", kept) and not passwords.fits("", passwords.LOCKED)
    assert passwords.parse(passwords.render({"b": kept, "a": "x"})) == {"a": "x", "b": kept}
    assert not any(passwords.fits("x", broken) for broken in ("", "x", "$7$x$y$z", "$6$101$AAAA$AAAA", "$7$101$A$A"))
    with pytest.raises(ValueError):
        passwords.verifier("secret", b"short")
