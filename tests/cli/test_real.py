"""The command line against the real manager: `edgeops up` as a process of its own, everything else as a user would type it."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeops.broker.reach import claim_port
from edgeops.cli import context
from edgeops.manager.files import alone
from edgeops.manager.layout import Layout
from edgeops.wire.token import Token

pytestmark = pytest.mark.real
PATIENCE_S = 40.0


@pytest.fixture
def manager(tmp_path: Path, config: Path, edgeops, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A real manager, initialised and up; stopped with SIGTERM afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEOPS_RELEASE_KEY", raising=False)
    assert edgeops("init", "m", "--fleet", "berlin", "--address", "127.0.0.1", "--https-port", "0", "--mqtt-port", "0").code == 0
    words = [sys.executable, "-m", "edgeops.cli.entry", "up", "m", "--json"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        pytest.fail(f"the manager did not come up: {child.communicate(timeout=20)[1]}")
    assert json.loads(line)["ready"] is True
    yield child
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    child.communicate(timeout=PATIENCE_S)


def test_a_session(manager, edgeops, digits):
    """Register, list, label, upload, refuse, revoke, audit: all against the real API, with the exit codes it promises."""
    ran = edgeops("device", "register", "pi-01", "--label", "site=berlin", "--json")
    token = Token.decode(ran.json["token"])
    assert (token.device, token.fleet, token.urls) == ("pi-01", "berlin", (context.load().pick().url,))
    assert ran.json["line"] == f"edgeops-agent enroll {ran.json['token']} && edgeops-agent run"
    assert edgeops("device", "register", "pi-01").code == 2
    assert edgeops("device", "register", "not an id").code == 2
    assert edgeops("device", "label", "pi-01", "arch=arm", "site=").code == 0
    assert edgeops("device", "list", "--selector", "arch=arm", "--json").json["devices"][0]["labels"] == {"arch": "arm"}
    assert edgeops("device", "list", "--selector", "arch==", "--json").code == 2
    assert edgeops("device", "token", "pi-01", "--json").json["token"] != ran.json["token"]
    assert "pi-01" in edgeops("device", "show", "pi-01").out
    assert edgeops("health", "--json").json["fleet"] == "berlin"
    for words in (("status",), ("drift",), ("telemetry",), ("rollout", "list"), ("release", "list"), ("model", "list")):
        assert edgeops(*words).code == 0
        assert edgeops(*words, "--json").code == 0

    assert edgeops("model", "add", "digits:1", *digits, "--folder", "m").code == 0
    assert edgeops("release", "show", "digits:1", "--json").json["version"] == 1
    assert edgeops("model", "list", "--json").json["models"][0]["latest"] == 1
    ran = edgeops("rollout", "start", "digits:1", "--to", "site=nowhere", "--json")
    assert (ran.json["error"]["reason"], ran.code) == ("selector-empty", 2)
    assert edgeops("rollout", "start", "digits:7", "--to", "all").code == 2
    assert edgeops("rollout", "start", "digits:1", "--to", "all", "--waves", "5,1").code == 2
    assert edgeops("rollout", "show", "r-none").code == 2

    assert edgeops("device", "revoke", "pi-01", "--yes").code == 0
    assert "revoked" in edgeops("device", "list").out
    actions = [entry["action"] for entry in edgeops("audit", "show", "--json").json["audit"]]
    assert {"device-register", "release-store", "device-revoke"} <= set(actions)
    assert edgeops("doctor", "m").code == 0


def test_unsigned_and_foreign_releases_are_refused(manager, edgeops, digits, tmp_path: Path):
    """A release signed by a key the root does not name is rejected by the manager and not listed."""
    assert edgeops("key", "new", "own.key").code == 0
    ran = edgeops("model", "add", "digits:1", *digits, "--fleet", "berlin", "--key", "own.key", "--json")
    assert (ran.code, ran.json["error"]["kind"]) == (3, "rejected")
    assert edgeops("release", "list", "--json").json["releases"] == []
    assert [path for path in Path("m/blobs").rglob("*") if path.is_file()] == []


def test_the_broker_may_hold_as_many_devices_as_the_machine_allows(config, edgeops, tmp_path: Path):
    """`up` raises its own limit of open files, which the broker inherits, to the hard one."""
    assert edgeops("init", str(tmp_path / "m"), "--https-port", "0", "--mqtt-port", "0").code == 0
    code = (
        "import resource, sys; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "from edgeops.api import serve\n"
        "def ready(serving):\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(hard if hard > 0 else 10_240, 10_240), flush=True)\n"
        "    raise KeyboardInterrupt\n"
        "from pathlib import Path; serve.serve(Path(sys.argv[1]), ready)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "m")]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ran.stdout == "True\n", ran.stderr


def test_wrong_token_is_told(manager, edgeops):
    """An unknown API token is refused with its reason and exit 2."""
    held = context.load().pick()
    context.save(context.load().added(context.Context("stranger", held.url, held.ca, "edgeops_wrong")))
    ran = edgeops("device", "list", "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (2, "token-unknown")
    assert edgeops("device", "list", "--context", "berlin").code == 0


def test_a_viewer_looks_and_no_more(manager, edgeops, monkeypatch: pytest.MonkeyPatch):
    """A token of a lower role, made and stored with the commands alone: looking works, acting is a 403, and it can be revoked."""
    held = context.load().pick()
    token = edgeops("token", "new", "anna").out.strip()
    words = ("context", "add", "anna", "--url", held.url, "--ca", held.ca)
    monkeypatch.setattr("sys.stdin", io.StringIO("edgeops_wrong\n"))
    assert "[token-unknown]" in edgeops(*words).err
    assert sorted(context.load().known) == ["berlin"]
    monkeypatch.setattr("sys.stdin", io.StringIO(token + "\n"))
    assert edgeops(*words).code == 0
    assert edgeops("status").code == 0
    for act in (("rollout", "start", "digits:1", "--to", "all"), ("device", "register", "x"), ("token", "list")):
        ran = edgeops(*act, "--json")
        assert (ran.code, ran.json["error"]["reason"]) == (2, "role"), act
    assert edgeops("token", "revoke", "anna", "--context", "berlin").code == 0
    assert "[token-unknown]" in edgeops("status").err
    assert "[last-admin]" in edgeops("token", "revoke", "admin", "--context", "berlin").err
    actions = [entry["action"] for entry in edgeops("audit", "show", "--json", "--context", "berlin").json["audit"]]
    assert {"token-new", "token-withdraw"} <= set(actions)


def up(folder: str) -> subprocess.CompletedProcess[str]:
    """`edgeops up` where it cannot work."""
    words = [sys.executable, "-m", "edgeops.cli.entry", "up", folder]
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=dict(os.environ))


def test_a_second_manager_on_the_same_folder(manager, edgeops):
    """`up` twice on one folder says who runs there, exits 2 and leaves the first one alone, whatever the ports."""
    settings = Path("m/edgeops.toml")
    settings.write_text(settings.read_text().replace("https_port = ", f"https_port = {claim_port('127.0.0.1', 0)} #"))
    second = up("m")
    assert second.returncode == 2
    assert f"(process {manager.pid})" in second.stderr and "[already-running]" in second.stderr
    assert "Traceback" not in second.stderr
    assert edgeops("health").code == 0


@pytest.mark.parametrize("setting", ["https_port", "mqtt_port"])
def test_a_busy_port_is_named_with_its_setting(config, edgeops, tmp_path: Path, setting: str):
    """`up` on a taken port names the setting and the file to change, exits 2, and leaves neither broker nor lock behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"https_port": "0", "mqtt_port": "0"}
        words = [f"--{name.replace('_', '-')}={port}" for name, port in ports.items()]
        assert edgeops("init", str(tmp_path / "m"), "--fleet", "berlin", *words).code == 0
        settings = tmp_path / "m" / "edgeops.toml"
        settings.write_text(re.sub(f"^{setting} = .*", f"{setting} = {taken.getsockname()[1]}", settings.read_text(), flags=re.M))
        ended = up(str(tmp_path / "m"))
    assert (ended.returncode, "[port-busy]" in ended.stderr) == (2, True)
    assert f"choose another {setting} in {settings}" in ended.stderr
    with alone(Layout(tmp_path / "m").lock):
        pass


