"""Who may use which topic: the one rule that both brokers enforce. Pure."""

import functools

from edgeops.wire.fields import ID

MANAGER = "manager"
_ROOT = ["e", "1"]


def known_name(name: str) -> bool:
    """True for a certificate name that may connect at all: the manager or a well-formed device id."""
    return ID.fullmatch(name) is not None


def may_publish(name: str, topic: str) -> bool:
    """True if `name` may publish to `topic` (or leave a last will there): a device only under its own `up/`."""
    parts = topic.split("/")
    if "+" in topic or "#" in topic or parts[:2] != _ROOT:
        return False
    return name == MANAGER or (_is_shard(parts[2:3]) and parts[3:6] == ["d", name, "up"])


def may_read(name: str, topic: str) -> bool:
    """True if `name` may subscribe to the filter, or receive from the topic, `topic`: a device its own `dn/` and all broadcasts."""
    parts = topic.split("/")
    if parts[:2] != _ROOT:
        return False
    if name == MANAGER or parts[2:3] == ["b"]:
        return True
    return parts[2:3] != ["#"] and parts[3:6] == ["d", name, "dn"]


@functools.lru_cache(maxsize=4096)
def _levels(wanted: str) -> tuple[str, ...]:
    return tuple(wanted.split("/"))


def matches(wanted: str, topic: list[str]) -> bool:
    """True if the filter `wanted` matches the topic split into levels (MQTT 3.1.1 §4.7)."""
    levels = _levels(wanted)
    for level, given in zip(levels, topic, strict=False):
        if level == "#":
            return True
        if level not in (given, "+"):
            return False
    return len(levels) == len(topic) or (levels[-1] == "#" and len(levels) == len(topic) + 1)


def _is_shard(part: list[str]) -> bool:
    return bool(part) and len(part[0]) == 2 and part[0].isascii() and part[0].isdigit()


def mosquitto_acl(revoked: frozenset[str] = frozenset()) -> str:
    """The same rule as a mosquitto ACL file; every name in `revoked` loses all it had."""
    lines = [f"user {MANAGER}", "topic readwrite e/1/#"]
    for name in sorted(revoked):
        lines += [f"user {name}", "topic deny #"]
    # `+` for the shard would let a device write into a broadcast channel called "d".
    lines += ["pattern deny e/1/b/d/%u/up/#", "pattern write e/1/+/d/%u/up/#"]
    lines += ["pattern read e/1/+/d/%u/dn/#", "pattern read e/1/b/#"]
    return "\n".join(lines) + "\n"
