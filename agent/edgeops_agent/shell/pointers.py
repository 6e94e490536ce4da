"""`slots/NAME.json`: the committed model of each slot, for programs that open it in their own process (`Model`).

A candidate on trial is never shown here, so a rollback changes nothing for them.
"""

import contextlib

from edgeops.wire.errors import EdgeopsError

from ..core.slot import Build
from . import builds
from .disk import StateFolder, write_whole


class Pointers:
    """Follows the record; a full disk leaves the older pointer, whose objects are kept as the previous model's."""

    def __init__(self, folder: StateFolder, device_class: str) -> None:
        self._folder, self._device_class = folder, device_class
        self._shown: dict[str, Build | None] = {}

    def show(self, slot: str, build: Build | None) -> None:
        """Point `slot` at `build`; does nothing when it does already. What cannot be written now is tried at the next call."""
        if slot in self._shown and self._shown[slot] == build:
            return
        path = self._folder.slots / f"{slot}.json"
        with contextlib.suppress(EdgeopsError, OSError):
            if build is None:
                path.unlink(missing_ok=True)
            else:
                write_whole(path, builds.runnable(self._folder, slot, build, self._device_class).to_json().encode())
            self._shown[slot] = build
