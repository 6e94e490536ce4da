"""The remote half against a real HTTPS server: what is asked, what is shown, what is returned."""

import io
import json
from pathlib import Path

import pytest

from edgeops.cli.remote.options import TRIAL_HELP
from edgeops.rollout.policy import DEFAULTS
from edgeops.wire.desired import Trial

ROLLOUT = {
    "id": "r-1", "model": "digits", "version": 1, "to": "site=berlin", "status": "running", "policy": {"dwell_s": 5},
    "waves": [{"up_to": 1, "started": 1, "committed": 1, "passed": "earned"}, {"up_to": 5, "started": 3, "rolled_back": 1}],
}  # fmt: skip


def test_register_prints_the_line_to_paste(straw, edgeops):
    """`device register` posts id, labels and lifetime and prints exactly the line to paste, alone on stdout."""
    straw.answers["POST", "/devices"] = {"device": {"id": "pi-01"}, "token": "edgeops1.abc"}
    ran = edgeops("device", "register", "pi-01", "--label", "site=berlin", "--ttl", "600")
    assert ran.code == 0
    assert ran.out == "edgeops-agent enroll edgeops1.abc && edgeops-agent run\n"
    wanted = {"id": "pi-01", "labels": {"site": "berlin"}, "ttl_s": 600, "approval": False, "fingerprint": "", "reissue": False}
    assert straw.asked == [("POST", "/devices", wanted)]


def test_register_draws_a_qr_code(straw, edgeops):
    """`--qr` draws the token on stderr, in rows of one width; stdout stays the line to paste."""
    straw.answers["POST", "/devices"] = {"device": {"id": "pi-01"}, "token": "edgeops1." + "a" * 400}
    ran = edgeops("device", "register", "pi-01", "--qr")
    rows = [row for row in ran.err.splitlines() if row and set(row) <= set(" █▀▄")]
    assert ran.out.count("\n") == 1 and len(rows) > 30 and len({len(row) for row in rows}) == 1


def test_factory_devices_need_approval_or_nothing(straw, edgeops, tmp_path: Path):
    """The column `fingerprint` is no label; approval and re-use of ids are sent as said; the join line is one for all."""
    straw.answers["POST", "/devices"] = lambda _, body: {"device": body, "token": "edgeops1.line"}
    straw.answers["GET", "/join-line"] = {"line": "edgeops1.line"}
    (tmp_path / "devices.csv").write_text(f"id,fingerprint,site\npi-01,{'ab' * 32},berlin\npi-02,,rome\n")
    assert edgeops("device", "register", "--from", str(tmp_path / "devices.csv"), "--require-approval", "--reissue").code == 0
    assert [(body["fingerprint"], body["labels"], body["approval"], body["reissue"]) for _, _, body in straw.asked] == [
        ("ab" * 32, {"site": "berlin"}, True, True), ("", {"site": "rome"}, True, True),
    ]  # fmt: skip
    assert edgeops("device", "join-line").out == "edgeops-agent enroll edgeops1.line && edgeops-agent run\n"
    assert edgeops("device", "register", "--from", "x.csv", "--fingerprint", "ab").code == 2


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("pi-1",), ["pi-1"]), (("pi-2", "pi-1"), ["pi-1", "pi-2"]), (("--selector", "site=x"), ["pi-1", "pi-2"]),
        (("--all",), ["pi-1", "pi-2"]), ((), None), (("pi-1", "--all"), None), (("--all", "--selector", "a=b"), None),
        (("pi-1", "pi-2", "--fingerprint", "ab"), None), (("pi-1", "pi-3"), None),
    ],
)  # fmt: skip
def test_approving_and_rejecting(straw, edgeops, monkeypatch, words, meant):
    """Who is meant is said in exactly one way; they are shown, and what was shown is what is sent, if it is confirmed."""
    one, two = ({"id": name, "kind": "enrol", "fingerprint": mark * 32, "since": 5, "labels": {}} for name, mark in
                (("pi-1", "ab"), ("pi-2", "cd")))  # fmt: skip
    prints = {"pi-1": "ab" * 32, "pi-2": "cd" * 32}
    straw.answers["POST", "/pending/approve"] = {"approved": [one]}
    straw.answers["POST", "/pending/reject"] = {"rejected": [one]}
    straw.answers["GET", "/pending"] = {"pending": [one, two]}
    for verb in ("approve", "reject"):
        ran = edgeops("device", verb, *words, "--yes")
        sent = [asked[2] for asked in straw.asked if asked[0] == "POST"]
        assert (ran.code, sent) == ((0, [{"devices": {name: prints[name] for name in meant}}]) if meant else (2, []))
        assert ("ab" * 32 in ran.out) == bool(meant)
        straw.asked.clear()
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        ran = edgeops("device", verb, *words)
        assert ran.code == 2 and ("[not-confirmed]" in ran.err) == bool(meant)
        assert not any(asked[0] == "POST" for asked in straw.asked)
    straw.asked.clear()
    assert edgeops("device", "approve", "pi-1", "--fingerprint", "EE" * 32).code == 0
    assert [(asked[0], asked[2]) for asked in straw.asked] == [("POST", {"devices": {"pi-1": "EE" * 32}})]
    assert "enrol" in edgeops("device", "pending").out


