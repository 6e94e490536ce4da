"""mosquitto as a child process: found, configured for client certificates and our ACL, watched through its own log."""

import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Collection
from pathlib import Path

from edgeops.wire.errors import Misuse, Unreachable

from .acl import known_name, may_publish, may_read, mosquitto_acl
from .child import Leashed
from .ports import BrokerPlan, Kind
from .reach import CIPHERS, wait_until_ready, with_free_port

_LOG = logging.getLogger("edgeops.broker")
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin", "/home/linuxbrew/.linuxbrew/sbin")
# The manager is the slowest reader: 4,000 queued messages overflowed when 5,000 reports came at once. For QoS 0, mosquitto 2.0
# bounds only the number, not the bytes, so a device that stops reading during a broadcast costs up to its unread frames.
_RELOAD_S, _AGAIN_S = 5.0, 0.3
_CONFIG = """\
per_listener_settings false
allow_anonymous false
acl_file {acl}
persistence false
max_queued_messages 20000
max_queued_bytes 67108864
max_inflight_messages 100
message_size_limit 1048576
max_packet_size 1114112
persistent_client_expiration 1d
set_tcp_nodelay true
log_dest stderr
log_type all
log_timestamp false
connection_messages true

# Devices: a certificate of our authority, whose common name is user, client id and key to the ACL.
listener {port} {host}
cafile {ca}
certfile {cert}
keyfile {key}
tls_version tlsv1.2
ciphers {ciphers}
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""
_BROWSERS = """
# Browsers cannot present certificates: a short-lived password, and then the same name and ACL.
listener {wss_port} {host}
protocol websockets
certfile {cert}
keyfile {key}
tls_version tlsv1.2
ciphers {ciphers}
use_username_as_clientid true
"""


def find_mosquitto() -> Path | None:
    """The mosquitto program on PATH, in the sbin folders or from Homebrew; None where there is none."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_PLACES))
    return Path(found) if found else None


def mosquitto_config(plan: BrokerPlan, port: int, acl: Path) -> str:
    """The whole configuration file. Raises Misuse("bad-path") for a path that would break its lines."""
    paths = {"ca": plan.ca_path, "cert": plan.cert_path, "key": plan.key_path, "acl": acl}
    for path in [*paths.values(), plan.crl_path, plan.passwords_path]:
        if path is not None and ("\n" in str(path) or str(path) != str(path).strip()):
            raise Misuse("bad-path", f"mosquitto cannot read a file called {str(path)!r}; move it to a plain folder")
    named = {name: path.absolute() for name, path in paths.items()}
    text = _CONFIG.format(port=port, host=plan.host, ciphers=CIPHERS, **named)
    if plan.crl_path is not None:
        text += f"crlfile {plan.crl_path.absolute()}\n"
    if plan.wss_port and plan.passwords_path:
        text += _BROWSERS.format(wss_port=plan.wss_port, host=plan.host, ciphers=CIPHERS, **named)
        text = f"password_file {plan.passwords_path.absolute()}\n{text}"
    if os.geteuid() == 0:
        # mosquitto started by root would become the user "mosquitto", who cannot read our keys.
        text = f"user root\n{text}"
    return text


class DenialCount:
    """Counts refusals in mosquitto's log. It grants forbidden subscriptions and wills in silence and merely never delivers, so
    those are recognised by the topics it logs.
    """

    _SUBSCRIBED = re.compile(r"^(\S+) [012] (\S.*)$")
    _CONNECTED = re.compile(r"^New client connected from \S+ as (\S+) \(")
    _WILL_TOPIC = re.compile(r"^\t(\S.*)$")

    def __init__(self) -> None:
        self.denied = 0
        self._connecting = ""
        self._will_follows = False

    def read(self, line: str) -> None:
        """Take in one log line."""
        if line.startswith("Denied PUBLISH from"):
            self.denied += 1
        elif match := self._CONNECTED.match(line):
            self._connecting = match[1]
        elif line.startswith("Will message specified"):
            self._will_follows = True
            return
        elif self._will_follows and (match := self._WILL_TOPIC.match(line)):
            self.denied += not may_publish(self._connecting, match[1])
        elif match := self._SUBSCRIBED.match(line):
            self.denied += known_name(match[1]) and not may_read(match[1], match[2])
        self._will_follows = False


class Mosquitto:
    """A running mosquitto; see `RunningBroker`."""

    kind: Kind = "mosquitto"
    can_silence = True

    def __init__(self, plan: BrokerPlan, program: Path, port: int) -> None:
        self.host = plan.host
        self.port = port
        plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._acl = plan.folder / "mosquitto.acl"
        config = plan.folder / "mosquitto.conf"
        _write_private(self._acl, mosquitto_acl())
        _write_private(config, mosquitto_config(plan, self.port, self._acl))
        self._denials = DenialCount()
        self._reloading, self._reload = threading.Lock(), 0
        leash = str(Path(__file__).with_name("leash.py"))
        command = [sys.executable, "-I", "-S", leash, str(program), "-c", str(config)]
        self._child = Leashed(command, self._read)
        try:
            wait_until_ready(plan.host, self.port, plan.cert_path, self._child.alive, self._child.last_lines)
        except BaseException:
            self._child.stop()
            raise

    def _read(self, line: str) -> None:
        if line.startswith("Outgoing messages are being dropped"):
            _LOG.warning("mosquitto: %s", line)
        self._denials.read(line)

    def stop(self) -> None:
        """Stop mosquitto and wait until it is gone."""
        self._child.stop()

    def acl_denied(self) -> int:
        """Publishes, subscriptions and wills refused since the start."""
        return self._denials.denied

    def reload(self, revoked: Collection[str] = ()) -> None:
        """See `RunningBroker`: mosquitto leaves live sessions of revoked names open, but mute and deaf."""
        with self._reloading:
            self._reload += 1
            # mosquitto forgets a SIGHUP that comes while it reloads, and does not say when it is done. But it warns of each pattern
            # without a name: one of a new name each time shows that it has read this very file, and the lists before it.
            mark = f"edgeops/reload/{self._reload}"
            acl = mosquitto_acl(frozenset(filter(known_name, revoked)))
            _write_private(self._acl, f"{acl}pattern read {mark}\n")
            if not self._child.ask("H", f"'{mark}'", _RELOAD_S, _AGAIN_S):
                raise Unreachable("broker-reload", f"mosquitto did not reload within {_RELOAD_S:.0f} s")

    def alive(self) -> bool:
        """True while mosquitto runs."""
        return self._child.alive()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def start_mosquitto(plan: BrokerPlan) -> Mosquitto:
    """Start mosquitto; raises Misuse("no-mosquitto"), Misuse("port-busy"), Unreachable("broker-failed")."""
    program = find_mosquitto()
    if program is None:
        raise Misuse("no-mosquitto", "no mosquitto on PATH, in sbin or from Homebrew; install it or choose the built-in broker")
    return with_free_port(plan, lambda port: Mosquitto(plan, program, port))
