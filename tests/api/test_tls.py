"""TLS of the API by the real openssl, and private keys: readable by their owner only, and in no log."""

import logging
import re
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from manager_house import new_manager

from edgeops.api.serve import Serving
from edgeops.broker.reach import claim_port
from edgeops.manager.setup import Setup

from .line import enrol

pytestmark = pytest.mark.real


@pytest.fixture
def made(kind: str, tmp_path: Path) -> Setup:
    """A new manager with all its doors open, with each broker in turn."""
    return new_manager(tmp_path / "m", int(time.time()), broker=kind, wss_port=claim_port("127.0.0.1", 0))


def shaken(port: int, ca: Path, *options: str) -> str:
    """What `openssl s_client` says of a handshake; empty when there was none."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ca), *options]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"CONNECTED" in done.stdout, done.stderr
    return "" if b"Cipher is (NONE)" in done.stdout else done.stdout.decode()


def test_every_door_speaks_new_tls_only(made: Setup, serving: Serving) -> None:
    """HTTPS, MQTT and secure WebSocket: our certificate, TLS 1.2 or 1.3 with forward secrecy; nothing older or weaker.

    HTTPS and WebSocket ask for no client certificate, as it plays no part there; MQTT does.
    """
    doors = {"https": serving.port, "mqtt": serving.running.broker.port, "wss": serving.running.hub.settings.wss_port}
    for name, port in doors.items():
        for version in ("-tls1_2", "-tls1_3"):
            said = shaken(port, made.ca, version)
            assert "Verify return code: 0 (ok)" in said, (name, version)
            assert ("Requested Signature Algorithms" in said) == (name == "mqtt"), (name, version)
        for weak in (
            ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), ("-tls1", "-cipher", "ALL:@SECLEVEL=0"),
            ("-tls1_2", "-cipher", "AES128-SHA:AES256-GCM-SHA384:@SECLEVEL=0"),
            ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"), ("-tls1_2", "-cipher", "NULL:aNULL:@SECLEVEL=0"),
        ):  # fmt: skip
            assert not shaken(port, made.ca, *weak), (name, weak)


def test_private_files_are_private_and_unspoken(
    made: Setup, serving: Serving, http: httpx.Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys, passwords, settings, the database and all the broker reads: for their owner only. No log and no answer holds a key."""
    caplog.set_level(logging.DEBUG)
    device = enrol(http, tmp_path / "dev", "pi-1")
    http.post("/devices/pi-1/revoke").raise_for_status()
    folder = made.folder
    files = [path for path in folder.rglob("*") if path.is_file()]
    keys = [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    assert {"ca.key", "server.key", "manager.key", "online.key"} <= {path.name for path in keys}
    assert (folder / "broker" / "passwords").is_file()
    private = [*keys, *(folder / "broker").iterdir(), *folder.glob("edgeops.*")]
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in private if path.stat().st_mode & 0o077} == {}
    assert all((folder / name).stat().st_mode & 0o077 == 0 for name in ("broker", "keys", "pki"))
    said = caplog.text + "".join(
        http.get(path).text for path in ("/devices", "/devices/pi-1", "/audit", "/ca", "/health", "/openapi.json", "/status")
    )
    bodies = [re.sub(rb"-----[A-Z ]+-----|\s", b"", path.read_bytes())[:40].decode() for path in keys]
    assert "PRIVATE KEY" not in said and not [body for body in bodies if body in said]
    assert device.identity.public.hex() not in said
