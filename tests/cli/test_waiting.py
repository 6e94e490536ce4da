"""What the command line says of devices that wait: asked for at the start, shown to who approves, counted, named for a device."""

from edgeops.rollout.conditions import SETTINGS
from edgeops.wire import canonical
from edgeops.wire.keys import sha256

ROLLOUT = {
    "id": "r-1", "model": "digits", "version": 1, "to": "all", "status": "running", "wave": 1,
    "waves": [{"up_to": 3, "started": 2}], "phases": {"waiting": 1, "ready": 0, "proven": 2, "fetch": 4},
    "conditions": {"fetch_when": "!metered", "barrier": True},
    "devices": [
        {"device": "pi-1", "wave": 1, "status": "proven", "phase": "proven", "waits": "the barrier"},
        {"device": "pi-2", "wave": 1, "status": "offered", "phase": "waiting", "waits": "!metered"},
    ],
}  # fmt: skip


def test_conditions_are_sent_as_they_were_written(straw, edgeops):
    """Each setting is an option; what was left alone is not sent."""
    straw.answers["POST", "/rollouts"] = ROLLOUT
    ran = edgeops(
        "rollout", "start", "digits:1", "--to", "all", "--fetch-when", "!metered,battery>=30", "--activate-when",
        "parked,window=22:00-05:00,consent", "--offline-commit", "wait", "--barrier", "--wait-s", "604800", "--commit-wait-s", "60",
        "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert straw.asked[0][2]["conditions"] == {
        "fetch_when": "!metered,battery>=30", "activate_when": "parked,window=22:00-05:00,consent", "offline_commit": "wait",
        "barrier": True, "wait_s": 604800, "commit_wait_s": 60,
    }  # fmt: skip
    assert straw.asked[0][2]["policy"] == {}
    out = " ".join(edgeops("rollout", "start", "--help").out.split())
    assert all("--" + name.replace("_", "-") in out for name in SETTINGS)


def test_a_rollout_shows_who_waits_and_what_for(straw, edgeops):
    """Counted by phase in words, named per device; other phases are not worth a line."""
    straw.answers["GET", "/rollouts/r-1"] = ROLLOUT
    out = edgeops("rollout", "show", "r-1").out
    assert "devices: 1 waiting for conditions to fetch; 2 proven, waiting to commit" in out
    assert "the barrier" in out and "fetch_when=!metered barrier=True" in out
    straw.answers["GET", "/rollouts/r-1"] = ROLLOUT | {"status": "finished"}
    assert "2 proven, waiting to commit" in edgeops("rollout", "watch", "r-1").err + edgeops("rollout", "show", "r-1").out


def test_who_approves_sees_what_devices_wait_for(straw, edgeops):
    """In a line of its own; nothing is said in words too."""
    for conditions, words in (({"fetch_when": "parked"}, "fetch_when=parked"), (None, "nothing")):
        plan = {"model": "digits", "devices": {"sha256": sha256(canonical.encode(["pi-1"]))}}
        plan |= {"conditions": conditions} if conditions else {}
        digest = sha256(canonical.encode(plan))
        approval = {"needed": 2, "digest": digest, "plan": plan, "given": []}
        straw.answers["GET", "/rollouts/r-1"] = {"id": "r-1", "status": "proposed", "approval": approval}
        (line,) = [line for line in edgeops("rollout", "show", "r-1").out.splitlines() if "devices wait for" in line]
        assert words in line


def test_a_device_shows_what_it_waits_for(straw, edgeops):
    """In its own words where it has any, else as it was ordered."""
    desired = {"conditions": {"fetch": ["!metered", "battery>=30"], "barrier": "r-1-1"}}
    for report, words in (
        ({"phase": "waiting", "detail": "battery>=30 (12)"}, "main to fetch: battery>=30 (12)"),
        ({"phase": "waiting"}, "main to fetch: !metered, battery>=30"), ({"phase": "proven"}, "main to commit: the barrier"),
        ({"phase": "idle"}, "–"),
    ):  # fmt: skip
        straw.answers["GET", "/devices/pi-1"] = {"id": "pi-1", "reported": {"main": report}, "desired": {"main": desired}}
        (line,) = [line for line in edgeops("device", "show", "pi-1").out.splitlines() if line.startswith("waits")]
        assert words in line
