"""The root document (keys and thresholds of every role) and the site document (how a fleet is reached)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Rejected
from .fields import HEX32, HEX64, ID, Fields
from .keys import key_id

ROLES = ("root", "site", "release", "online")
# A name or an IPv4 address, or an IPv6 address in brackets; a port from 1 to 65535 or none.
_PLACE = (
    r"://(?:[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,253}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
URL = re.compile("(?:mqtts|wss|https)" + _PLACE)
MQTT_URL = re.compile("(?:mqtts|wss)" + _PLACE)
HTTPS_URL = re.compile("https" + _PLACE)
PREFIX = "e/1"
MOST_KEYS = 16


@dataclass(frozen=True, slots=True)
class Role:
    """Which keys may sign in this role and how many distinct ones must."""

    keys: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True)
class Root:
    """Root version n: keys (id -> raw public key) and roles. `issued` is Unix seconds."""

    fleet: str
    version: int
    epoch: int
    issued: int
    keys: Mapping[str, bytes]
    roles: Mapping[str, Role]

    def keys_of(self, role: str) -> dict[str, bytes]:
        """Raw public keys of a role, by id."""
        return {name: self.keys[name] for name in self.roles[role].keys}

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {
            "fleet": self.fleet, "version": self.version, "epoch": self.epoch, "issued": self.issued,
            "keys": {name: key.hex() for name, key in self.keys.items()},
            "roles": {name: {"keys": list(r.keys), "threshold": r.threshold} for name, r in self.roles.items()},
        }  # fmt: skip

    @staticmethod
    def parse(fields: Fields) -> "Root":
        """Read a root payload; raises Rejected."""
        keys = {}
        for name, value in fields.mapping("keys", 64).items():
            if not isinstance(value, str) or not HEX64.fullmatch(value) or key_id(bytes.fromhex(value)) != name:
                raise fields.fail("keys", "raw Ed25519 public keys in hex, each under its own id")
            keys[name] = bytes.fromhex(value)
        raw = fields.sub("roles")
        roles = {name: _role(raw.sub(name), keys) for name in ROLES}
        return Root(
            fields.text("fleet", ID), fields.number("version", 1), fields.number("epoch"), fields.number("issued"), keys, roles
        )


def _role(fields: Fields, keys: Mapping[str, bytes]) -> Role:
    names = fields.texts("keys", HEX32, MOST_KEYS)
    threshold = fields.number("threshold", 1)
    if len(set(names)) != len(names) or any(name not in keys for name in names):
        raise fields.fail("keys", "distinct ids of keys in this document")
    if threshold > len(names):
        raise Rejected("malformed", f"{fields.where}: threshold {threshold} exceeds its {len(names)} keys")
    return Role(names, threshold)


@dataclass(frozen=True, slots=True)
class Site:
    """How the fleet is reached: CA certificates (PEM, overlapping), endpoints in order of preference, topic prefix."""

    fleet: str
    version: int
    issued: int
    cas: tuple[str, ...]
    mqtt: tuple[str, ...]
    https: tuple[str, ...]
    prefix: str = PREFIX

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {
            "fleet": self.fleet, "version": self.version, "issued": self.issued, "cas": list(self.cas),
            "mqtt": list(self.mqtt), "https": list(self.https), "prefix": self.prefix,
        }  # fmt: skip

    @staticmethod
    def parse(fields: Fields) -> "Site":
        """Read a site payload; raises Rejected."""
        cas = fields.texts("cas", most=8)
        if not cas or not all(pem.startswith("-----BEGIN CERTIFICATE-----") and len(pem) < 8192 for pem in cas):
            raise fields.fail("cas", "one to eight PEM certificates")
        for name in ("mqtt", "https"):
            if not fields.items(name, 8):
                raise fields.fail(name, "at least one endpoint, or the fleet could not be reached any more")
        if fields.text("prefix") != PREFIX:
            raise fields.fail("prefix", PREFIX)
        return Site(
            fields.text("fleet", ID), fields.number("version", 1), fields.number("issued"), cas,
            fields.texts("mqtt", MQTT_URL, 8), fields.texts("https", HTTPS_URL, 8),
        )  # fmt: skip