def test_another_port_needs_another_site_document(config, edgeops, tmp_path: Path):
    """After a port is changed in edgeops.toml `up` refuses to start, `site sign` says so to devices, certificate and context."""
    home = tmp_path / "m"
    assert edgeops("init", str(home), "--fleet", "berlin", "--https-port", "0", "--mqtt-port", "0").code == 0
    settings, port = home / "edgeops.toml", claim_port("127.0.0.1", 0)
    changed = re.sub("^https_port = .*", f"https_port = {port}", settings.read_text(), flags=re.M)
    settings.write_text(re.sub("^addresses = .*", 'addresses = ["127.0.0.1"]', changed, flags=re.M))
    ended = up(str(home))
    assert ended.returncode == 2
    assert "[site-stale]" in ended.stderr and "edgeops site sign" in ended.stderr
    settings.write_text(re.sub("^mqtt_port = .*", "mqtt_port = 0", settings.read_text(), flags=re.M))
    assert "[site-stale]" in up(str(home)).stderr
    assert "[setting-invalid]" in edgeops("site", "sign", str(home)).err
    settings.write_text(re.sub("^mqtt_port = .*", f"mqtt_port = {claim_port('127.0.0.1', 0)}", settings.read_text(), flags=re.M))
    ran = edgeops("site", "sign", str(home), "--json")
    assert (ran.json["version"], ran.json["https"]) == (2, [f"https://127.0.0.1:{port}"])
    assert context.load().pick().url == f"https://127.0.0.1:{port}"
    words = [sys.executable, "-m", "edgeops.cli.entry", "up", str(home), "--json"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        assert child.stdout is not None and json.loads(child.stdout.readline())["ready"] is True
        assert edgeops("status").code == 0
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stops_and_leaves_nothing(manager, edgeops, number: int):
    """Ctrl-C and SIGTERM both end the manager: quietly, with its broker and ports gone."""
    broker = edgeops("health", "--json").json["broker"]["port"]
    manager.send_signal(number)
    _, err = manager.communicate(timeout=PATIENCE_S)
    assert manager.returncode == 0
    assert "Traceback" not in err
    assert edgeops("status").code == 4
    deadline = time.monotonic() + 10
    while True:
        try:
            assert claim_port("127.0.0.1", broker) == broker
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
