"""Making root n+1 from root n: keys come and go, thresholds and the epoch change; how many must still sign it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from . import envelope
from .errors import Misuse
from .keys import key_id
from .root import MOST_KEYS, ROLES, Role, Root


@dataclass(frozen=True, slots=True)
class Change:
    """What differs in the next root: public keys that join roles, ids that leave a role (or all), thresholds, the epoch."""

    add: tuple[tuple[str, bytes], ...] = ()
    remove: tuple[tuple[str, str], ...] = ()
    thresholds: Mapping[str, int] = field(default_factory=dict)
    raise_epoch: bool = False


def next_root(root: Root, change: Change, now: int) -> Root:
    """Root n+1; raises Misuse (unknown-role, unknown-key, key-known, two-roles, too-many-keys, role-too-small, no-change).

    A removed online key always raises the epoch: whoever had it may have used up the counters. So does nothing else by itself.
    """
    roles = {role: list(root.roles[role].keys) for role in ROLES}
    keys = dict(root.keys)
    for role, name in change.remove:
        _leave(roles, role, name)
    for role, public in change.add:
        keys[key_id(public)] = public
        _join(roles, role, key_id(public))
    made = {
        role: Role(tuple(names), change.thresholds.get(_known(role), root.roles[role].threshold)) for role, names in roles.items()
    }
    for role in change.thresholds:
        _known(role)
    for role, held in made.items():
        if not 1 <= held.threshold <= len(held.keys):
            text = f"role {role} would have {len(held.keys)} keys and need {held.threshold} of them; add one or lower the threshold"
            raise Misuse("role-too-small", text)
    if made == root.roles and not change.raise_epoch:
        raise Misuse("no-change", "the next root would say what this one says; name a key, a threshold or the epoch to change")
    used = {name for held in made.values() for name in held.keys}
    lost_online = set(root.roles["online"].keys) - set(made["online"].keys)
    epoch = root.epoch + (1 if change.raise_epoch or lost_online else 0)
    kept = {name: key for name, key in keys.items() if name in used}
    return replace(root, version=root.version + 1, epoch=epoch, issued=now, keys=kept, roles=made)


def _known(role: str) -> str:
    if role not in ROLES:
        raise Misuse("unknown-role", f"there is no role {role!r}; roles are {', '.join(ROLES)}")
    return role


def _leave(roles: dict[str, list[str]], role: str, name: str) -> None:
    """Take a key out of one role, or out of all when `role` is empty; the id may be shortened where that is clear."""
    where = [_known(role)] if role else list(roles)
    found = {held for one in where for held in roles[one] if held.startswith(name)} if name else set()
    if len(found) != 1:
        text = "there is none" if not found else f"{len(found)} begin like that"
        raise Misuse("unknown-key", f"key {name!r} of {role or 'any role'}: {text}; `edgeops root show` lists all")
    for one in where:
        roles[one] = [held for held in roles[one] if held not in found]


def _join(roles: dict[str, list[str]], role: str, name: str) -> None:
    if name in roles[_known(role)]:
        raise Misuse("key-known", f"key {name} is in role {role} already")
    other = next((one for one, names in roles.items() if name in names), None)
    if other is not None:
        raise Misuse("two-roles", f"key {name} is in role {other}; one key for two roles would be stolen for both")
    if len(roles[role]) >= MOST_KEYS:
        raise Misuse("too-many-keys", f"role {role} has {MOST_KEYS} keys, which is the most")
    roles[role].append(name)


def read_root(data: bytes) -> Root:
    """The root in an envelope, believed or not; raises Rejected."""
    return Root.parse(envelope.contents(data, "root"))


def wanting(signed: Iterable[str], roots: Iterable[Root], role: str) -> int:
    """How many more signatures `role` of each of these roots asks for, at least: the most that any of them lacks."""
    have = frozenset(signed)
    return max((max(0, root.roles[role].threshold - len(have & set(root.roles[role].keys))) for root in roots), default=0)
