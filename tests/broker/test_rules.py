"""The same rules on both brokers: who gets in, who may say what to whom."""

import ssl

import pytest

pytestmark = pytest.mark.real
FENCE = b"fence"


def own(name, tail):
    """A topic of `name`."""
    return f"e/1/07/d/{name}/{tail}"


def test_manager_and_device_talk(site):
    """Positive control: down, up and broadcast messages arrive."""
    manager = site.online("manager", "e/1/+/d/+/up/+")
    device = site.online("dev-a", own("dev-a", "dn/+"), "e/1/b/#")
    manager.send("e/1/b/ch/st/0", b"frame", qos=0)
    manager.send(own("dev-a", "dn/cmd"), FENCE)
    assert [one[1] for one in device.until(FENCE)] == [b"frame", FENCE]
    device.send(own("dev-a", "up/state"), b"mine")
    assert manager.until(b"mine")[-1] == (own("dev-a", "up/state"), b"mine", False)


def test_no_certificate_is_refused(site):
    """A client without certificate gets no CONNACK."""
    with pytest.raises(OSError):
        site.wire(None).connect("dev-a")


def test_expired_certificate_is_refused(site):
    """Yesterday's certificate gets no CONNACK."""
    with pytest.raises(OSError):
        site.wire("dev-a", expired=True).connect("dev-a")


def test_foreign_authority_is_refused(site, pki, tmp_path):
    """The same name from another CA gets no CONNACK."""
    foreign = type(pki)(tmp_path / "foreign")
    identity = foreign.issue("dev-a")
    with pytest.raises(OSError):
        type(site.wire("dev-a"))(site.broker.port, pki.ca_path, identity).connect("dev-a")


def test_a_borrowed_client_id_kicks_nobody(site):
    """The certificate of dev-b with client id dev-a neither ends dev-a's connection nor receives its messages."""
    victim = site.online("dev-a", own("dev-a", "dn/+"))
    thief = site.wire("dev-b")
    if thief.connect("dev-a") == 0:
        thief.subscribe(own("dev-a", "dn/+"))
    manager = site.online("manager")
    manager.send(own("dev-a", "dn/cmd"), FENCE)
    assert victim.until(FENCE) == [(own("dev-a", "dn/cmd"), FENCE, False)]
    manager.send(own("dev-b", "dn/cmd"), b"end")
    if site.broker.kind == "mosquitto":
        thief.subscribe(own("dev-b", "dn/+"))
        manager.send(own("dev-b", "dn/cmd"), b"end2")
        assert {one[0] for one in thief.until(b"end2")} == {own("dev-b", "dn/cmd")}
    else:
        assert thief.closed_within(5.0)


def test_a_device_that_comes_back_takes_over(site):
    """A second connection with the right certificate ends the first and is fully served."""
    first = site.online("dev-a", own("dev-a", "dn/+"))
    second = site.online("dev-a", own("dev-a", "dn/+"))
    assert first.closed_within(5.0)
    site.online("manager").send(own("dev-a", "dn/cmd"), FENCE)
    assert second.until(FENCE)


@pytest.mark.parametrize(
    "topic",
    [
        own("dev-a", "up/state"),
        own("dev-b", "dn/desired"),
        own("dev-a", "dn/desired"),
        "e/1/b/ch/st/0",
        "e/1/b/d/dev-b/up",
        "e/1/b/d/dev-b/up/1",
        "e/1",
        "other",
    ],
)
def test_foreign_publishes_are_dropped_and_counted(site, topic):
    """What dev-b may not write reaches neither manager nor dev-a and is counted; its own message arrives."""
    manager = site.online("manager", "e/1/#")
    victim = site.online("dev-a", own("dev-a", "dn/+"), "e/1/b/#")
    before = site.broker.acl_denied()
    attacker = site.online("dev-b")
    attacker.send(topic, b"forged")
    attacker.send(own("dev-b", "up/state"), FENCE)
    assert [one[1] for one in manager.until(FENCE)] == [FENCE]
    manager.send(own("dev-a", "dn/cmd"), FENCE)
    assert [one[1] for one in victim.until(FENCE)] == [FENCE]
    assert site.eventually(lambda: site.broker.acl_denied() == before + 1)


@pytest.mark.parametrize(
    "wanted",
    [own("dev-a", "dn/#"), "e/1/+/d/+/dn/+", "e/1/#", "#", "+/+/+/+/+/+/+", "e/1/+/d/+/up/+", "$share/g/e/1/07/d/dev-a/dn/+"],
)
def test_foreign_subscriptions_deliver_nothing_and_are_counted(site, wanted):
    """Whatever SUBACK says, dev-b hears only what is its own."""
    before = site.broker.acl_denied()
    attacker = site.online("dev-b", wanted)
    assert site.eventually(lambda: site.broker.acl_denied() == before + 1)
    attacker.subscribe(own("dev-b", "dn/+"))
    manager = site.online("manager")
    victim = site.online("dev-a")
    manager.send(own("dev-a", "dn/cmd"), b"secret")
    victim.send(own("dev-a", "up/state"), b"private")
    manager.send(own("dev-b", "dn/cmd"), FENCE)
    assert {one[1] for one in attacker.until(FENCE)} == {FENCE}


