"""What rots on the disk is fetched again: the scrub names an object, its frames are asked for, the worker is renewed."""

import contextlib
import functools
from collections.abc import Callable, Iterator

from edgeops.wire.errors import EdgeopsError
from edgeops.wire.messages import Want
from edgeops.wire.release import Side

from ..core.record import Record
from ..core.slot import Build, Done, Event, Target
from ..core.update import keep
from . import builds
from .disk import StateFolder
from .documents import Documents
from .downloads import Downloads, Ears
from .fetching import StreamFetch
from .journal import say
from .ledger import Ledger
from .scrub import Scrub


class Mending:
    """Scrubs and mends. `mended(slot, build)` hears that a build is whole again; its worker may still hold what had rotted."""

    def __init__(
        self, folder: StateFolder, ledger: Ledger, documents: Documents, ears: Ears, mended: Callable[[str, Build], None],
        now: Callable[[], float],
    ) -> None:  # fmt: skip
        self._folder, self._ledger, self._documents, self._mended = folder, ledger, documents, mended
        self._wounds: dict[str, tuple[str, Build]] = {}
        self.downloads = Downloads(functools.partial(StreamFetch, folder), ears, self._over, now)
        self.scrub = Scrub(folder, self._objects, now)

    def look(self) -> None:
        """Scrub a little; begin to mend what was found."""
        if (damaged := self.scrub.look()) is None:
            return
        self._ledger.store(self._ledger.record.counted("objects_damaged"))
        for slot, build in _kept(self._ledger.record):
            if damaged in self._parts(build):
                text = f"object {damaged.sha256[:12]} of {build.model}:{build.version} has rotted on the disk; fetching it again"
                say("disk", text, "error", slot=slot, object=damaged.sha256, release=build.release)
                self._begin(slot, build)

    def wants(self) -> list[Want]:
        """The frames to ask for."""
        return self.downloads.wants()

    def _begin(self, slot: str, build: Build) -> None:
        key = f"{slot}/{build.release}"
        self._wounds[key] = (slot, build)
        try:
            listed, size = self._folder.document(build.stream), builds.variant_of(self._folder, build).size
        except EdgeopsError as error:
            say("disk", f"{build.model}:{build.version} cannot be mended: {error}", "error", slot=slot, reason=error.reason)
            return
        self.downloads.begin(key, Target(0, "mend", "", build, stream=build.stream, most_bytes=size), listed)

    def _over(self, key: str, event: Event) -> None:
        slot, build = self._wounds.pop(key)
        if not isinstance(event, Done):
            say("disk", f"{build.model}:{build.version} is not mended: {event}", "error", slot=slot, release=build.release)
            return
        self._ledger.store(self._ledger.record.counted("builds_mended"))
        say("disk", f"{build.model}:{build.version} is whole again", slot=slot, release=build.release)
        self._mended(slot, build)

    def _objects(self) -> Iterator[Side]:
        self._documents.restore(self._ledger.record)
        for _, build in _kept(self._ledger.record):
            yield from self._parts(build)

    def _parts(self, build: Build) -> list[Side]:
        """The objects of a build; of one whose manifest is damaged only that: what else it has is not known."""
        with contextlib.suppress(EdgeopsError):
            return list(builds.parts_of(self._folder, build))
        with contextlib.suppress(EdgeopsError):
            return [builds.variant_of(self._folder, build).manifest]
        return []


def _kept(record: Record) -> Iterator[tuple[str, Build]]:
    for name, slot in record.slots.items():
        for build in keep(slot):
            if slot.phase == "idle" or build in (slot.current, slot.previous):
                yield name, build
