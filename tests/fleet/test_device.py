"""Devices: ids, labels, presence and what they report."""

import pytest

from edgeops.fleet.device import LastSeen, Reported, check_id, check_labels, has_converged, presence
from edgeops.wire.errors import Misuse


@pytest.mark.parametrize("device_id", ["a", "A-b_9", "x" * 64])
def test_good_ids_pass(device_id):
    """An id of allowed characters and length is returned unchanged."""
    assert check_id(device_id) == device_id


@pytest.mark.parametrize("device_id", ["", "x" * 65, "a/b", "a+b", "é", "a b", "a\n"])
def test_bad_ids_are_refused(device_id):
    """An id that could break a topic or a path is refused by name."""
    with pytest.raises(Misuse) as caught:
        check_id(device_id)
    assert caught.value.reason == "device-id-invalid"


@pytest.mark.parametrize("labels", [{"all": "x"}, {"id": "x"}, {"": "x"}, {"a b": "x"}, {"a": ""}, {"a": "x,y"}, {"a": "x" * 65}])
def test_bad_labels_are_refused(labels):
    """A label that a selector could not name is refused."""
    with pytest.raises(Misuse) as caught:
        check_labels(labels)
    assert caught.value.reason == "labels-invalid"


def test_too_many_labels_are_refused():
    """A device carries at most 32 labels."""
    assert len(check_labels({f"k{i}": "v" for i in range(32)})) == 32
    with pytest.raises(Misuse, match="at most 32"):
        check_labels({f"k{i}": "v" for i in range(33)})


def test_labels_are_not_shared_with_the_caller():
    """Changing the mapping that was passed in does not change what was checked."""
    labels = {"site": "berlin"}
    checked = check_labels(labels)
    labels["site"] = "rome"
    assert checked == {"site": "berlin"}


@pytest.mark.parametrize(
    ("seen", "now", "here"),
    [
        (LastSeen(), 5, "unknown"),
        (LastSeen(message=100), 150, "online"),
        (LastSeen(message=200), 150, "online"),
        (LastSeen(message=100), 190, "unknown"),
        (LastSeen(message=100), 1000, "offline"),
        (LastSeen(message=100, goodbye=100), 101, "offline"),
        (LastSeen(message=100, goodbye=90), 101, "online"),
        (LastSeen(message=100, gone=105), 106, "unknown"),
        (LastSeen(message=100, gone=90), 106, "online"),
        (LastSeen(message=100, gone=105), 1000, "offline"),
    ],
)
def test_presence_follows_the_last_signs(seen, now, here):
    """Presence is derived from the latest signs of a device and the time."""
    assert presence(seen, now).here == here


def test_convergence_is_the_wished_release_at_rest():
    """A slot has converged when it reports the wished release in a resting phase, or nothing when nothing is wished."""
    assert has_converged("r1", Reported("main", release="r1", phase="committed"))
    assert not has_converged("r1", Reported("main", release="r1", phase="trial"))
    assert not has_converged("r1", Reported("main", release="r0", phase="committed"))
    assert not has_converged("r1", None)
    assert has_converged(None, None)
    assert has_converged(None, Reported("main"))
    assert not has_converged(None, Reported("main", release="r0", phase="committed"))
