"""Every way to ask wrongly is answered by a problem document with its own reason, and changes nothing."""

import errno
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from manager_house import Clock, FakeDevice, make_release, release_signer
from sqlalchemy import event

from edgeops.manager import tokens
from edgeops.manager.hub import Hub
from edgeops.wire.envelope import seal
from edgeops.wire.keys import Signer, sha256
from edgeops.wire.token import Token

API = "/api/v1"


def problem(answer: Any, status: int, reason: str) -> dict[str, Any]:
    """Check that an answer is a problem document and return it."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["reason"]) == (status, status, reason), body
    assert body["type"].startswith("urn:edgeops:error:") and body["title"] and body["detail"]
    return body


def register(client: TestClient, name: str = "pi-1") -> Token:
    """Register a device."""
    answer = client.post(f"{API}/devices", json={"id": name, "labels": {"site": "berlin"}})
    assert answer.status_code == 201, answer.text
    return Token.decode(answer.json()["token"])


def enrol(client: TestClient, sealed: bytes, where: str = "enroll") -> Any:
    """Send an envelope."""
    return client.post(f"{API}/{where}", content=sealed, headers={"content-type": "application/json"})


def enrolled(client: TestClient, name: str = "pi-1") -> FakeDevice:
    """Register and enrol a device."""
    device = FakeDevice(name)
    answer = enrol(client, device.enrolment(register(client, name).secret))
    assert answer.status_code == 201, answer.text
    return device


def with_role(hub: Hub, role: str, ttl_s: int | None = None) -> dict[str, str]:
    """Headers of a new token."""
    with hub.store.write() as tx:
        return {"authorization": "Bearer " + tokens.issue(tx, f"a-{role}", role, hub.now(), ttl_s)}


@pytest.mark.parametrize("path", ["/devices", "/releases", "/rollouts", "/status", "/telemetry", "/drift", "/audit", "/models"])
def test_reading_needs_a_token(client: TestClient, path: str) -> None:
    """Without a token every noun answers 401, and says what kind of token it wants."""
    answer = client.get(API + path, headers={"authorization": ""})
    problem(answer, 401, "token-missing")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("text", ["nonsense", "edgeops_" + "x" * 43])
def test_an_unknown_token_is_refused(client: TestClient, text: str) -> None:
    """A token nobody issued is 401."""
    problem(client.get(f"{API}/devices", headers={"authorization": f"Bearer {text}"}), 401, "token-unknown")


def test_an_expired_token_is_refused(client: TestClient, hub: Hub, clock: Clock) -> None:
    """A token works until its second of expiry and not in it."""
    headers = with_role(hub, "viewer", ttl_s=100)
    clock.now += 99
    assert client.get(f"{API}/devices", headers=headers).status_code == 200
    clock.now += 1
    problem(client.get(f"{API}/devices", headers=headers), 401, "token-expired")


def test_a_viewer_may_look_but_not_act(client: TestClient, hub: Hub) -> None:
    """Everything that changes something needs an operator."""
    viewer = with_role(hub, "viewer")
    register(client)
    assert client.get(f"{API}/devices", headers=viewer).status_code == 200
    for method, path, body in (
        ("POST", "/devices", {"id": "x"}), ("PATCH", "/devices/pi-1", {"labels": {}}), ("POST", "/devices/pi-1/token", {}),
        ("POST", "/devices/pi-1/revoke", None), ("PUT", f"/objects/{sha256(b'')}", None), ("POST", "/releases", {"envelope": ""}),
        ("POST", "/rollouts", {"model": "m", "version": 1, "to": "all"}), ("POST", "/rollouts/r/pause", None),
        ("POST", "/rollouts/r/resume", None), ("POST", "/rollouts/r/advance", None), ("POST", "/rollouts/r/abort", None),
    ):  # fmt: skip
        problem(client.request(method, API + path, json=body, headers=viewer), 403, "role")


@pytest.mark.parametrize("path", ["/nothing", "/devices/ghost", "/rollouts/ghost", "/releases/ghost/1", f"/objects/{'0' * 64}"])
def test_what_is_not_there_is_a_404(client: TestClient, path: str) -> None:
    """Unknown paths and unknown things alike."""
    answer = client.get(API + path)
    problem(answer, 404, answer.json()["reason"])


def test_another_method_is_a_405(client: TestClient) -> None:
    """A known path with a wrong method."""
    problem(client.delete(f"{API}/devices"), 405, "method-not-allowed")


@pytest.mark.parametrize(
    "body", [{}, {"id": 7}, {"id": "x", "labels": "no"}, {"id": "x", "ttl_s": 1}, {"id": "x", "ttl_s": "soon"}, []]
)
def test_a_body_of_another_form_is_a_422(client: TestClient, body: object) -> None:
    """Validation errors name the field."""
    assert problem(client.post(f"{API}/devices", json=body), 422, "validation")["errors"]


def test_a_body_that_is_not_json_is_a_422(client: TestClient) -> None:
    """Broken JSON is a validation error, not a crash."""
    problem(client.post(f"{API}/devices", content=b"{", headers={"content-type": "application/json"}), 422, "validation")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ü", "a/b", "manager"])
def test_bad_device_ids_are_refused(client: TestClient, name: str) -> None:
    """Ids that would break topics or claim the manager's name."""
    problem(client.post(f"{API}/devices", json={"id": name}), 400, "device-id-invalid")


