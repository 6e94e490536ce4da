"""Documents over the real API: published, fetched, sent to live devices; the CA replaced under a device's feet."""

import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from fastapi.testclient import TestClient

from edgeops.api.serve import Serving
from edgeops.cli import context
from edgeops.cli.app import run
from edgeops.manager.hub import Hub
from edgeops.manager.layout import Layout
from edgeops.manager.setup import Setup, load_signer
from edgeops.manager.site import read_site
from edgeops.wire import canonical, envelope
from edgeops.wire.desired import Floor
from edgeops.wire.errors import EdgeopsError
from edgeops.wire.keys import Signer
from edgeops.wire.messages import Bundle
from edgeops.wire.rotation import Change, next_root, read_root
from edgeops.wire.trust import Trust, accept_floor, accept_site, advance_root, current_root, versions

from .line import Connected, enrol, publish, until, wished

PATIENCE_S = 20.0
JSON = {"content-type": "application/json"}
Command = Callable[..., int]


@pytest.fixture
def edgeops(made: Setup, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process, with a context for the running manager."""
    monkeypatch.setenv("EDGEOPS_CONFIG", str(tmp_path / "contexts.toml"))
    own = context.Context("m", serving.url, str(made.ca), made.admin_token)
    context.save(context.Contexts().added(own))
    return lambda *words: run(list(words))


def take(trust: Trust, payload: bytes) -> Trust:
    """What a device that believes `trust` believes after a bundle; documents for the online key's reader are passed over."""
    for kind, data in Bundle.decode(payload).documents:
        if kind == "root":
            trust = advance_root(trust, data)
        elif kind == "site":
            trust, _ = accept_site(trust, data)
        elif kind == "floor":
            trust = accept_floor(trust, data)
    return trust


def await_documents(link: Connected, **wanted: int) -> None:
    """Read what comes until the device has these versions."""
    device = link.device
    assert device.trust
    while not wanted.items() <= versions(device.trust).items():
        topic, payload = link.next()
        if topic.endswith(("/doc", "/desired")):
            device.trust = take(device.trust, payload)


@pytest.fixture
def pi(http: httpx.Client, tmp_path: Path, serving: Serving) -> Iterator[Connected]:
    """An enrolled device, online."""
    device = enrol(http, tmp_path / "pi", "pi-1")
    link = Connected(device, tmp_path / "pi", serving.running.broker.port)
    link.send("presence", device.presence())
    until(http, "/devices/pi-1", "presence", "online")
    yield link
    link.close()


def test_a_live_device_follows_the_online_key(edgeops: Command, pi: Connected, http: httpx.Client, made: Setup) -> None:
    """`edgeops key rotate online` against the running manager: the device gets the root at once, and orders of the new key."""
    publish(http, made.folder, 1)
    http.post("/rollouts", json={"model": "digits", "version": 1, "to": "all", "waves": "100%"}).raise_for_status()
    wished(pi)
    assert edgeops("key", "rotate", "online", "--folder", str(made.folder)) == 0
    await_documents(pi, root=2)
    desired, _ = wished(pi)
    assert (desired.epoch, "main" in desired.slots) == (1, True)
    assert [path.stem[:7] for path in Layout(made.folder).keys("online")] == ["online-"]
    assert http.get("/documents").json()["documents"] == {"root": 2, "site": 1, "floor": 0}


def test_a_running_manager_restarts_with_its_new_key(edgeops: Command, serving: Serving, made: Setup) -> None:
    """After a rotation the old key is gone and the next start finds the new one."""
    assert edgeops("key", "rotate", "online", "--folder", str(made.folder)) == 0
    online = serving.running.hub.online.id
    serving.stop()
    again = Serving(made.folder)
    try:
        assert again.running.hub.online.id == online
    finally:
        again.stop()


def test_holders_far_from_the_manager(edgeops: Command, http: httpx.Client, made: Setup, tmp_path: Path, monkeypatch) -> None:
    """With a context only: propose from what the manager says, sign elsewhere, publish over HTTPS as admin."""
    keys = tmp_path / "holder"
    keys.mkdir()
    for role in ("root", "release"):
        Layout(made.folder).key(role).rename(keys / f"{role}.key")
    copied = tmp_path / "ca.crt"
    copied.write_bytes(made.ca.read_bytes())
    held = context.load()
    context.save(context.Contexts().added(context.Context("far", held.pick().url, str(copied), made.admin_token)))
    monkeypatch.chdir(keys)
    assert edgeops("key", "new", "next.key") == 0
    assert edgeops("root", "propose", "--add", "release=next.key.pub", "--out", "r2.json") == 0
    assert edgeops("root", "publish", "r2.json") == 3
    assert edgeops("root", "sign", "r2.json", "--key", "root.key") == 0
    assert edgeops("root", "publish", "r2.json") == 0
    assert edgeops("floor", "raise", "digits:1", "--key", "release.key") == 2
    assert http.get("/documents").json()["documents"] == {"root": 2, "site": 1, "floor": 0}
    assert edgeops("site", "sign", "--key", "root.key") == 2


def test_documents_prove_themselves_to_strangers(http: httpx.Client, edgeops: Command, made: Setup, serving: Serving) -> None:
    """Without a token anybody reads roots, site and floor; nobody writes one without the role admin."""
    for _ in range(2):
        assert edgeops("key", "rotate", "online", "--folder", str(made.folder)) == 0
    trust_context = ssl.create_default_context(cafile=made.ca)
    with httpx.Client(base_url=serving.url + "/api/v1", verify=trust_context, trust_env=False) as stranger:
        first = read_root(Bundle.decode(stranger.get("/documents/root").content).documents[0][1])
        assert first.version == 1
        chain = stranger.get("/documents/root", params={"after": 1}).content
        root = Layout(made.folder).document("root-1").read_bytes()
        trust = take(Trust("testfleet", "pi-1", 1, root), chain)
        assert current_root(trust).version == 3
        trust = take(trust, stranger.get("/documents/site").content)
        assert versions(trust) == {"root": 3, "site": 1, "floor": 0}
        assert stranger.get("/documents/root", params={"after": 3}).json() == []
        assert stranger.get("/documents/site", params={"after": 1}).json() == []
        assert stranger.get("/documents/floor").json() == []
        assert stranger.post("/documents/root", json={"envelope": {}}).status_code == 401
        assert stranger.get("/documents").status_code == 401


@pytest.mark.parametrize("kind", ["root", "site", "floor"])
def test_what_is_not_published(client: TestClient, hub: Hub, kind: str) -> None:
    """Unsigned, wrongly signed, of another kind, or older: refused with its reason, and nothing changes."""
    before, layout = hub.papers, hub.layout
    signers = {role: load_signer(layout.key(role)) for role in ("root", "site", "release", "online")}
    good = {
        "root": next_root(hub.root, Change(raise_epoch=True), hub.now()).payload(),
        "site": canonical.decode(envelope.split(hub.site_document, "site")[0]) | {"version": 2},
        "floor": Floor("testfleet", 1, {}).payload(),
    }  # fmt: skip
    right = {"root": "root", "site": "site", "floor": "release"}[kind]
    other = next(role for role in ("release", "site") if role != right)
    cases = [
        (envelope.seal(kind, good[kind], []), "threshold"), (envelope.seal(kind, good[kind], [signers[other]]), "unknown-key"),
        (envelope.seal(kind, good[kind], [signers["online"]]), "unknown-key"),
        (envelope.seal(kind, good[kind] | {"fleet": "other"}, [signers[right]]), "wrong-fleet"),
        (envelope.seal("time", good[kind], [signers[right]]), "wrong-type"),
        (envelope.seal(kind, good[kind] | {"must": ["magic"]}, [signers[right]]), "must"),
    ]  # fmt: skip
    for sealed, reason in cases:
        answer = client.post(f"/api/v1/documents/{kind}", json={"envelope": sealed.decode()})
        assert answer.json()["reason"] == reason
        assert hub.papers is before
    assert client.post("/api/v1/documents/desired", json={"envelope": "{}"}).status_code == 422
    assert sorted(path.name for path in (layout.root / "documents").iterdir()) == ["root-1.json", "site-1.json"]


def test_a_root_without_our_online_key_is_refused(client: TestClient, hub: Hub) -> None:
    """A root whose online key is not in the folder would leave the manager mute: it stays with the one it has."""
    change = Change((("online", Signer.from_seed(b"e" * 32).public),), (("online", hub.online.id),))
    sealed = envelope.seal("root", next_root(hub.root, change, hub.now()).payload(), [load_signer(hub.layout.key("root"))])
    answer = client.post("/api/v1/documents/root", json={"envelope": sealed.decode()})
    assert (answer.status_code, answer.json()["reason"], hub.root.version) == (409, "online-key", 1)


def test_publishing_again_is_no_error(client: TestClient, hub: Hub) -> None:
    """Whoever did not hear the answer may ask again."""
    sealed = envelope.seal("floor", Floor("testfleet", 1, {}).payload(), [load_signer(hub.layout.key("release"))]).decode()
    for _ in range(2):
        assert client.post("/api/v1/documents/floor", json={"envelope": sealed}).status_code == 201
    assert hub.trust.floor_version == 1


def test_the_ca_is_replaced_under_a_device(
    edgeops: Command, pi: Connected, http: httpx.Client, made: Setup, serving: Serving, tmp_path: Path
) -> None:
    """Rotate: the device learns of the new CA and gets a certificate from it. Finish: server and API show the new CA's, the old
    one is in no document any more, and the device connects with what it has learnt.
    """
    layout, folder = Layout(made.folder), str(made.folder)
    old = x509.load_pem_x509_certificate(layout.certificate("server").read_bytes()).issuer
    assert edgeops("ca", "finish", "--folder", folder) == 2
    assert edgeops("ca", "rotate", "--folder", folder) == 0
    assert edgeops("ca", "rotate", "--folder", folder) == 2
    pi = reconnected(pi, tmp_path / "pi", serving)
    pi.send("presence", pi.device.presence())
    await_documents(pi, site=2)
    assert edgeops("ca", "finish", "--folder", folder) == 2
    answer = http.post("/renew", content=pi.device.renewal(), headers=JSON).raise_for_status().json()
    new = x509.load_pem_x509_certificate(answer["certificate"].encode())
    bundle = "".join(sites(layout)[-1])
    (tmp_path / "pi" / "ca").write_text(bundle)
    (tmp_path / "pi" / "crt").write_text(answer["certificate"])
    pi = reconnected(pi, tmp_path / "pi", serving)
    pi.send("presence", pi.device.presence())
    until_has(http, 1)
    assert edgeops("ca", "finish", "--folder", folder) == 0
    listed = sites(layout)[-1]
    assert len(listed) == 1
    assert new.issuer == x509.load_pem_x509_certificate(listed[0].encode()).subject
    (tmp_path / "pi" / "ca").write_text(listed[0])
    pi = reconnected(pi, tmp_path / "pi", serving)
    pi.send("presence", pi.device.presence())
    await_documents(pi, site=3)
    trusting = ssl.create_default_context(cadata=listed[0])
    with httpx.Client(base_url=serving.url + "/api/v1", verify=trusting, trust_env=False) as far:
        assert far.get("/health").raise_for_status().json()["status"] == "ok"
        assert far.get("/ca").text == listed[0]
    assert old == x509.load_pem_x509_certificate(sites(layout)[0][0].encode()).subject
    pi.close()
    serving.stop()
    again = Serving(made.folder)
    again.stop()


def reconnected(link: Connected, folder: Path, serving: Serving) -> Connected:
    """The same device on a connection of its own, with the TLS files as they are now."""
    link.close()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Connected(link.device, folder, serving.running.broker.port)
        except (OSError, EdgeopsError):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def sites(layout: Layout) -> list[tuple[str, ...]]:
    """The CAs of every site document so far."""
    return [read_site(path.read_bytes()).cas for path in layout.all_of("site")]


def until_has(http: httpx.Client, devices: int) -> None:
    """Wait until so many devices have said that they have the site."""
    deadline = time.monotonic() + PATIENCE_S
    while http.get("/documents").json()["have"]["site"] < devices:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_manager_opens_no_offline_key(pi: Connected, made: Setup, http: httpx.Client, opened: list[str]) -> None:
    """Whatever a running manager does, it reads no root, site or release key: they may be anywhere else."""
    publish(http, made.folder, 1)
    opened.clear()
    http.post("/rollouts", json={"model": "digits", "version": 1, "to": "all", "waves": "100%"}).raise_for_status()
    wished(pi)
    http.get("/documents").raise_for_status()
    assert not [path for path in opened if path.startswith(str(made.folder / "keys"))]


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every file this process opens."""
    found: list[str] = []
    listening = True

    def hear(event: str, words: tuple[object, ...]) -> None:
        if listening and event == "open" and isinstance(words[0], str | os.PathLike):
            found.append(os.fspath(words[0]))

    sys.addaudithook(hear)
    yield found
    listening = False


def test_a_new_manager_needs_one_key(made: Setup, opened: list[str]) -> None:
    """From start to stop only the online key is read, even where all keys lie beside it."""
    opened.clear()
    Serving(made.folder).stop()
    keys = {Path(path).name for path in opened if path.startswith(str(made.folder / "keys"))}
    assert keys == {"online.key"}
