"""A disk behind a page cache, in memory: what was never synced may be lost, torn, emptied or zeroed when the power goes.

`SimDisk` is a `Files`. It remembers which writes and which changes of names have not been synced, and says what disks a power cut
could leave: any subset of the unsynced changes of names, in order, with every fate of the files that were written and not synced.
That is harsher than any file system we know: nothing is ever written by itself but in `rest`.
"""

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeops_agent.shell.files import Files, Look

MOST_FREE = 7
"""So many of the newest unsynced changes of names are lost or kept one by one; older ones are kept."""
Change = tuple[str, str, str]
"""Folder, then the name that goes ("" for none) and the name that comes ("" for none)."""


class Node:
    """One file: its bytes as programs see them, as they were last synced (None: never), and where the two may differ."""

    __slots__ = ("disk", "high", "low", "now")

    def __init__(self, now: bytes, disk: bytes | None) -> None:
        self.now, self.disk = now, disk
        self.low, self.high = (0, 0) if disk is not None else (0, len(now))

    @property
    def clean(self) -> bool:
        """Whether a power cut changes nothing here."""
        return self.disk is not None and self.low == self.high

    def touch(self, low: int, high: int) -> None:
        """Bytes from `low` to `high` were written."""
        self.low, self.high = (low, high) if self.clean else (min(self.low, low), max(self.high, high))

    def fates(self) -> dict[str, bytes]:
        """What may be left of it, without doubles, by the name of the fate; the first is that all is there."""
        if self.clean:
            return {"kept": self.now}
        old, new, low, high = self.disk or b"", self.now, self.low, min(self.high, len(self.now))
        middle = (low + high) // 2
        found = {
            "kept": new, "lost": old, "torn": new[:middle] + old[middle:], "empty": b"",
            "torn backwards": old[:middle].ljust(middle, b"\0") + new[middle:],
            "zeroed": new[:low] + bytes(max(0, high - low)) + new[high:],
        }  # fmt: skip
        return {name: data for at, (name, data) in enumerate(found.items()) if data not in list(found.values())[:at]}


@dataclass(frozen=True, slots=True)
class Image:
    """What a disk holds: files by path, and folders."""

    files: tuple[tuple[str, bytes], ...]
    folders: tuple[str, ...]

    def changed(self, path: str, data: bytes) -> "Image":
        """The same with other bytes in one file."""
        return Image(tuple(sorted({**dict(self.files), path: data}.items())), self.folders)


