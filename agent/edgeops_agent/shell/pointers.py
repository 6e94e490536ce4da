"""`slots/NAME.json`: the committed model of each slot, for programs that open it in their own process (`Model`).

A candidate on trial is never shown here, so a rollback changes nothing for them.
"""

import contextlib
from collections.abc import Callable

from edgeops.wire.errors import EdgeopsError

from ..core.slot import Build
from . import builds
from .disk import StateFolder

AGAIN_S = 5.0


class Pointers:
    """Follows the record; a full disk leaves the older pointer, whose objects are kept as the previous model's."""

    def __init__(self, folder: StateFolder, device_class: str, now: Callable[[], float]) -> None:
        self._folder, self._device_class, self._now = folder, device_class, now
        self._shown: dict[str, Build | None] = {}
        self._again = 0.0

    def show(self, slot: str, build: Build | None) -> None:
        """Point `slot` at `build`; does nothing when it does already. What cannot be written is tried again after 5 s."""
        if (slot in self._shown and self._shown[slot] == build) or self._now() < self._again:
            return
        self._again = self._now() + AGAIN_S
        path = self._folder.slots / f"{slot}.json"
        with contextlib.suppress(EdgeopsError, OSError):
            if build is None:
                self._folder.files.remove(path)
            else:
                shown = builds.runnable(self._folder, slot, build, self._device_class)
                self._folder.put_whole(path, shown.to_json().encode())
            self._shown[slot] = build
            self._again = 0.0
