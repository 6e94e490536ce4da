"""Every failure is one clear line with a stable reason, its own exit code, and never a traceback."""

import io
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeops.cli import context
from edgeops.cli.context import Context, Contexts

from .conftest import TOKEN, certificate


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("status", "code"), [(400, 2), (401, 2), (403, 2), (404, 2), (409, 2), (422, 3), (429, 4), (503, 4)])
def test_problem_documents_become_exit_codes(straw, edgeops, status: int, code: int):
    """The reason and detail of a problem document reach the person, its status chooses the exit code."""
    straw.problem("GET", "/devices", status, "some-reason", "what happened")
    ran = edgeops("device", "list")
    assert (ran.code, ran.out) == (code, "")
    assert ran.err == "error: what happened [some-reason]\n"


def test_json_error_object(straw, edgeops):
    """With --json a failure is a JSON object on stdout, beside the line on stderr."""
    straw.problem("POST", "/rollouts", 422, "selector-matches-nothing", "no device matches")
    ran = edgeops("rollout", "start", "digits:1", "--to", "site=nowhere", "--json")
    assert ran.code == 3
    assert ran.json == {
        "error": {"reason": "selector-matches-nothing", "message": "no device matches", "kind": "rejected", "exit_code": 3}
    }


def test_nobody_answers(config, edgeops, tmp_path: Path):
    """Connection refused is exit 4 and says how to start the manager."""
    ca, _ = certificate(tmp_path, "ca")
    context.save(Contexts().added(Context("here", f"https://127.0.0.1:{free_port()}", str(ca), TOKEN)))
    ran = edgeops("status")
    assert ran.code == 4
    assert "edgeops up" in ran.err
    assert "[manager-unreachable]" in ran.err


def test_only_the_contexts_ca_is_trusted(straw, edgeops, tmp_path: Path):
    """A certificate that another CA signed is refused before the token is sent."""
    other, _ = certificate(tmp_path, "other")
    context.save(context.load().added(Context("other", straw.url, str(other), TOKEN)))
    ran = edgeops("device", "list")
    assert ran.code == 4
    assert "[tls-untrusted]" in ran.err
    assert straw.asked == []


def test_plain_http_is_refused(config, edgeops):
    """A token never travels in the clear."""
    context.save(Contexts().added(Context("clear", "http://127.0.0.1:1", "x", TOKEN)))
    ran = edgeops("status")
    assert (ran.code, "[not-https]" in ran.err) == (2, True)


def test_missing_ca_file(config, edgeops):
    """A context whose CA file is gone says so."""
    context.save(Contexts().added(Context("gone", "https://127.0.0.1:1", "/nowhere/ca.pem", TOKEN)))
    ran = edgeops("status")
    assert (ran.code, "[context-ca]" in ran.err) == (2, True)


def test_token_that_is_none(straw, edgeops):
    """A damaged token in the contexts file is named before anything is sent."""
    context.save(context.load().added(Context("odd", straw.url, str(straw.ca), "tök en")))
    ran = edgeops("device", "list")
    assert (ran.code, "[context-token]" in ran.err, straw.asked) == (2, True, [])


def test_answer_that_is_not_json(straw, edgeops):
    """Another server at the address is named, not a traceback."""
    straw.answers["GET", "/devices"] = b"<html>"
    ran = edgeops("device", "list")
    assert (ran.code, "[not-a-manager]" in ran.err) == (4, True)


def test_no_context_yet(config, edgeops):
    """Without any context the error names `edgeops init`."""
    ran = edgeops("status", "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (2, "no-context")


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("device", "register"), ("rollout", "start", "digits"), ("rollout", "start", "x:0", "--to", "a=b")],
)
def test_usage_errors(config, edgeops, words):
    """Wrong arguments exit 2 with one line, and JSON when asked."""
    assert edgeops(*words).code == 2
    ran = edgeops(*words, "--json")
    assert (ran.code, ran.json["error"]["exit_code"]) == (2, 2)


def test_contexts_file_is_private_and_survives(config, edgeops):
    """The contexts file has mode 0600, keeps odd characters, and tokens are never shown."""
    odd = Context("b", 'https://h:1/"\\', "/tmp/ü ca.pem", 'to"k\\en')
    context.save(Contexts().added(Context("a", "https://a:1", "ca", "secret-a")).added(odd))
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert context.load().pick("b") == odd
    ran = edgeops("context", "list", "--json")
    assert [(row["name"], row["current"]) for row in ran.json["contexts"]] == [("a", False), ("b", True)]
    assert "secret-a" not in ran.out
    assert edgeops("context", "use", "a").code == 0
    assert context.load().current == "a"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert edgeops("context", "use", "nobody").code == 2


@pytest.mark.parametrize("text", ["not toml [", "[contexts.a]\nurl = 1\n", "contexts = 3\n"])
def test_broken_contexts_file(config, edgeops, text: str):
    """A broken contexts file is named in the error."""
    config.parent.mkdir(parents=True)
    config.write_text(text)
    ran = edgeops("status")
    assert (ran.code, "[contexts-malformed]" in ran.err) == (2, True)


