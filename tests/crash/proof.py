"""The disk proof as a whole: searches for a violation, each in as many equal parts as one likes.

A case is distinct from every other: another call, another cut, another disk.
"""

import functools
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeops.wire.errors import EdgeopsError

from . import clocks, faults, flips, images, lives
from .cache import SimDisk
from .desk import Violation
from .story import mute

Case = tuple[str, Callable[[], object]]
FEW = 8
FIRSTS, SECONDS = 40, 30
"""So many first cuts, and a kill before every sync; of the recovery from each so many cuts."""


def cuts(part: int, parts: int) -> Iterator[Case]:
    """Every cut of the story with every image, when it is halved for two processes; otherwise with few."""
    for cut in images.first(0 if parts == 2 else FEW).cuts[part::parts]:
        yield f"call {cut.number} ({cut.call})", functools.partial(images.check, cut)


def second_cuts(part: int, parts: int) -> Iterator[Case]:
    """Cuts while a device recovers from a cut or a kill."""
    camera = images.first(FEW)
    chosen = random.Random(1).sample(camera.cuts, FIRSTS)
    begins = [(f"after call {cut.number}", SimDisk.of(cut.image), cut.desk.copy()) for cut in chosen]
    begins += [(f"killed before call {call}", disk, desk.copy()) for call, disk, desk in camera.kills]
    for label, disk, desk in begins[part::parts]:
        dice = random.Random(label)
        again = images.second(disk, desk, 1, dice)
        for cut in dice.sample(again, min(SECONDS, len(again))):
            yield f"{label}, then {cut.number} ({cut.call})", functools.partial(images.check, cut)


def refusals(part: int, parts: int) -> Iterator[Case]:
    """Every call of an update refused."""
    image, desk = faults.ready()
    for fault in itertools.islice(faults.every(image, desk), part, None, parts):
        yield str(fault), lambda fault=fault: faults.suffer(image, desk.copy(), fault)  # type: ignore[misc]


def records(part: int, parts: int) -> Iterator[Case]:
    """Every byte of the record's copies flipped; some of these with the whole agent started on it."""
    image, desk = flips.end()
    every = list(flips.of_records(image))
    yield "both copies gone", lambda: flips.check_last_resort(image, desk)
    for flip in every[part::parts]:
        yield f"believed: {flip}", functools.partial(flips.check_record, image, flip)
    for flip in [one for one in every if one.path != flips.COPIES[2]][::60][part::parts]:
        yield f"lived with: {flip}", functools.partial(flips.live_on, image, desk, flip)


def blobs(part: int, parts: int) -> Iterator[Case]:
    """Bytes of what runs, and of what was fetched to run next, flipped."""
    image, desk = flips.end()
    for flip in list(flips.of_blobs(image, 4))[::4][part::parts]:
        yield str(flip), functools.partial(flips.check_blob, image, desk, flip, 4, 2)
    for name, at in list(flips.of_candidate())[::20][part::parts]:
        yield f"candidate {name} at {at}", functools.partial(flips.check_candidate, image, desk, name, at)


def trust(part: int, parts: int) -> Iterator[Case]:
    """Enrolment, renewal, new roots, sites and floors of one device, cut once or twice."""
    with TemporaryDirectory() as room, lives.an_office(Path(room)) as office:
        for cut, fate in lives.cuts(office)[part::parts]:
            yield f"life cut at {cut}, {fate}", functools.partial(lives.run, office, cut, fate)


def jumps(part: int, parts: int) -> Iterator[Case]:
    """The wall clock jumps in every phase of an order."""
    for jump in itertools.islice(clocks.jumps(), part, None, parts):
        yield str(jump), functools.partial(clocks.suffer, jump)


SEARCHES: dict[str, Callable[[int, int], Iterator[Case]]] = {
    "cuts": cuts, "second cuts": second_cuts, "refusals": refusals, "records": records, "blobs": blobs, "trust": trust,
    "clocks": jumps,
}  # fmt: skip


def search(name: str, part: int = 0, parts: int = 1, bad: int = 20, near: str = "") -> tuple[int, list[str]]:
    """(cases tried, violations) of one of so many equal parts of a search; ends after `bad` violations."""
    mute()
    tried, found = 0, list[str]()
    try:
        for label, check in SEARCHES[name](part, parts):
            if near not in label:
                continue
            tried += 1
            try:
                check()
            except (Violation, EdgeopsError) as error:
                found.append(f"{label}: {error}")
                if len(found) >= bad:
                    break
    except (Violation, EdgeopsError) as error:  # the story itself does not go well
        found.append(str(error))
    return tried, found


def full(say: Callable[[str], None] = print, parts: int = 2) -> dict[str, tuple[int, list[str]]]:
    """Every search whole: (cases, violations) by its name."""
    results = {}
    with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
        for name in SEARCHES:
            shares = list(pool.map(functools.partial(search, name), range(parts), [parts] * parts))
            results[name] = (sum(tried for tried, _ in shares), [one for _, found in shares for one in found])
            say(f"simulated disk: {name} {results[name][0]}, violations {len(results[name][1])}")
    return results


def main() -> int:
    """`python -m tests.crash.proof SEARCH PARTS NEAR`: what a search finds first, for copies with a bug in them.

    In one of so many parts, or in all cases whose name says NEAR.
    """
    name, parts, near = sys.argv[1:]
    tried, found = search(name, 0 if near else int(parts) // 2, 1 if near else int(parts), 1, near)
    print(found[0] if found else f"nothing in {tried}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
