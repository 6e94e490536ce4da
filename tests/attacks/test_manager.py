"""The manager believes nobody but the device itself: forged, repeated, renamed and absurd messages change nothing."""

from collections.abc import Iterator

import numpy as np
import pytest

from edgeops.manager import devices
from edgeops.sketch.build import build_reference
from edgeops.sketch.latency import LatencyHistogram
from edgeops.sketch.window import SketchWindow, Tally
from edgeops.wire import topics
from edgeops.wire.errors import EdgeopsError
from edgeops.wire.messages import seal_tele

from ..conftest import Score
from ..manager.conftest import clock, hub, template
from ..manager.house import NOW, Fleet
from .manager import ATTACKS, RENEWALS, Attack, Renewal, Scene, renew

__all__ = ["clock", "hub", "template"]
PROFILE = build_reference(np.random.default_rng(7).normal(size=(2000, 4)), seed=1)


@pytest.fixture
def scene(hub, clock) -> Iterator[Scene]:
    """A rollout to two devices, neither of which has reported on it."""
    fleet = Fleet(hub, clock, ["victim", "other"])
    born = fleet.devices["victim"].presence()
    fleet.up("victim", "presence", born)
    fleet.up("other", "presence", fleet.devices["other"].presence())
    release = fleet.publish(1)
    rollout = fleet.start()
    fleet.deliver()
    said = fleet.devices["victim"].state({}, 1)
    fleet.up("victim", "state", said)
    yield Scene(fleet, rollout, release, window(), born, said)


def window() -> bytes:
    """One honest window of telemetry."""
    rows = np.random.default_rng(8).normal(size=(400, 4)).astype(np.float32)
    tally = Tally(400, 400, 2, 0, 0, PROFILE.count(rows), LatencyHistogram.of(np.full(400, 900)))
    return SketchWindow(bytes(8), PROFILE.hash8, b"b" * 16, 1, NOW * 1000, 1000, 1, tally).to_bytes()


def facts(scene: Scene):
    """All the manager knows and has decided, but for who was seen when."""
    shown = scene.fleet.show(scene.rollout)
    return shown["counts"], shown["status"], [devices.show(scene.fleet.hub, name) for name in ("victim", "other")]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)
def test_a_message_is_refused(attack: Attack, scene: Scene, score: Score) -> None:
    """It is counted under its reason, and nothing the manager knows has changed."""
    before = facts(scene)
    scene.fleet.ingest.take(*attack.act(scene))
    refused = {name: n for name, n in scene.fleet.ingest.counts.items() if name.startswith("refused.")}
    assert refused == {f"refused.{attack.reason}": 1}, attack.story
    assert facts(scene) == before and scene.fleet.letters() == []
    score.refused(attack.id, attack.reason)


@pytest.mark.parametrize("attack", RENEWALS, ids=lambda attack: attack.id)
def test_a_renewal_is_refused(attack: Renewal, scene: Scene, score: Score) -> None:
    """No certificate is made."""
    before = facts(scene)
    with pytest.raises(EdgeopsError) as caught:
        renew(scene, attack.act(scene))
    assert caught.value.reason == attack.reason, attack.story
    assert facts(scene) == before
    score.refused(attack.id, attack.reason)


def test_the_device_itself_is_believed(scene: Scene, score: Score) -> None:
    """Beside all that the honest messages of the victim are taken."""
    victim, fleet = scene.victim, scene.fleet
    fleet.up("victim", "presence", victim.presence())
    fleet.up("victim", "tele", seal_tele(scene.window, victim.identity))
    fleet.commit("victim", scene.rollout, scene.release)
    assert fleet.show(scene.rollout)["counts"]["committed"] == 1
    assert not [name for name in fleet.ingest.counts if name.startswith("refused")]
    for name in ("birth", "telemetry", "report"):
        score.accepted(f"{name}-of-the-device")
    assert renew(scene, victim.renewal())
    score.accepted("renewal-of-the-device")


def changed(data: bytes) -> Iterator[bytes]:
    """A signed message with a byte flipped, left out or doubled."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]
        yield data[:at] + data[at : at + 1] + data[at:]


def test_changed_messages_are_refused(scene: Scene, score: Score) -> None:
    """Every byte of a birth, a report and a window flipped, left out and doubled: refused, and never a crash."""
    victim, tried = scene.victim, 0
    honest = {"presence": victim.presence(), "state": victim.state({}, 1), "tele": seal_tele(scene.window, victim.identity)}
    before = facts(scene)
    for noun, data in honest.items():
        doubles = [bad for bad in changed(data) if bad != data]
        scene.fleet.ingest.take_all([(topics.up("victim", noun), bad) for bad in doubles])
        tried += len(doubles)
    refused = {name: n for name, n in scene.fleet.ingest.counts.items() if name.startswith("refused.")}
    assert sum(refused.values()) == tried and "refused.internal" not in refused
    assert facts(scene) == before
    score.mutants(tried, tried)