def test_base_install_says_what_to_install():
    """Without the manager's packages `edgeops` prints the one command and exits 2, without a traceback."""
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('typer', 'rich', 'httpx', 'fastapi', 'uvicorn', 'sqlalchemy', 'onnx'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from edgeops.cli.entry import main\n"
        "main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pip install 'edgeops[manager]'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_ctrl_c_is_quiet(straw, tmp_path: Path):
    """Ctrl-C while watching exits 130 without a traceback."""
    seen = []
    straw.answers["GET", "/rollouts/r-1"] = lambda *_: seen.append(1) or {"id": "r-1", "status": "running"}
    words = [sys.executable, "-m", "edgeops.cli.entry", "rollout", "watch", "r-1", "--interval", "0.1"]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline = time.monotonic() + 30
    while len(seen) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert len(seen) >= 2
    assert child.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("device", "revoke", "pi-1"), ("time", "accept")])
def test_a_question_to_nobody(straw, edgeops, monkeypatch, words):
    """Without a terminal a question ends with code 2 and says what to add; nothing is sent, nothing looks like a bug."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    ran = edgeops(*words)
    assert (ran.code, straw.asked) == (2, [])
    assert "add --yes" in ran.err and "[not-confirmed]" in ran.err and "Traceback" not in ran.err


@pytest.mark.parametrize("name", ["", "..", "../releases", "a/b", "pi?x=1", "pi#", "%2e%2e", "ü", "x" * 65])
@pytest.mark.parametrize("words", [("device", "show"), ("device", "token"), ("rollout", "show"), ("rollout", "pause")])
def test_what_is_no_name_is_never_asked_for(straw, edgeops, words, name: str):
    """A name that would be another path on the manager is refused here."""
    ran = edgeops(*words, name)
    assert (ran.code, "[bad-name]" in ran.err, straw.asked) == (2, True, [])


@pytest.mark.parametrize("name", ["digits:99999999999999999999", "../x:1", "digits:1/../2", "digits:¹", "digits:٣", "a b:1"])
def test_what_is_no_release_is_never_asked_for(straw, edgeops, name: str):
    """A model or version no release can have is refused here."""
    ran = edgeops("release", "show", name)
    assert (ran.code, "[release-name]" in ran.err, straw.asked) == (2, True, [])


def test_nothing_a_device_says_moves_the_terminal(straw, edgeops):
    """Escape sequences in what devices and managers tell are shown as what they are."""
    evil = "\x1b]0;owned\x07\x9b2J\u202e"
    straw.answers["GET", "/devices/pi-1"] = {"id": "pi-1", "facts": {evil: evil}, "labels": [evil]}
    straw.answers["GET", "/rollouts/r-1"] = {
        "id": "r-1", "status": "halted", "to": evil, "why": evil, "reasons": [{"count": 1, "verdict": "failed", "text": evil}],
        "devices": [{"device": "pi-1", "detail": evil}],
    }  # fmt: skip
    straw.problem("GET", "/devices/pi-2", 404, "unknown-device", evil)
    for words in (("device", "show", "pi-1"), ("rollout", "show", "r-1"), ("rollout", "watch", "r-1"), ("device", "show", "pi-2")):
        ran = edgeops(*words)
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(ran.out + ran.err), words
        assert "\\x1b]0;owned" in ran.out + ran.err


def test_a_bug_is_one_json_object_too(straw, edgeops):
    """An error nobody foresaw exits 1 with its traceback on stderr, and with --json as one object on stdout."""
    straw.answers["GET", "/devices"] = {"devices": [{"last_seen": "not a time"}]}
    ran = edgeops("device", "list")
    assert ran.code == 1 and "Traceback" in ran.err
    straw.answers["POST", "/devices"] = {"nothing": "of use"}
    ran = edgeops("device", "register", "pi-1", "--json")
    assert (ran.code, ran.json["error"]["reason"], ran.json["error"]["exit_code"]) == (1, "bug", 1)


def test_tokens_made_before_a_failure_are_not_lost(straw, edgeops, tmp_path: Path):
    """When the third row of a CSV fails, the tokens of the first two stand in the error's object."""
    def answer(_: object, body: dict[str, str]) -> object:
        return (409, {"reason": "device-exists", "detail": "no"}) if body["id"] == "c" else {"token": "edgeops1." + body["id"]}

    straw.answers["POST", "/devices"] = answer
    (tmp_path / "devices.csv").write_text("id\na\nb\nc\nd\n")
    ran = edgeops("device", "register", "--from", str(tmp_path / "devices.csv"), "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (2, "device-exists")
    assert [device["token"] for device in ran.json["error"]["devices"]] == ["edgeops1.a", "edgeops1.b"]


def test_output_nobody_takes():
    """A full disk behind stdout is exit 2 with one line, not a traceback."""
    code = "from edgeops.cli.app import run; import sys; sys.exit(run(['context', 'list', '--json']))"
    with Path(os.devnull).open() as unwritable:
        ran = subprocess.run([sys.executable, "-c", code], stdout=unwritable, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr and ran.stderr.count("\n") == 1
