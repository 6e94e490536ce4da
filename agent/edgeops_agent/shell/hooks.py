"""`health.d`: checks of the device's owner, asked while a candidate is on trial; it passes only when all of them have said yes.

Exit code 0 is yes, 21 is not yet (asked again until the trial's window is over, then it is a no), everything else is no. A check
that cannot be asked is a no, too: its owner put it there because a model that fails it must not stay. So whatever lies in health.d
and is not hidden must be a program of root's or the agent's own user, and so must the folder be theirs.
"""

import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeops.wire.errors import Misuse

from . import dropins

NOT_YET = 21
AGAIN_S = 3.0
FAILED, LATE = "health-hook", "health-hook-not-yet"


@dataclass(frozen=True, slots=True)
class Standing:
    """How the checks of a trial stand: `over` when there is nothing more to wait for; passed unless there is a `reason`."""

    over: bool
    reason: str = ""
    detail: str = ""


class Hooks:
    """The checks of one trial, one after the other in a thread of their own: one that hangs holds up nobody but them."""

    def __init__(self, folders: Sequence[Path], environment: Mapping[str, str], again_s: float = AGAIN_S,
                 timeout_s: float = dropins.TIMEOUT_S) -> None:  # fmt: skip
        self._folders, self._environment, self._again_s, self._timeout_s = folders, environment, again_s, timeout_s
        self._standing = Standing(False)
        self._not_yet: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="health-hooks", daemon=True)

    def begin(self) -> "Hooks":
        """Start asking."""
        self._thread.start()
        return self

    def end(self) -> None:
        """Ask no more; a check that is being asked is killed."""
        self._over.set()

    def standing(self, last: bool) -> Standing:
        """Where the checks are, at once; `last` says that the trial's window is over: what said "not yet" has had its time."""
        standing, not_yet = self._standing, self._not_yet
        if not standing.over and last and not_yet:
            told = "; ".join(f"{name}: {words}" if words else name for name, words in not_yet.items())
            return Standing(True, LATE, f"still not ready when the trial was over: {told}")
        return standing

    def _work(self) -> None:
        try:
            self._standing = self._ask_all()
        except Misuse as error:
            self._standing = Standing(True, FAILED, error.message)
        except Exception:
            self._standing = Standing(True, FAILED, f"the checks could not be asked: {traceback.format_exc(limit=-1)}")

    def _ask_all(self) -> Standing:
        """Ask round after round; between two of them it is known who said "not yet"."""
        waiting = [path for folder in self._folders for path in dropins.entries(folder)]
        while waiting:
            not_yet = {}
            for path in waiting:
                ended = self._ask(path)
                if ended.code == NOT_YET:
                    not_yet[path] = ended.last_line[:300]
                elif ended.code != 0:
                    how = ended.why or f"exit code {ended.code}"
                    return Standing(True, FAILED, f"{path.name}: {ended.last_line[:300] or 'said nothing'} ({how})")
            waiting = list(not_yet)
            self._not_yet = {path.name: words for path, words in not_yet.items()}
            if self._over.wait(self._again_s if waiting else 0):
                return self._standing
            self._not_yet = {}
        return Standing(True)

    def _ask(self, path: Path) -> dropins.Ended:
        if not dropins.is_program(path):
            raise Misuse("unreadable", f"{path} is no program and cannot be asked; `chmod +x` it, or move it away")
        return dropins.run([str(path)], self._environment, self._timeout_s, self._over)