def test_ends_and_quarantine(straw, edgeops, monkeypatch):
    """`decommission` asks first and says what the broker showed, 4 when it showed nothing; `release-quarantine` is one POST."""
    shown = {"id": "pi-1", "status": "decommissioned"}
    straw.answers["POST", "/devices/pi-1/decommission"] = shown | {"silenced": True, "silenced_ms": 12, "missing": ""}
    straw.answers["POST", "/devices/pi-1/revoke"] = shown | {"silenced": False, "silenced_ms": None, "missing": "no broker"}
    straw.answers["POST", "/devices/pi-1/release"] = shown
    assert "shown after 12 ms" in edgeops("device", "decommission", "pi-1", "--yes").out
    unshown = edgeops("device", "revoke", "pi-1", "--yes")
    assert "no broker" in unshown.out and unshown.code == 4
    unshown = edgeops("device", "revoke", "pi-1", "--json")
    assert unshown.json["silenced"] is False and unshown.code == 4
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "[not-confirmed]" in edgeops("device", "decommission", "pi-1").err
    assert edgeops("device", "release-quarantine", "pi-1").code == 0
    straw.answers["GET", "/devices"] = {"devices": [{"id": "pi-1", "status": "clone"}, {"id": "pi-2", "status": "enrolled"}]}
    straw.asked.clear()
    assert "released pi-1\n" in edgeops("device", "release-quarantine", "--selector", "site=x", "--yes").out
    assert [asked[:2] for asked in straw.asked] == [("GET", "/devices"), ("POST", "/devices/pi-1/release")]
    assert edgeops("device", "release-quarantine").code == 2
    assert edgeops("device", "release-quarantine", "a", "--selector", "b=c").code == 2


def test_register_from_csv(straw, edgeops, tmp_path: Path):
    """Every row of a CSV is one device; its other columns are labels."""
    straw.answers["POST", "/devices"] = lambda _, body: {"device": body, "token": "edgeops1." + body["id"]}
    (tmp_path / "devices.csv").write_text("id,site,arch\npi-01,berlin,arm\npi-02,,x86\n")
    ran = edgeops("device", "register", "--from", str(tmp_path / "devices.csv"), "--label", "lot=7", "--json")
    assert [device["token"] for device in ran.json["devices"]] == ["edgeops1.pi-01", "edgeops1.pi-02"]
    assert [asked[2]["labels"] for asked in straw.asked] == [
        {"lot": "7", "site": "berlin", "arch": "arm"}, {"lot": "7", "arch": "x86"},
    ]  # fmt: skip


def test_an_id_that_exists_names_its_line_or_is_skipped(straw, edgeops, tmp_path: Path):
    """What was registered before it stays and is shown; with --skip-existing it is left alone and the rest goes on."""
    exists = (409, {"title": "no", "detail": "there is one", "reason": "device-exists", "status": 409})
    straw.answers["POST", "/devices"] = lambda _, body: (
        exists if body["id"] == "pi-02" else {"device": body, "token": "edgeops1." + body["id"]}
    )
    (tmp_path / "devices.csv").write_text("id\npi-01\npi-02\npi-03\n")
    words = ("device", "register", "--from", str(tmp_path / "devices.csv"))
    ran = edgeops(*words)
    assert ran.code == 2 and "devices.csv, line 3: there is one" in ran.err and "add --skip-existing" in ran.err
    assert "edgeops1.pi-01" in ran.out and "pi-03" not in ran.out
    ran = edgeops(*words, "--skip-existing", "--json")
    assert ([one["id"] for one in ran.json["devices"]], ran.json["skipped"]) == (["pi-01", "pi-03"], ["pi-02"])