def test_bad_labels_are_refused(client: TestClient) -> None:
    """Labels selectors could not name; registering nothing."""
    problem(client.post(f"{API}/devices", json={"id": "a", "labels": {"all": "x"}}), 400, "labels-invalid")
    problem(client.post(f"{API}/devices", json={"id": "a", "labels": {"a": "b c"}}), 400, "labels-invalid")
    assert client.get(f"{API}/devices").json()["devices"] == []


def test_registering_twice_is_a_conflict(client: TestClient) -> None:
    """A second registration neither succeeds nor spoils the first token."""
    token = register(client)
    problem(client.post(f"{API}/devices", json={"id": "pi-1"}), 409, "device-exists")
    assert enrol(client, FakeDevice("pi-1").enrolment(token.secret)).status_code == 201


def test_wrong_spent_and_expired_tokens_look_the_same(client: TestClient, clock: Clock) -> None:
    """All ways an enrolment token can be wrong give one answer, so nobody learns which devices exist."""
    token = register(client)
    bodies = [problem(enrol(client, FakeDevice("pi-1").enrolment("0" * 64)), 401, "token-refused")]
    bodies.append(problem(enrol(client, FakeDevice("ghost").enrolment(token.secret)), 401, "token-refused"))
    assert enrol(client, FakeDevice("pi-1").enrolment(token.secret)).status_code == 201
    bodies.append(problem(enrol(client, FakeDevice("pi-1").enrolment(token.secret)), 401, "token-refused"))
    late = register(client, "pi-2")
    clock.now = late.expires
    bodies.append(problem(enrol(client, FakeDevice("pi-2").enrolment(late.secret)), 401, "token-refused"))
    assert all(body == bodies[0] for body in bodies)


