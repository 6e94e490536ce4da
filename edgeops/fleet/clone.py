"""Two devices with one identity: what their report numbers give away.

A device numbers its reports upwards, over restarts too, and each start is a boot with an id of its own. So the numbers of two boots
never overlap, however late, often or disordered a broker delivers them. Copies of one folder count on from the same number: their
spans overlap, and each of them goes on speaking after the other was heard. A damaged record, too, can send a device back in its
numbers, but then its earlier boot is over and stays silent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_BOOTS = 8
LATE = 32


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot's reports as far as they came: the least and the greatest number, and how many came after a newer boot had begun."""

    id: str
    first: int
    last: int
    late: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """The boots of one incarnation, the one that spoke last at the end. `is_clone` once two of them are alive."""

    boots: tuple[Boot, ...] = ()
    is_clone: bool = False


def hear(heard: Heard, boot: str, number: int) -> Heard:
    """Note a signed report. Twice the same report, and what fits into a boot's known span, is no news."""
    known = next((one for one in heard.boots if one.id == boot), None)
    if known is None:
        return replace(heard, boots=(*heard.boots, Boot(boot, number, number))[-MOST_BOOTS:])
    if number <= known.last:
        widened = replace(known, first=min(known.first, number))
        return replace(heard, boots=tuple(widened if one.id == boot else one for one in heard.boots))
    others = tuple(one for one in heard.boots if one.id != boot)
    spoke_last = heard.boots[-1].id == boot
    grown = replace(known, last=number)
    if spoke_last:
        return replace(heard, boots=(*others, grown))
    # Its messages may have been on the way when a newer boot began, but never many.
    late = known.late + any(number < one.first for one in others)
    overlaps = any(grown.first <= one.last and one.first <= grown.last for one in others)
    return Heard((*others, replace(grown, late=late)), heard.is_clone or overlaps or late > LATE)
