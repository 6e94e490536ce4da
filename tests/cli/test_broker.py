"""`edgeops broker config`: what it prints is what mosquitto runs with."""

import subprocess
from pathlib import Path

import pytest

from edgeops.broker.mosquitto import find_mosquitto
from edgeops.broker.reach import wait_until_ready
from edgeops.manager.layout import Layout
from edgeops.manager.settings import load


@pytest.mark.real
@pytest.mark.parametrize("kind", ["mosquitto"], indirect=True)
def test_the_printed_configuration_runs(kind: str, tmp_path: Path, config: Path, edgeops) -> None:
    """A mosquitto started by hand with the printed files serves devices' TLS with the manager's certificate."""
    home = tmp_path / "m"
    assert edgeops("init", str(home), "--fleet", "berlin", "--mqtt-port", "0", "--https-port", "0").code == 0
    layout, program = Layout(home), find_mosquitto()
    printed = edgeops("broker", "config", str(home))
    rules = edgeops("broker", "config", str(home), "--acl")
    assert printed.code == rules.code == 0 and "require_certificate true" in printed.out and "%u" in rules.out
    assert edgeops("broker", "config", str(home), "--json").json == {"config": printed.out, "acl": rules.out}
    layout.broker.mkdir(exist_ok=True)
    (layout.broker / "mosquitto.acl").write_text(rules.out)
    (tmp_path / "mosquitto.conf").write_text(printed.out)
    port = load(layout.settings).mqtt_port
    with subprocess.Popen([str(program), "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.PIPE) as child:
        try:
            wait_until_ready("127.0.0.1", port, layout.certificate("server"), lambda: child.poll() is None, lambda: "")
        finally:
            child.terminate()


def test_there_must_be_a_manager(tmp_path: Path, config: Path, edgeops) -> None:
    """Elsewhere it says what is missing."""
    assert edgeops("broker", "config", str(tmp_path)).code == 2
