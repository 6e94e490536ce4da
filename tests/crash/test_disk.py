"""The disk part of the crash proof: a seeded part of each search, and some of the seeded bugs. `make crash` takes all of both."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from . import bugs
from .cache import SimDisk
from .desk import Desk
from .images import ROOT
from .proof import search
from .story import STORY, Device, furnish, mute, tell

SAMPLES = {"cuts": 16, "second cuts": 60, "refusals": 20, "records": 50, "blobs": 30, "clocks": 6}
"""Of each search one of so many parts."""


def test_the_story_ends_well_on_a_disk_that_does() -> None:
    """Without any cut every order ends as it should, and nothing the agent did not think of happens."""
    mute()
    disk, desk = SimDisk(), Desk()
    furnish(disk, ROOT)
    device = tell(disk, ROOT, desk)
    assert (device.running, desk.stored) == (STORY[-1], {1: "committed", 2: "committed", 3: "rolled-back", 4: "committed"})
    assert "internal_errors" not in device.agent.record.counters


def test_an_agent_that_is_stopped_in_every_trial_blames_nobody() -> None:
    """However often a service is restarted by hand, an update is no crash loop: it is committed when it is left alone."""
    mute()
    disk, desk = SimDisk(), Desk()
    furnish(disk, ROOT)
    device = Device(disk, ROOT, desk)
    device.settle()
    device.link.order(1)
    for _ in range(6):
        device.go(lambda: device.agent.record.slots["main"].phase == "trial")  # noqa: B023
        device.close()
        device = Device(disk, ROOT, desk)
    device.settle()
    assert (device.running, desk.stored) == (1, {1: "committed"})


@pytest.mark.parametrize("name", SAMPLES)
def test_nothing_that_a_disk_does_bricks_a_device(name: str, tell: Callable[[str], None]) -> None:
    """Whatever a power cut, a second one, a refusal or a flipped bit leaves: the device goes on, and takes nothing back."""
    began = time.process_time()
    tried, violations = search(name, SAMPLES[name] // 3, SAMPLES[name])
    tell(f"simulated disk, a sample: {name} {tried}, violations {len(violations)}, {time.process_time() - began:.0f} s")
    assert tried > 30 and not violations, violations[:3]


def test_every_seeded_bug_fits_the_source() -> None:
    """Each is a change of something that stands in one place of the agent."""
    wrong = [bug.name for bug in bugs.BUGS if (bugs.AGENT / bug.file).read_text().count(bug.old) != 1]
    assert not wrong


@pytest.mark.parametrize("bug", bugs.BUGS[::5], ids=lambda bug: bug.name)
def test_seeded_bug_is_caught(bug: bugs.Bug, tmp_path: Path) -> None:
    """The search finds this bug in a copy of the agent."""
    caught, found = bugs.run(bug, bug.search, tmp_path)
    assert caught, found


def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    """It is the bug that is found, not the copying."""
    caught, found = bugs.run(None, "blobs", tmp_path)
    assert not caught and found.startswith("nothing in"), found
