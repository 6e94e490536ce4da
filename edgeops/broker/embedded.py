"""The built-in broker seen from our process: a child that runs amqtt with our guards, for machines without mosquitto."""

import json
import logging
import sys
from collections.abc import Collection

from edgeops.wire.errors import Unreachable

from .child import Leashed
from .ports import RELOADED, BrokerPlan, Kind
from .reach import claim_port, wait_until_ready, with_free_port

_LOG = logging.getLogger("edgeops.broker")
DEVICES = 100
_RELOAD_S = 5.0


class BuiltIn:
    """A running built-in broker; see `RunningBroker`."""

    kind: Kind = "built-in"
    can_silence = True

    def __init__(self, plan: BrokerPlan, port: int) -> None:
        self.host = plan.host
        self.port = port
        self._denied = 0
        if plan.passwords_path and plan.wss_port:  # the child would answer for MQTT first and find this out afterwards
            claim_port(plan.host, plan.wss_port)
        plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "host": plan.host,
            "port": self.port,
            "ca": str(plan.ca_path.absolute()),
            "cert": str(plan.cert_path.absolute()),
            "key": str(plan.key_path.absolute()),
            "crl": None if plan.crl_path is None else str(plan.crl_path.absolute()),
            "wss_port": plan.wss_port if plan.passwords_path else None,
            "passwords": None if plan.passwords_path is None else str(plan.passwords_path.absolute()),
        }
        command = [sys.executable, "-P", "-m", "edgeops.broker.amqtt_child", json.dumps(settings)]
        self._child = Leashed(command, self._read)
        try:
            wait_until_ready(plan.host, self.port, plan.cert_path, self._child.alive, self._child.last_lines)
        except BaseException:
            self._child.stop()
            raise
        _LOG.info("built-in broker on %s:%d: meant for up to about %d devices, install mosquitto for more", *self._at())

    def _at(self) -> tuple[str, int, int]:
        return self.host, self.port, DEVICES

    def _read(self, line: str) -> None:
        self._denied += line.startswith("Denied ")

    def stop(self) -> None:
        """Stop the broker and wait until it is gone."""
        self._child.stop()

    def acl_denied(self) -> int:
        """Publishes, subscriptions and wills refused since the start."""
        return self._denied

    def reload(self, revoked: Collection[str] = ()) -> None:
        """See `RunningBroker`: the sessions of names in `revoked` end, and they are refused from now on."""
        if not self._child.ask("H " + json.dumps(sorted(revoked)), RELOADED, _RELOAD_S, _RELOAD_S):
            raise Unreachable("broker-reload", f"the built-in broker did not reload within {_RELOAD_S:.0f} s")

    def alive(self) -> bool:
        """True while the child runs."""
        return self._child.alive()


def start_built_in(plan: BrokerPlan) -> BuiltIn:
    """Start the built-in broker; raises Misuse("port-busy"), Unreachable("broker-failed")."""
    return with_free_port(plan, lambda port: BuiltIn(plan, port))