@pytest.mark.parametrize(
    "text",
    [
        "site\nberlin\n", "id\n", "id,a\npi-01,b,c\n", "id\npi-01\npi-01\n", "id,a\n,b\n", "id,fingerprint\na,AB\nb,ab\n",
    ],
)  # fmt: skip
def test_bad_csv_registers_nobody(straw, edgeops, tmp_path: Path, text: str):
    """A CSV with any fault is refused before the first device is registered."""
    (tmp_path / "devices.csv").write_text(text)
    ran = edgeops("device", "register", "--from", str(tmp_path / "devices.csv"))
    assert (ran.code, straw.asked) == (2, [])
    assert "[csv-malformed]" in ran.err


def test_labels_and_revoke(straw, edgeops):
    """`label` patches, `revoke --yes` posts; without a confirmation nothing is sent."""
    straw.answers["PATCH", "/devices/pi-01"] = {"id": "pi-01", "labels": {"site": "x"}}
    straw.answers["POST", "/devices/pi-01/revoke"] = {"id": "pi-01", "status": "revoked"}
    assert edgeops("device", "label", "pi-01", "site=x", "old=").code == 0
    assert straw.asked.pop() == ("PATCH", "/devices/pi-01", {"labels": {"site": "x", "old": ""}})
    assert edgeops("device", "label", "pi-01", "nonsense").code == 2
    assert edgeops("device", "revoke", "pi-01", "--yes").code == 0


def test_rollout_start_sends_only_what_was_chosen(straw, edgeops):
    """Policy options left alone are not sent, so that the manager's defaults hold."""
    straw.answers["POST", "/rollouts"] = ROLLOUT
    ran = edgeops("rollout", "start", "digits:1", "--to", "site=berlin", "--dwell-s", "5", "--no-count-unproven", "--json",
                  "--trial-window-s", "3")
    assert ran.json["id"] == "r-1"
    assert straw.asked[0][2] == {
        "model": "digits", "version": 1, "to": "site=berlin", "waves": "1,100%", "slot": "main",
        "policy": {"dwell_s": 5, "count_unproven": False}, "trial": {"window_s": 3},
    }  # fmt: skip


def test_rollout_help_shows_every_policy_field(edgeops):
    """Each knob of the policy is an option whose help shows its default."""
    out = " ".join(edgeops("rollout", "start", "--help").out.split())
    for knob in DEFAULTS.values():
        assert "--" + knob.name.replace("_", "-") in out
        assert f"(default: {knob.default})" in out
    assert set(TRIAL_HELP) == set(Trial.__slots__)
    for name in TRIAL_HELP:
        assert "--trial-" + name.replace("_", "-") in out


@pytest.mark.parametrize(("end", "code"), [("finished", 0), ("halted", 6), ("aborted", 6)])
def test_watch_until_the_end(straw, edgeops, end: str, code: int):
    """`rollout watch` asks until the status is terminal and its exit code says which."""
    asked = []
    states = iter(["running", "running", end])
    straw.answers["GET", "/rollouts/r-1"] = lambda *_: asked.append(1) or ROLLOUT | {"status": next(states), "reason": "why-not"}
    ran = edgeops("rollout", "watch", "r-1", "--interval", "0.1", "--json")
    assert (ran.code, ran.json["status"], len(asked)) == (code, end, 3)
    lines = [line for line in ran.err.splitlines() if ", wave " in line]
    assert [line.split(",")[0] for line in lines] == ["running", end], "piped, each change is one line"


def test_watch_times_out(straw, edgeops):
    """`--timeout` ends the watching with exit 4, not the rollout."""
    straw.answers["GET", "/rollouts/r-1"] = ROLLOUT
    ran = edgeops("rollout", "watch", "r-1", "--interval", "0.6", "--timeout", "1")
    assert ran.code == 4
    assert "[watch-timeout]" in ran.err


def test_show_says_why(straw, edgeops):
    """`rollout show` and `list` give the reason of a halt."""
    cause = {"verdict": "rolled-back", "text": "golden-mismatch", "count": 1}
    halted = ROLLOUT | {"status": "halted", "why": "hard-stop: 1 of 3 rolled back", "reasons": [cause]}
    straw.answers["GET", "/rollouts/r-1"] = halted
    straw.answers["GET", "/rollouts"] = {"rollouts": [halted]}
    assert "hard-stop: 1 of 3 rolled back; 1× rolled-back: golden-mismatch" in edgeops("rollout", "show", "r-1").out
    assert "hard-stop: 1 of 3 rolled back" in edgeops("rollout", "list").out


