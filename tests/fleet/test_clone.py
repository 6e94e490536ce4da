"""Clones are told from late, doubled and disordered messages of one honest device."""

import random

from hypothesis import given
from hypothesis import strategies as st

from edgeops.fleet.clone import LATE, MOST_BOOTS, Boot, Heard, hear

Report = tuple[str, int]


def heard(reports: list[Report]) -> Heard:
    """What is known after these reports."""
    known = Heard()
    for boot, number in reports:
        known = hear(known, boot, number)
    return known


def honest(lengths: list[int], gap: int) -> list[Report]:
    """The reports of one device over its boots: numbers only grow."""
    reports, number = [], 0
    for at, length in enumerate(lengths):
        number += gap
        for _ in range(length):
            number += 1
            reports.append((f"{at:032x}", number))
    return reports


@given(
    st.lists(st.integers(0, 40), max_size=MOST_BOOTS), st.integers(0, 100), st.integers(0, LATE),
    st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32),
)  # fmt: skip
def test_no_weather_makes_an_honest_device_a_clone(lengths, gap, late, lost, doubled, seed):
    """Loss, doubles, replays of anything ever sent, and delays that let at most LATE messages of a boot overtake: no alarm."""
    dice, sent = random.Random(seed), honest(lengths, gap)
    # A broker that holds up to `late` messages back for as long as it likes.
    waiting: list[Report] = []
    arrived: list[Report] = []
    for report in sent:
        if dice.random() < lost / 2:
            continue
        waiting.append(report)
        while len(waiting) > late or (waiting and dice.random() < 0.5):
            arrived.append(waiting.pop(dice.randrange(len(waiting))))
        if arrived and dice.random() < doubled:
            arrived.append(dice.choice(arrived[-100:]))
    arrived += waiting
    assert not heard(arrived).is_clone


@given(st.integers(0, 100), st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=60), st.integers(0, 10))
def test_two_copies_of_one_folder_are_a_clone(start, turns, ahead):
    """Whoever speaks when and how long: as soon as both have spoken and one that spoke before speaks again, it is a clone."""
    # Copies go on from the number in the copied record; one of them may have been speaking for a while.
    numbers = {"a": start, "b": start}
    reports: list[Report] = [("a", start + 1 + step) for step in range(ahead)]
    numbers["a"] += ahead
    for first, count in [(True, 1), *turns, (False, 1), (True, 1), (False, 1)]:
        name = "a" if first else "b"
        for _ in range(count):
            numbers[name] += 1
            reports.append((name, numbers[name]))
    assert heard(reports).is_clone


def test_an_old_image_is_found_even_if_nothing_overlaps():
    """A copy made many boots ago speaks below everything known: not proven by its numbers, but by going on and on."""
    known = heard([("now", 5_000)])
    for number in range(1, 3 * LATE):
        known = hear(hear(known, "old", number), "now", 5_000 + number)
        assert known.is_clone == (number - 1 > LATE)


def test_a_device_set_back_by_a_damaged_record_is_no_clone():
    """Its numbers overlap those of the boot before, which stays silent."""
    assert not heard([*(("a", n) for n in range(1, 100)), *(("b", n) for n in range(50, 150))]).is_clone


def test_what_is_kept_is_bounded_and_the_alarm_stays():
    """Only the boots that spoke last are kept; a clone is not forgotten by more boots."""
    known = heard([("a", 1), ("b", 1), ("a", 2)])
    assert known.is_clone and known.boots[-1] == Boot("a", 1, 2)
    for number in range(100):
        known = hear(known, f"boot-{number}", 1_000 + number)
    assert known.is_clone and len(known.boots) == MOST_BOOTS


def test_reports_from_two_boots_in_order_are_a_restart():
    """A restart is no clone, and the last message of the boot before may come late."""
    assert not heard([("a", 1), ("a", 2), ("b", 10), ("a", 3), ("b", 11)]).is_clone
