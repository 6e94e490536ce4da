"""Folders in which a device's owner leaves files and programs for the agent: whose are taken, and how the programs are run.

What lies there steers updates: only root and the agent's own user may have put it there, and nobody else may be able to change it.
"""

import contextlib
import errno
import os
import select
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Misuse

ETC = Path("/etc/edgeops-agent")
MOST_ENTRIES = 64
MOST_BYTES = 16 << 10
TIMEOUT_S = 10.0
LOOK_S = 0.1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit code (negative: the signal; None: it was killed, and `why` says what for), what it printed."""

    code: int | None
    output: bytes
    why: str = ""

    @property
    def last_line(self) -> str:
        """The last line it printed, as far as it can be shown."""
        lines = self.output.decode(errors="replace").split("\n")
        shown = ["".join(one if one.isprintable() else " " for one in line).strip() for line in lines]
        return next((line for line in reversed(shown) if line), "")


def entries(folder: Path) -> list[Path]:
    """What lies in `folder`, in the order of names, but for hidden files; nothing when it does not exist.

    Raises Misuse("untrusted") for a folder others may write to or own, "unreadable" for one that cannot be read.
    """
    try:
        status = folder.stat()
        _trust(folder, status)
        if not stat.S_ISDIR(status.st_mode):
            raise Misuse("unreadable", f"{folder} is no folder")
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Misuse("unreadable", f"{folder} cannot be read: {error.strerror}") from None
    if len(found) > MOST_ENTRIES:
        raise Misuse("unreadable", f"{folder} holds more than {MOST_ENTRIES} files; take some away")
    return found


def read(path: Path) -> tuple[bytes, os.stat_result]:
    """A file's bytes and status, which belong together; raises Misuse("untrusted" | "unreadable")."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            _check_file(path, status)
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Misuse("untrusted", f"{path} is a link; put the file itself there") from None
        raise Misuse("unreadable", f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise Misuse("unreadable", f"{path} is larger than {MOST_BYTES} bytes")
    return data, status


def is_program(path: Path) -> bool:
    """Whether `path` is a program of ours; raises Misuse("untrusted" | "unreadable") for what is no file of ours."""
    try:
        status = path.lstat()
    except OSError as error:
        raise Misuse("unreadable", f"{path} cannot be read: {error.strerror}") from None
    _check_file(path, status)
    return bool(status.st_mode & 0o111) and os.access(path, os.X_OK)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Misuse("untrusted", f"{path} is no regular file; put the file itself there")
    _trust(path, status)


def _trust(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise Misuse("untrusted", f"{path} belongs to user {status.st_uid}; only root and the agent's own user are heard")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Misuse("untrusted", f"{path} may be written by others; `chmod go-w` it")


def run(argv: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = TIMEOUT_S,
        over: threading.Event | None = None) -> Ended:  # fmt: skip
    """Run a program that nobody vouches for, in a process group of its own, with a bare environment. It is killed with all it has
    started when it takes longer than `seconds`, prints more than MOST_BYTES, or `over` is set.

    Raises Misuse("unreadable") if it cannot start.
    """
    bare = {"PATH": os.environ.get("PATH", PATH), "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        process = subprocess.Popen(
            [str(Path(argv[0]).absolute()), *argv[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=bare, cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Misuse("unreadable", f"{argv[0]} cannot be run: {error.strerror}") from None
    try:
        output, why = _listen(process, time.monotonic() + seconds, over)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # whatever it has started, too
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return Ended(None if why else code, output, f"{why} ({seconds:g} s)" if why == TOO_LATE else why)


TOO_LATE, TOO_MUCH, STOPPED = "no answer in time", f"printed more than {MOST_BYTES} bytes", "not needed any more"


def _listen(process: "subprocess.Popen[bytes]", deadline: float, over: threading.Event | None) -> tuple[bytes, str]:
    """What it prints until it has ended, and why it must be ended, if so. A child of it that keeps the pipe is not waited for."""
    if process.stdout is None:
        return b"", ""
    with process.stdout as pipe:
        return _listen_at(pipe.fileno(), process, deadline, over)


def _listen_at(fd: int, process: "subprocess.Popen[bytes]", deadline: float, over: threading.Event | None) -> tuple[bytes, str]:
    output, open_end = b"", True
    while True:
        ended = process.poll() is not None
        if open_end and select.select([fd], [], [], 0 if ended else LOOK_S)[0]:
            chunk = os.read(fd, MOST_BYTES)
            output, open_end = output + chunk, bool(chunk)
        elif ended:
            return output, ""
        if len(output) > MOST_BYTES:
            return output[:MOST_BYTES], TOO_MUCH
        if not ended and over is not None and over.is_set():
            return output, STOPPED
        if not ended and time.monotonic() >= deadline:
            return output, TOO_LATE
        if not open_end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