def test_a_bad_signing_request_does_not_burn_the_token(client: TestClient) -> None:
    """A request that cannot be signed leaves the token usable."""
    token, device = register(client), FakeDevice("pi-1")
    for bad in ("", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"):
        problem(enrol(client, device.enrolment(token.secret, csr=bad)), 400, "bad-csr")
    assert enrol(client, device.enrolment(token.secret)).status_code == 201


def test_an_unsigned_or_wrongly_signed_release_is_not_stored(client: TestClient, hub: Hub) -> None:
    """Only the release role of the root can bring a release in: not the online key, not a stranger's."""
    for signer in (hub.online, Signer.from_seed(b"s" * 32)):
        made = make_release(signer)
        problem(client.post(f"{API}/releases", json={"envelope": made.envelope.decode()}), 422, "unknown-key")
    good = json.loads(make_release(release_signer(hub.layout.root)).envelope)
    problem(client.post(f"{API}/releases", json={"envelope": good | {"signatures": []}}), 422, "threshold")
    problem(client.post(f"{API}/releases", json={"envelope": "rubbish"}), 422, "not-canonical")
    assert client.get(f"{API}/releases").json()["releases"] == []


def test_missing_objects_are_listed(client: TestClient, hub: Hub) -> None:
    """A release whose objects are not all here is a 409 that names exactly the missing ones, down to the manifest's tensors."""
    made = make_release(release_signer(hub.layout.root))
    manifest = made.release.variants["base"].manifest.sha256
    body = {"envelope": made.envelope.decode()}
    assert problem(client.post(f"{API}/releases", json=body), 409, "missing-objects")["missing"] == [manifest]
    assert client.put(f"{API}/objects/{manifest}", content=made.objects[manifest]).status_code == 201
    rest = sorted(set(made.objects) - {manifest})
    assert problem(client.post(f"{API}/releases", json=body), 409, "missing-objects")["missing"] == rest
    for digest in rest:
        client.put(f"{API}/objects/{digest}", content=made.objects[digest])
    assert client.post(f"{API}/releases", json=body).status_code == 201
    assert client.post(f"{API}/releases", json=body).status_code == 201


def test_a_release_that_lies_about_its_size_is_refused(client: TestClient, hub: Hub) -> None:
    """Devices would refuse its stream list: a variant's size is exactly what its manifest and the objects named there have."""
    signer = release_signer(hub.layout.root)
    made = make_release(signer)
    for digest, data in made.objects.items():
        client.put(f"{API}/objects/{digest}", content=data)
    variant = made.release.variants["base"]
    for wrong in (-1, 1):
        lie = replace(made.release, variants={"base": replace(variant, size=variant.size + wrong)})
        sealed = seal("release", lie.payload(), [signer]).decode()
        problem(client.post(f"{API}/releases", json={"envelope": sealed}), 422, "wrong-size")


def test_a_version_cannot_be_used_twice(client: TestClient, hub: Hub) -> None:
    """Another release under the same model and version is a conflict."""
    signer = release_signer(hub.layout.root)
    for made, status in ((make_release(signer), 201), (make_release(signer, size=1000), 409)):
        for digest, data in made.objects.items():
            client.put(f"{API}/objects/{digest}", content=data)
        assert client.post(f"{API}/releases", json={"envelope": made.envelope.decode()}).status_code == status


def test_objects_must_hash_to_their_name(client: TestClient) -> None:
    """Other bytes, odd names and sizes over the limit are refused."""
    problem(client.put(f"{API}/objects/{'0' * 64}", content=b"x"), 422, "bad-object")
    problem(client.put(f"{API}/objects/..%2f..%2fx", content=b"x"), 404, "not-found")
    problem(client.put(f"{API}/objects/ABC", content=b"x"), 400, "bad-digest")


def test_an_object_over_the_limit_is_a_413(client: TestClient, hub: Hub) -> None:
    """Both an honest and a lying Content-Length stop at the limit."""
    object.__setattr__(hub.settings, "max_object_bytes", 10)
    data = b"x" * 11
    problem(client.put(f"{API}/objects/{sha256(data)}", content=data), 413, "too-large")
    problem(client.put(f"{API}/objects/{sha256(data)}", content=iter([data])), 413, "too-large")
    assert client.put(f"{API}/objects/{sha256(data[:10])}", content=data[:10]).status_code == 201


def order(**other: object) -> dict[str, object]:
    """A rollout order."""
    return {"model": "digits", "version": 1, "to": "all", **other}


def publish(client: TestClient, hub: Hub) -> None:
    """Upload release digits:1."""
    made = make_release(release_signer(hub.layout.root))
    for digest, data in made.objects.items():
        client.put(f"{API}/objects/{digest}", content=data)
    assert client.post(f"{API}/releases", json={"envelope": made.envelope.decode()}).status_code == 201


def test_impossible_rollouts_start_nothing(client: TestClient, hub: Hub) -> None:
    """Unknown release, nobody selected, odd waves, unknown knobs: each has its reason, and no rollout is left behind."""
    problem(client.post(f"{API}/rollouts", json=order()), 404, "unknown-release")
    publish(client, hub)
    problem(client.post(f"{API}/rollouts", json=order()), 422, "selector-empty")
    enrolled(client)
    problem(client.post(f"{API}/rollouts", json=order(to="site=nowhere")), 422, "selector-empty")
    problem(client.post(f"{API}/rollouts", json=order(to="")), 400, "selector-invalid")
    problem(client.post(f"{API}/rollouts", json=order(waves="100%,1")), 400, "waves-invalid")
    problem(client.post(f"{API}/rollouts", json=order(policy={"dwel_s": 1})), 400, "policy-unknown")
    problem(client.post(f"{API}/rollouts", json=order(policy={"dwell_s": -1})), 400, "policy-invalid")
    problem(client.post(f"{API}/rollouts", json=order(trial={"window": 1})), 400, "trial-unknown")
    problem(client.post(f"{API}/rollouts", json=order(variant="tiny")), 404, "unknown-variant")
    problem(client.post(f"{API}/rollouts", json=order(slot="a b")), 400, "bad-slot")
    problem(client.post(f"{API}/rollouts", json=order(version=0)), 422, "validation")
    assert client.get(f"{API}/rollouts").json()["rollouts"] == []


def test_operating_out_of_place_is_a_conflict(client: TestClient, hub: Hub) -> None:
    """Resuming what runs, touching what is over, or starting over a running rollout."""
    publish(client, hub)
    enrolled(client)
    rollout = client.post(f"{API}/rollouts", json=order()).json()["id"]
    problem(client.post(f"{API}/rollouts", json=order()), 409, "rollout-conflict")
    problem(client.post(f"{API}/rollouts/{rollout}/resume"), 409, "illegal-transition")
    problem(client.post(f"{API}/rollouts/{rollout}/abort", json={"mode": "sideways"}), 422, "validation")
    assert client.post(f"{API}/rollouts/{rollout}/abort", json={"mode": "keep"}).json()["status"] == "aborted"
    problem(client.post(f"{API}/rollouts/{rollout}/pause"), 409, "illegal-transition")


def test_renewal_needs_the_identity_key(client: TestClient) -> None:
    """A renewal signed by another key, of another incarnation or of a revoked device is refused; a good one gives a certificate."""
    device = enrolled(client)
    problem(enrol(client, FakeDevice("pi-1").renewal(), "renew"), 403, "renew-refused")
    problem(enrol(client, device.renewal(incarnation=2), "renew"), 422, "incarnation")
    problem(enrol(client, b"x" * 40_000, "renew"), 413, "too-large")
    assert enrol(client, device.renewal(), "renew").status_code == 201
    assert client.post(f"{API}/devices/pi-1/revoke").json()["status"] == "revoked"
    problem(enrol(client, device.renewal(), "renew"), 403, "device-revoked")


def test_an_error_of_our_own_is_a_problem_too(client: TestClient, hub: Hub) -> None:
    """A closed database gives 500 as a problem document, without the inner text."""
    client.get(f"{API}/devices")
    (hub.layout.blobs / "00").write_text("a file where a folder belongs")
    body = problem(client.get(f"{API}/objects/{'0' * 64}"), 500, "internal")
    assert "NotADirectory" not in body["detail"]


@pytest.fixture
def full_database(hub: Hub) -> Iterator[None]:
    """The database cannot grow by a page: every new connection is told so, as a full disk would."""

    def stop_growing(raw: Any, _record: Any) -> None:
        raw.execute("PRAGMA max_page_count=1").close()

    hub.store.engine.dispose()
    event.listen(hub.store.engine, "connect", stop_growing)
    yield
    event.remove(hub.store.engine, "connect", stop_growing)
    hub.store.engine.dispose()


@pytest.mark.usefixtures("full_database")
def test_a_full_disk_is_a_507_and_looking_still_works(client: TestClient) -> None:
    """What would be stored is refused whole, with what to do; reading goes on, though a token's last use cannot be noted."""
    answers = [client.post(f"{API}/devices", json={"id": f"pi-{number}", "labels": {"a": "b" * 64}}) for number in range(200)]
    body = problem(answers[-1], 507, "disk-full")
    assert body["kind"] == "unfit" and "free some space" in body["detail"]
    stored = sum(answer.status_code == 201 for answer in answers)
    assert len(client.get(f"{API}/devices").json()["devices"]) == stored < 200
    assert client.get(f"{API}/audit").json()["intact"] is True


class FullFile(io.BytesIO):
    """A file on a disk that is full."""

    def write(self, _data: object) -> int:
        """Fail as the kernel does."""
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["spool", "store"])
def test_a_full_disk_leaves_no_part_of_an_object(
    client: TestClient, hub: Hub, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither the spool nor the store keeps a piece of what did not fit, and the object can be sent again."""
    data = b"x" * 100_000
    path = f"{API}/objects/{sha256(data)}"

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "spool":
            patch.setattr("tempfile.TemporaryFile", lambda **_where: FullFile())
        else:
            patch.setattr("os.fsync", full)
        problem(client.put(path, content=data), 507, "disk-full")
    assert [found for found in hub.layout.blobs.rglob("*") if found.is_file()] == []
    assert client.head(path).status_code == 404
    assert client.put(path, content=data).status_code == 201


def test_what_a_killed_manager_left_half_written_is_swept(hub: Hub) -> None:
    """A part of an object without its name is deleted at the next start; whole objects stay."""
    hub.blobs.put(sha256(b"whole"), b"whole", 100)
    part = hub.blobs.path(sha256(b"whole")).with_name(".new-half")
    part.write_bytes(b"ha")
    hub.blobs.sweep()
    assert not part.exists() and hub.blobs.read(sha256(b"whole")) == b"whole"