@pytest.mark.parametrize("verb", ["pause", "resume", "advance"])
def test_verbs(straw, edgeops, verb: str):
    """Pause, resume and advance are one POST each."""
    straw.answers["POST", f"/rollouts/r-1/{verb}"] = ROLLOUT
    assert edgeops("rollout", verb, "r-1").code == 0


@pytest.mark.parametrize(("flags", "code"), [((), 2), (("--keep", "--revert"), 2), (("--keep",), 0), (("--revert",), 0)])
def test_abort_must_say_what_happens(straw, edgeops, flags, code: int):
    """Abort wants exactly one of --keep and --revert and sends it as the mode."""
    straw.answers["POST", "/rollouts/r-1/abort"] = ROLLOUT | {"status": "aborted"}
    assert edgeops("rollout", "abort", "r-1", *flags).code == code
    assert [asked[2] for asked in straw.asked] == ([] if code else [{"mode": flags[0][2:]}])


@pytest.mark.parametrize(
    ("words", "path", "noun"),
    [
        (("device", "list"), "/devices", "devices"), (("release", "list"), "/releases", "releases"),
        (("model", "list"), "/models", "models"), (("rollout", "list"), "/rollouts", "rollouts"), (("drift",), "/drift", "drift"),
        (("telemetry",), "/telemetry", "telemetry"), (("audit", "show"), "/audit", "audit"), (("status",), "/status", "devices"),
    ],
)  # fmt: skip
def test_every_list_empty_and_full(straw, edgeops, words, path: str, noun: str):
    """Every list command shows an empty and a filled answer, as text and as one JSON object."""
    for rows in ([], [{"id": "pi-01", "model": "digits", "p50_us": 120, "labels": {"a": "b"}}]):
        straw.answers["GET", path] = {noun: rows}
        assert edgeops(*words, "--json").json[noun] == rows
        ran = edgeops(*words)
        assert ran.code == 0
        assert ran.out.strip()


def test_status_table(straw, edgeops):
    """`status` shows presence, release, latency, drift and refusals of each device."""
    straw.answers["GET", "/status"] = {"devices": [{
        "id": "pi-01", "presence": "online", "slots": {"digits": "digits:2"}, "p50_us": 120, "p99_us": 2500, "inferences": 40,
        "drift": {"alarm": True, "slots": []}, "refused": 2,
    }], "presence": {"online": 1}}  # fmt: skip
    out = edgeops("status").out
    for word in ("pi-01", "online", "digits:2", "120 µs", "2.50 ms", "ALARM", "2"):
        assert word in out


def test_json_is_one_object_and_nothing_else(straw, edgeops):
    """With --json stdout is exactly one line of JSON."""
    straw.answers["GET", "/devices/pi-01"] = {"id": "pi-01"}
    out = edgeops("device", "show", "pi-01", "--json").out
    assert out.count("\n") == 1
    assert json.loads(out) == {"id": "pi-01"}


def test_empty_lists_say_why(straw, edgeops):
    """Without a device the next command is named; with a selector it is the selector that matches nothing."""
    straw.answers["GET", "/devices"] = straw.answers["GET", "/status"] = {"devices": []}
    for words in (("device", "list"), ("status",)):
        assert "edgeops device register" in edgeops(*words).out
        assert "no device matches site=x" in edgeops(*words, "--selector", "site=x").out


def test_tokens(straw, edgeops):
    """`token new` prints the token alone on stdout; `list` never shows one; `revoke` deletes."""
    straw.answers["POST", "/tokens"] = {"name": "anna", "role": "viewer", "token": "edgeops_abc"}
    straw.answers["GET", "/tokens"] = {"tokens": [{"name": "anna", "role": "viewer", "created": 1, "expires": None}]}
    straw.answers["DELETE", "/tokens/anna"] = {"name": "anna"}
    assert edgeops("token", "new", "anna", "--ttl", "60").out == "edgeops_abc\n"
    assert edgeops("token", "new", "anna", "--role", "viewer", "--json").json["token"] == "edgeops_abc"
    assert [body for method, _, body in straw.asked if method == "POST"] == [
        {"name": "anna", "role": "viewer", "ttl_s": 60}, {"name": "anna", "role": "viewer", "ttl_s": None},
    ]  # fmt: skip
    assert "anna" in edgeops("token", "list").out
    assert edgeops("token", "revoke", "anna").code == 0