@dataclass
class SimDisk:
    """See above. `watch` is called before each call that changes something, with its name and path."""

    files: dict[str, Node] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/"})
    watch: Callable[[str, str], None] = lambda name, path: None
    room: int = 1 << 40
    calls: int = 0
    _pending: list[tuple[str, str, str, Node | None]] = field(default_factory=list)
    _durable: dict[str, Node | None] = field(default_factory=dict)
    _locks: set[str] = field(default_factory=set)

    @staticmethod
    def of(image: Image) -> "SimDisk":
        """A computer that starts with this disk."""
        nodes = {path: Node(data, data) for path, data in image.files}
        return SimDisk(nodes, set(image.folders), _durable={**nodes, **dict.fromkeys(image.folders)})

    def killed(self) -> "SimDisk":
        """The same computer after the agent was killed: no lock, and all that was not synced is still not."""
        other = SimDisk({}, set(self.folders), _durable={})
        twins: dict[int, Node] = {}

        def twin(node: Node | None) -> Node | None:
            if node is None:
                return None
            if id(node) not in twins:
                twins[id(node)] = made = Node(node.now, node.disk)
                made.low, made.high = node.low, node.high
            return twins[id(node)]

        other.files = {path: made for path, node in self.files.items() if (made := twin(node))}
        other._durable = {path: twin(node) for path, node in self._durable.items()}
        other._pending = [(folder, gone, new, twin(node)) for folder, gone, new, node in self._pending]
        return other

    # -- Files

    def _changing(self, name: str, path: Path) -> str:
        self.calls += 1
        self.watch(name, str(path))
        return str(path)

    def _node(self, path: Path) -> Node:
        found = self.files.get(str(path))
        if found is None:
            code = errno.EISDIR if str(path) in self.folders else errno.ENOENT
            raise _error(code, path)
        return found

    def _made(self, path: str) -> Node:
        if path not in self.files:
            folder = os.path.dirname(path)  # noqa: PTH120
            if folder not in self.folders:
                raise _error(errno.ENOENT, Path(path))
            self.files[path] = Node(b"", None)
            self._pending.append((folder, "", path, self.files[path]))
        return self.files[path]

    def read(self, path: Path, at: int = 0, most: int = -1) -> bytes:
        """See Files."""
        data = self._node(path).now
        return data[at:] if most < 0 else data[at : at + most]

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """See Files."""
        node = self._made(self._changing("write", path))
        node.touch(0, max(len(data), len(node.now)))
        node.now = data

    def patch(self, path: Path, at: int, data: bytes) -> None:
        """See Files."""
        node = self._made(self._changing("patch", path))
        node.touch(min(at, len(node.now)), at + len(data))
        node.now = node.now[:at].ljust(at, b"\0") + data + node.now[at + len(data) :]

    def sync(self, path: Path) -> None:
        """See Files."""
        where = self._changing("sync", path)
        if where not in self.folders:
            node = self._node(path)
            node.disk, node.low, node.high = node.now, 0, 0
            return
        self._durable = self._applied([change for change in self._pending if change[0] == where])
        self._pending = [change for change in self._pending if change[0] != where]

    def replace(self, source: Path, target: Path) -> None:
        """See Files."""
        self._changing("replace", target)
        node = self._node(source)
        del self.files[str(source)]
        self.files[str(target)] = node
        self._pending.append((str(target.parent), str(source), str(target), node))

    def remove(self, path: Path) -> None:
        """See Files."""
        if str(path) in self.files:
            where = self._changing("remove", path)
            del self.files[where]
            self._pending.append((str(path.parent), where, "", None))

    def names(self, folder: Path) -> list[str]:
        """See Files."""
        if str(folder) not in self.folders:
            raise _error(errno.ENOENT, folder)
        inside = f"{folder}/"
        every = {path.removeprefix(inside).split("/")[0] for path in (*self.files, *self.folders) if path.startswith(inside)}
        return sorted(every)

    def look(self, path: Path) -> Look | None:
        """See Files."""
        if str(path) in self.folders:
            return Look(0, 0, 0o700, os.geteuid())
        node = self.files.get(str(path))
        return None if node is None else Look(len(node.now), len(node.now), 0o600, os.geteuid())

    def make(self, folder: Path) -> None:
        """See Files."""
        for new in reversed([one for one in (folder, *folder.parents) if str(one) not in self.folders]):
            self.folders.add(self._changing("make", new))
            self._pending.append((str(new.parent), "", str(new), None))

    def free(self, folder: Path) -> int:
        """See Files."""
        return self.room

    def lock(self, path: Path) -> int | None:
        """See Files."""
        if str(path) in self._locks:
            return None
        self._locks.add(str(path))
        return 1

    def unlock(self, lock: int) -> None:
        """See Files."""
        self._locks.clear()

    # -- what a power cut leaves

    def rest(self) -> None:
        """Nothing happens for so long that everything is written by itself."""
        for node in self.files.values():
            node.disk, node.low, node.high = node.now, 0, 0
        self._durable, self._pending = {**self.files, **dict.fromkeys(self.folders)}, []

    def _applied(self, changes: list[tuple[str, str, str, Node | None]]) -> dict[str, Node | None]:
        after = dict(self._durable)
        for _, gone, new, node in changes:
            if gone:
                after.pop(gone, None)
            if new:
                after[new] = node
        return after

    def images(self) -> Iterator[Image]:
        """Every disk that a power cut may leave now, each once; the first is that all is there."""
        seen = set()
        forced, free = self._pending[:-MOST_FREE], self._pending[-MOST_FREE:]
        for kept in itertools.product((True, False), repeat=len(free)):
            nodes = self._applied([*forced, *itertools.compress(free, kept)])
            for fates in itertools.product(*(node.fates().values() if node else (b"",) for node in nodes.values())):
                image = _image(nodes, dict(zip(nodes, fates, strict=True)))
                if image not in seen:
                    seen.add(image)
                    yield image

    def some(self, most: int, dice: random.Random) -> list[Image]:
        """At most so many of them."""
        found = dict.fromkeys((self.image("kept"), self.image("lost")))
        for _ in range(2 * most):
            nodes = self._applied([change for change in self._pending if dice.random() < 0.5])
            found[_image(nodes, {path: dice.choice([*node.fates().values()]) for path, node in nodes.items() if node})] = None
        return dice.sample(list(found), min(most, len(found)))

    def image(self, fate: str) -> Image:
        """The one disk where all names are kept (or with "lost" none that was not synced), and files have this fate if they can."""
        entries = self._applied([] if fate == "lost" else self._pending)
        return _image(entries, {path: (found := node.fates()).get(fate, found["kept"]) for path, node in entries.items() if node})


def _image(entries: Mapping[str, Node | None], data: Mapping[str, bytes]) -> Image:
    """Without what lies in a folder that is lost."""
    folders = {"/"}
    for path in sorted(name for name, node in entries.items() if node is None):
        if os.path.dirname(path) in folders:  # noqa: PTH120
            folders.add(path)
    inside = {path: data[path] for path, node in entries.items() if node and os.path.dirname(path) in folders}  # noqa: PTH120
    return Image(tuple(sorted(inside.items())), tuple(sorted(folders)))


def _error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))


GROWS = {"write", "patch", "make"}
CHANGES = GROWS | {"replace", "remove"}
REFUSED = {
    errno.ENOSPC: GROWS, errno.EDQUOT: GROWS, errno.EROFS: CHANGES, errno.EIO: CHANGES | {"read", "sync", "names", "look"},
}  # fmt: skip
"""What a disk that is full, over quota, read-only or broken goes on refusing."""


@dataclass
class Faulty:
    """A disk whose call number `at` fails with `code`; with `lasting` later ones too, as such a disk does, until `healed`."""

    disk: Files
    at: int
    code: int
    lasting: bool = False
    healed: bool = False
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> object:
        call = getattr(self.disk, name)

        def failing(*args: object) -> object:
            self.calls.append(f"{name} {args[0]}")
            lasts = self.lasting and len(self.calls) > self.at and name in REFUSED[self.code]
            if not self.healed and (len(self.calls) == self.at or lasts):
                raise _error(self.code, Path(str(args[0])))
            return call(*args)

        return call if name == "unlock" else failing
