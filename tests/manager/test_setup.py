"""A new manager: private keys, believable documents, settings that are checked."""

import os
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from cryptography import x509
from manager_house import FLEET, NOW, Clock, new_manager

from edgeops.manager import tokens
from edgeops.manager.files import alone
from edgeops.manager.hub import Hub, open_hub
from edgeops.manager.layout import Layout
from edgeops.manager.pki import server_names
from edgeops.manager.settings import Settings, dump, load, settings_from
from edgeops.manager.setup import initialise
from edgeops.wire.errors import Misuse
from edgeops.wire.trust import accept_site, pin_root


def test_root_and_site_are_believed_by_a_new_device(hub: Hub) -> None:
    """The first root verifies against its pin, and the site against the root."""
    trust = pin_root(hub.first_root, FLEET, hub.root_pin, "pi-1", 1)
    _, site = accept_site(trust, hub.site_document)
    assert site.https[0] == f"https://localhost:{hub.settings.https_port}"
    assert site.mqtt[0] == f"mqtts://localhost:{hub.settings.mqtt_port}"
    assert site.cas == (hub.ca.certificate_pem.decode(),)


def test_private_files_are_private(hub: Hub) -> None:
    """Every key, the database and the settings can be read by the owner only."""
    keys = [*hub.layout.root.glob("keys/*.key"), *hub.layout.root.glob("pki/*.key"), hub.layout.database, hub.layout.settings]
    assert len(keys) == 9
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_the_server_certificate_has_the_given_names(hub: Hub) -> None:
    """Names and addresses stand in the certificate as what they are; this machine itself always does."""
    certificate = x509.load_pem_x509_certificate(hub.layout.certificate("server").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    elsewhere = server_names(("manager.lan", "0.0.0.0"))
    assert elsewhere == ("manager.lan", "localhost", "127.0.0.1", "::1")


def test_a_folder_is_never_initialised_twice(tmp_path: Path) -> None:
    """Keys of a living fleet are not overwritten."""
    made = new_manager(tmp_path / "m")
    before = Layout(made.folder).key("root").read_bytes()
    with pytest.raises(Misuse, match="already-initialised"):
        initialise(made.folder, FLEET, ("localhost",), NOW)
    assert Layout(made.folder).key("root").read_bytes() == before


def test_the_admin_token_works_and_is_not_stored(tmp_path: Path) -> None:
    """Only its hash is in the database."""
    made = new_manager(tmp_path / "m")
    hub = open_hub(made.folder, Clock())
    with hub.store.read() as tx:
        assert tokens.check(tx, made.admin_token, NOW)[0].role == "admin"
    hub.close()
    assert all(made.admin_token.encode() not in path.read_bytes() for path in made.folder.rglob("*") if path.is_file())


def test_the_manager_needs_only_the_online_key(hub: Hub) -> None:
    """Root, site and release keys may be moved away from a running manager."""
    for role in ("root", "site", "release"):
        hub.layout.key(role).unlink()
    open_hub(hub.layout.root, Clock()).close()


def test_an_online_key_the_root_does_not_know_is_refused(hub: Hub) -> None:
    """A manager that could only sign what devices refuse does not start."""
    hub.layout.key("online").write_bytes(hub.layout.key("release").read_bytes())
    with pytest.raises(Misuse, match="online-key"):
        open_hub(hub.layout.root, Clock())


def test_settings_survive_writing_and_reading(tmp_path: Path) -> None:
    """What is dumped loads as the same settings, and there are at most twenty."""
    chosen = Settings(fleet="f-1", addresses=("a.example", "::1"), https_port=1)
    (tmp_path / "x.toml").write_text(dump(chosen))
    assert load(tmp_path / "x.toml") == chosen
    assert len(fields(Settings)) <= 20
    assert set(tomllib.loads(dump(chosen))) == {item.name for item in fields(Settings)}


@pytest.mark.parametrize(
    ("raw", "reason", "named"),
    [
        ({"https_prt": 1}, "setting-unknown", "https_port"), ({"https_port": "1"}, "setting-invalid", "https_port"),
        ({"https_port": True}, "setting-invalid", "https_port"), ({"fleet": "a b"}, "setting-invalid", "fleet"),
        ({"broker": "emqx"}, "setting-invalid", "mosquitto"), ({"addresses": []}, "setting-invalid", "addresses"),
        ({"tick_ms": 0}, "setting-invalid", "tick_ms"), ({"addresses": "x"}, "setting-invalid", "addresses"),
        ({"https_port": 65_536}, "setting-invalid", "https_port"), ({"mqtt_port": -1}, "setting-invalid", "mqtt_port"),
        ({"tick_ms": 10**30}, "setting-invalid", "tick_ms"), ({"certificate_days": 10**9}, "setting-invalid", "certificate_days"),
    ],
)  # fmt: skip
def test_wrong_settings_are_named(raw: dict[str, object], reason: str, named: str) -> None:
    """An unknown or impossible setting is a Misuse that names it."""
    with pytest.raises(Misuse, match=named) as caught:
        settings_from(raw)
    assert caught.value.reason == reason


def test_a_folder_without_a_manager_says_what_to_do(tmp_path: Path) -> None:
    """Opening an empty folder points to init."""
    with pytest.raises(Misuse, match="edgeops init"):
        open_hub(tmp_path, Clock())


@pytest.mark.parametrize("exists", [True, False])
def test_a_manager_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool) -> None:
    """Whatever stops the making, down to the last file, leaves the folder as it was."""
    folder = tmp_path / "m"
    if exists:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")

    def stopped(_settings: Settings) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("edgeops.manager.setup.dump", stopped)
        new_manager(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"] if exists else not folder.exists()
    new_manager(folder)


def test_one_manager_a_folder(tmp_path: Path) -> None:
    """The lock is held while it is held, names its holder, and is free afterwards."""
    with alone(tmp_path / "lock"), pytest.raises(Misuse, match=str(os.getpid())), alone(tmp_path / "lock"):
        pass
    with alone(tmp_path / "lock"):
        pass
