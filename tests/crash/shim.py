"""Where a process is killed and what is refused to it: `shim.c`, compiled and armed, and every point that a story offers."""

import ctypes
import errno
import functools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BEFORE, HALF, AFTER, ONCE, LASTING, LOSING = range(1, 7)
FATES = {
    BEFORE: "killed before it", HALF: "killed in the middle of it", AFTER: "killed after it",
    ONCE: "fails", LASTING: "fails from there on", LOSING: "fails, loses what was written, then killed",
}  # fmt: skip
FAILURES = (ONCE, LASTING)
NO_COMPILER = "a process is killed inside its calls by a shim in C, which needs Linux and a compiler: apt install gcc libc6-dev"
CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
CHANGES = "cowtsnum"
REFUSED = {errno.ENOSPC: "cwm", errno.EDQUOT: "cwm", errno.EIO: CHANGES, errno.EROFS: CHANGES}
"""What a disk that is full, broken, over quota or read-only goes on refusing; the letters are shim.c's."""


def compiler() -> str | None:
    """The C compiler, if there is one and what it makes can be preloaded."""
    return (shutil.which("cc") or shutil.which("gcc")) if sys.platform == "linux" else None


def build(room: Path) -> Path:
    """The shim, compiled; raises RuntimeError without a compiler."""
    found = compiler()
    if found is None:
        raise RuntimeError(NO_COMPILER)
    made, source = room / "shim.so", Path(__file__).with_name("shim.c")
    command = [found, "-std=gnu11", "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return made


@dataclass(frozen=True, slots=True)
class Point:
    """In this turn of the story, the call with this number and kind, and what becomes of it."""

    turn: int
    call: int
    kind: str
    mode: int
    code: int = 0

    def __str__(self) -> str:
        return f"turn {self.turn} call {self.call} ({self.kind}): {FATES[self.mode]} {errno.errorcode.get(self.code, '')}".strip()


def points(turns: list[str]) -> Iterator[Point]:
    """Every point, given the kinds of the calls of each turn; of the lasting failures one at each call, each in its turn."""
    number = 0
    for turn, kinds in enumerate(turns):
        for call, kind in enumerate(kinds, 1):
            number += 1
            point = functools.partial(Point, turn, call, kind)
            if kind not in CHANGES:  # a kill here leaves what a kill before the next change leaves
                yield from (point(ONCE, code) for code in ((errno.EIO,) if kind == "r" else CODES[:3]))
                continue
            yield from (point(mode) for mode in ((BEFORE, HALF, AFTER) if kind == "w" else (BEFORE, AFTER)))
            yield from (point(ONCE, code) for code in CODES)
            yield point(LASTING, CODES[number % len(CODES)])
            if kind == "s":
                yield point(LOSING, errno.EIO)


class Shim:
    """shim.c, as it was loaded into this process; it sees the files of paths that begin with `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder).encode()
        self._library = ctypes.CDLL(None)
        self._library.edgeops_shim_seen.restype = ctypes.c_char_p

    def arm(self, at: int = 0, mode: int = 0, code: int = 0) -> None:
        """Count anew; the call `at` from here, 0 for none."""
        kinds = REFUSED.get(code, "").encode()
        self._library.edgeops_shim_arm(self._folder, ctypes.c_long(at), mode, code, kinds)

    def seen(self) -> str:
        """The kinds of the calls since then."""
        return bytes(self._library.edgeops_shim_seen()).decode()