def test_own_wills_are_delivered(site):
    """Positive control: a last will under the device's own `up/` arrives when its connection breaks."""
    manager = site.online("manager", "e/1/+/d/+/up/+")
    site.online("dev-b", will=(own("dev-b", "up/presence"), b"gone")).drop()
    assert manager.until(b"gone")


@pytest.mark.parametrize("topic", [own("dev-a", "up/presence"), own("dev-a", "dn/cmd"), "e/1/b/ch/st/0"])
def test_foreign_wills_are_not_delivered_and_counted(site, topic):
    """A last will elsewhere reaches nobody, whether the broker refuses the connection or drops the will."""
    manager = site.online("manager", "e/1/#")
    before = site.broker.acl_denied()
    dying = site.wire("dev-b")
    dying.connect("dev-b", will=(topic, b"forged"))
    assert site.eventually(lambda: site.broker.acl_denied() == before + 1)
    dying.drop()
    # A new connection under the same name makes the broker finish the old one first.
    site.online("dev-b").send(own("dev-b", "up/state"), FENCE)
    assert [one[1] for one in manager.until(FENCE)] == [FENCE]


def test_retained_reaches_its_owner_only(site):
    """A retained message waits for its device; a newcomer that subscribes to its own topics does not get it."""
    manager = site.online("manager")
    site.online("dev-a", own("dev-a", "dn/+"))
    manager.send(own("dev-a", "dn/desired"), b"kept", retain=True)
    late = site.online("dev-a", own("dev-a", "dn/+"))
    assert late.until(b"kept") == [(own("dev-a", "dn/desired"), b"kept", True)]
    stranger = site.online("dev-b", own("dev-b", "dn/+"), own("dev-a", "dn/+"))
    manager.send(own("dev-b", "dn/cmd"), FENCE)
    assert [one[1] for one in stranger.until(FENCE)] == [FENCE]
    manager.send(own("dev-a", "dn/desired"), b"", retain=True)
    assert manager.settled()


def test_a_silent_client_is_dropped(site):
    """A half-open connection ends after its keepalive and its will is sent; a pinging one stays."""
    manager = site.online("manager", own("dev-a", "up/+"))
    silent, lively = site.wire("dev-a"), site.wire("dev-b")
    assert silent.connect("dev-a", keepalive=1, will=(own("dev-a", "up/presence"), b"gone")) == 0
    assert lively.connect("dev-b", keepalive=1) == 0
    manager.socket.settimeout(0.4)
    for _ in range(40):
        lively.ping()
        try:
            manager.step()
            break
        except TimeoutError:
            continue
    assert [one[1] for one in manager.got] == [b"gone"]
    assert silent.closed_within(1.0)
    assert not lively.closed_within(0.3)


def test_a_stopped_reader_harms_nobody(site):
    """400 frames of 60 KiB to a device that does not read reach all others in full, and little is hoarded for it."""
    healthy = site.online("dev-a", "e/1/b/#", own("dev-a", "dn/+"))
    site.online("dev-b", "e/1/b/#")
    manager = site.online("manager")
    before = site.memory()
    for index in range(400):
        manager.send(f"e/1/b/ch/st/{index}", bytes(60 << 10), qos=0)
        while len(healthy.got) < index - 20:
            healthy.step()
    manager.send(own("dev-a", "dn/cmd"), FENCE)
    assert len(healthy.until(FENCE)) == 401
    assert site.memory() - before < (23 << 20 if site.broker.kind == "built-in" else 40 << 20)


def test_a_burst_of_reports_reaches_a_slow_manager(site):
    """3,000 acknowledged messages sent before the manager reads one are all delivered."""
    manager = site.online("manager", "e/1/+/d/+/up/+")
    device = site.online("dev-a")
    for index in range(3000):
        device.send(own("dev-a", "up/state"), str(index).encode())
    assert device.settled()
    assert [int(one[1]) for one in manager.until(b"2999")] == list(range(3000))


def test_an_oversized_packet_ends_the_connection(site):
    """A packet of 3 MiB does not reach anybody."""
    device = site.online("dev-a")
    with pytest.raises((OSError, ssl.SSLError, ConnectionError)):
        device.send(own("dev-a", "up/log"), bytes(3 << 20))
        if not device.closed_within(5.0):
            return
        raise ConnectionError
