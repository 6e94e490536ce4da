"""One notation for every `--key`: a file, `env:NAME` (a variable that holds the PEM), `cmd:PROGRAM …` (an HSM behind a program).

The program is called with one more word. `PROGRAM … public` prints the public key (64 hex digits or PEM); `PROGRAM … sign` reads
the bytes to sign on standard input and prints the signature (64 bytes, or 128 hex digits). No shell sees the words.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeops.wire.errors import Misuse, Unreachable
from edgeops.wire.keys import Signer, is_encrypted, is_signed, public_from_text, signer_from_pem

PASSPHRASE = "EDGEOPS_KEY_PASSPHRASE"  # noqa: S105 the name of a variable
PATIENCE_S = 120.0
SIGNATURE = re.compile(rb"[0-9a-f]{128}\s*")
NOTATION = "a file, env:NAME or cmd:PROGRAM; repeat for more"
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help=f"Its first line opens encrypted keys. Default: ${PASSPHRASE}."),
]


def open_signers(keys: Sequence[str], passphrase_file: Path | None = None) -> list[Signer]:
    """The signers of some `--key` options; raises Misuse, Unreachable("key-program")."""
    return [open_signer(key, passphrase_file) for key in keys]


def open_signer(key: str, passphrase_file: Path | None = None) -> Signer:
    """One key by its notation; raises Misuse (no-key, bad-key, passphrase-needed, bad-passphrase), Unreachable("key-program")."""
    if key.startswith("cmd:"):
        return _by_program(shlex.split(key.removeprefix("cmd:")))
    pem, where = _read(key)
    return signer_from_pem(pem, where, _passphrase(where, passphrase_file) if is_encrypted(pem) else "")


def public_key(text: str) -> bytes:
    """A raw public key: 64 hex digits, a file that holds them or a PEM, or whatever `--key` takes that needs no passphrase."""
    if len(text) == 64 and not Path(text).exists():
        return public_from_text(text, "the key")
    if text.startswith("cmd:"):
        return open_signer(text).public
    pem, where = _read(text)
    return signer_from_pem(pem, where, _passphrase(where, None)).public if b"PRIVATE KEY" in pem else _public(pem, where)


def ask_new_passphrase(file: Path | None) -> str:
    """The passphrase for a new key: from `file`, the environment, or typed twice."""
    given = _given(file)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise Misuse("passphrase-needed", f"no terminal to ask at; set {PASSPHRASE} or give --passphrase-file")
    return str(typer.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True))


def _public(data: bytes, where: str) -> bytes:
    return public_from_text(data.decode("utf-8", "replace"), where)


def _read(key: str) -> tuple[bytes, str]:
    if key.startswith("env:"):
        name = key.removeprefix("env:")
        text = os.environ.get(name)
        if not text:
            raise Misuse("no-key", f"the environment has no variable {name}, which should hold a key in PEM")
        # Some CI systems keep a variable on one line.
        return text.replace("\\n", "\n").encode(), f"${name}"
    try:
        return Path(key).read_bytes(), key
    except FileNotFoundError:
        raise Misuse("no-key", f"there is no key {key}; `edgeops key new {shlex.quote(key)}` would make one") from None


def _passphrase(where: str, file: Path | None) -> str:
    given = _given(file)
    if given is None and sys.stdin.isatty():
        return str(typer.prompt(f"passphrase of {where}", hide_input=True, err=True))
    return given or ""


def _given(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(PASSPHRASE) or None
    lines = file.read_text("utf-8").splitlines()
    if not lines or not lines[0]:
        raise Misuse("passphrase-needed", f"{file} is empty; its first line must be the passphrase")
    return lines[0]


def _by_program(words: list[str]) -> Signer:
    if not words:
        raise Misuse("no-key", "cmd: names no program; for example cmd:./hsm-sign")
    public = _public(_call([*words, "public"], b""), words[0])

    def sign(message: bytes) -> bytes:
        said = _call([*words, "sign"], message)
        signature = bytes.fromhex(said.decode().strip()) if SIGNATURE.fullmatch(said) else said
        if not is_signed(public, signature, message):
            raise Misuse("bad-key", f"{words[0]} gave no signature of the key it showed; it must be Ed25519 over the very bytes")
        return signature

    return Signer(public, sign)


def _call(words: list[str], data: bytes) -> bytes:
    try:
        done = subprocess.run(words, input=data, capture_output=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable("key-program", f"the key program {words[0]} cannot be used: {error}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
        raise Unreachable("key-program", f"{shlex.join(words)} ended with {done.returncode}: {said or 'it said nothing'}")
    return done.stdout
