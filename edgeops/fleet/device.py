"""What the manager knows of a device: its name, labels and standing, whether it is there, and what it says it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeops.wire.errors import Misuse

Standing = Literal["registered", "enrolled", "clone", "revoked", "decommissioned"]
Here = Literal["online", "offline", "unknown"]
MAX_LABELS = 32
RESERVED_KEYS = frozenset({"all", "in", "notin", "id"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_VALUE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_id(device_id: str) -> str:
    """Return the id, or raise `Misuse("device-id-invalid")`: 1 to 64 of `A-Z a-z 0-9 _ -`."""
    if not _ID.fullmatch(device_id):
        raise Misuse("device-id-invalid", f"device id {device_id!r}: use 1 to 64 of A-Z a-z 0-9 _ -")
    return device_id


def is_label_key(key: str) -> bool:
    """Whether `key` may name a label; `all`, `in`, `notin` and `id` are words of selectors."""
    return bool(_KEY.fullmatch(key)) and key not in RESERVED_KEYS


def is_label_value(value: str) -> bool:
    """Whether `value` may be the value of a label: 1 to 64 of `A-Z a-z 0-9 . _ -`."""
    return bool(_VALUE.fullmatch(value))


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of the labels, or raise `Misuse("labels-invalid")` naming the first wrong one."""
    if len(labels) > MAX_LABELS:
        raise Misuse("labels-invalid", f"{len(labels)} labels: a device carries at most {MAX_LABELS}; remove some")
    for key, value in labels.items():
        if key in RESERVED_KEYS:
            raise Misuse("labels-invalid", f"label {key}: this word belongs to selectors; choose another key")
        if not is_label_key(key):
            raise Misuse("labels-invalid", f"label key {key!r}: start with a letter or digit, then up to 63 of A-Z a-z 0-9 . _ / -")
        if not is_label_value(value):
            raise Misuse("labels-invalid", f"label {key}: value {value!r} must be 1 to 64 of A-Z a-z 0-9 . _ -")
    return dict(labels)


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The latest signs of a device, in seconds; None for what never happened.

    `message` is any message of its own, `goodbye` a clean leave, `gone` its last will or a closed link seen by the broker.
    """

    message: int | None = None
    goodbye: int | None = None
    gone: int | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a device is there, since when (seconds, None when never seen), and why we think so."""

    here: Here
    since: int | None
    why: str


def presence(seen: LastSeen, now: int, quiet_s: int = 90, lost_s: int = 900) -> Presence:
    """Derive presence: online within `quiet_s` of a message, unknown up to `lost_s`, then offline; a goodbye is offline at once.

    A last will makes the device unknown, not offline, until `lost_s` is over: brokers also send one when they fail over.
    """
    if seen.message is None:
        return Presence("unknown", None, "never seen")
    if seen.goodbye is not None and seen.goodbye >= seen.message:
        return Presence("offline", seen.goodbye, "said goodbye")
    quiet = now - seen.message
    if quiet >= lost_s:
        return Presence("offline", seen.message, f"silent for {quiet} s")
    if seen.gone is not None and seen.gone >= seen.message:
        return Presence("unknown", seen.gone, "its link broke")
    if quiet >= quiet_s:
        return Presence("unknown", seen.message, f"silent for {quiet} s")
    return Presence("online", seen.message, "heard from")


@dataclass(frozen=True, slots=True)
class Reported:
    """What a device says about one slot; the only truth about what it runs. An empty `release` means the slot is empty."""

    slot: str
    model: str = ""
    version: int = 0
    release: str = ""
    phase: str = "idle"
    reason: str = ""


def has_converged(wanted: str | None, reported: Reported | None) -> bool:
    """Whether a slot runs the wished release (None: nothing) and is at rest; a slot never reported counts as empty."""
    if reported is None:
        return wanted is None
    return reported.release == (wanted or "") and reported.phase in ("idle", "committed")
