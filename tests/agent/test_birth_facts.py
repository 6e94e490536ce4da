"""What a birth says of the device: whatever the device is or senses, it can be said."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeops.wire import canonical
from edgeops.wire.errors import Misuse
from edgeops_agent.shell import facts


def test_a_fact_that_cannot_be_encoded_is_left_out(tmp_path: Path) -> None:
    """A network's name in decomposed letters, a number beyond all: the birth goes without them."""
    found = facts.facts(tmp_path, {"network": "Cafe\u0301", "load_pct": 2**60, "metered": False, "power": "mains"})
    assert canonical.encode(found) and found.keys() & set(facts.READY_MADE) == {"metered", "power"}


def test_no_disk_and_no_memory_is_too_large_to_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems say they have exabytes: the largest number that can be said stands for it."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2**43, f_frsize=1 << 20))
    monkeypatch.setattr(os, "sysconf", lambda _: 1 << 32)
    found = facts.facts(tmp_path)
    assert canonical.encode(found) and found["disk_free"] == found["memory"] == canonical.LIMIT


def test_a_long_key_is_told_short() -> None:
    """Whoever sends nonsense does not choose how long our lines are."""
    with pytest.raises(Misuse) as caught:
        canonical.encode({"\u1234" * 20_000: 1})
    assert len(caught.value.message) < 200
