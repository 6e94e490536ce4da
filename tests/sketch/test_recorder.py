"""The device's recorder: it counts what was appended, keeps little, sends nothing small, and is cheap where it must be."""

import threading

import numpy as np
import pytest

from edgeops.sketch.build import build_reference
from edgeops.sketch.drift import scan
from edgeops.sketch.window import SketchWindow, WindowSet, merge_tallies
from edgeops.wire.errors import Misuse
from edgeops_agent.shell.recorder import CAPACITY, Recorder

from .streams import answer, digits_reference, draw


def recorder(reference=None, **options):
    """A recorder that started at 1,000 ms."""
    return Recorder(b"modelmod", bytes(range(16)), reference, 1_000, **options)


def feed(target, x, latency=250):
    """Append every row of images (n, 8, 8)."""
    for row, y, inner in zip(x, *answer(x), strict=True):
        target.append(latency, row, y, inner)


def test_windows_are_deltas_that_add_up_to_the_batch():
    """Two flushes merged equal counting all rows at once; header and latency are right, bytes come back."""
    reference = digits_reference()
    x = draw(np.random.default_rng(0), 300)
    target = recorder(reference)
    feed(target, x[:100])
    first = target.flush(61_000)
    feed(target, x[100:])
    second = target.flush(121_000)
    total = merge_tallies([first, second])
    assert np.array_equal(total.probes, reference.count(x, *answer(x)))
    assert (total.n, total.calls, total.latency.count, total.latency.sum_us) == (300, 300, 300, 75_000)
    assert [(w.seq, w.start_ms, w.duration_ms) for w in (first, second)] == [(0, 1_000, 60_000), (1, 61_000, 60_000)]
    assert (first.model, first.profile) == (b"modelmod", reference.hash8)
    again = [SketchWindow.from_bytes(w.to_bytes()) for w in (second, first, second)]
    assert WindowSet.of(again).tally().n == 300
    assert not scan(WindowSet.of(again).windows, reference).alarm


def test_fewer_than_fifty_rows_wait():
    """49 rows stay, the fiftieth lets all go in one window that began at the start."""
    target = recorder(digits_reference())
    x = draw(np.random.default_rng(0), 50)
    feed(target, x[:49])
    assert target.flush(2_000) is None
    feed(target, x[49:])
    window = target.flush(3_000)
    assert (window.tally.n, window.seq, window.start_ms, window.duration_ms) == (50, 0, 1_000, 2_000)
    assert target.flush(4_000) is None


def test_errors_are_told_at_once_and_small_counts_are_kept_back():
    """A window with errors leaves with no probe counts; those come with the next window."""
    target = recorder(digits_reference())
    x = draw(np.random.default_rng(0), 60)
    feed(target, x[:20])
    target.fail()
    told = target.flush(2_000)
    assert (told.tally.n, told.tally.errors, told.tally.calls, int(told.tally.probes.sum())) == (0, 1, 21, 0)
    SketchWindow.from_bytes(told.to_bytes())
    feed(target, x[20:])
    later = target.flush(3_000)
    assert (later.tally.n, later.tally.errors, later.tally.calls, later.seq) == (60, 0, 40, 1)


def test_a_full_buffer_drops_and_says_so():
    """1,024 rows are kept, the rest is counted as dropped; large rows make the buffer shorter, not larger."""
    target = recorder(digits_reference())
    feed(target, draw(np.random.default_rng(0), CAPACITY + 7))
    window = target.flush(2_000)
    large = recorder(build_reference(np.random.default_rng(0).standard_normal((200, 20_000)).astype(np.float32), seed=0))
    for _ in range(300):
        large.append(10, np.zeros(20_000, dtype=np.float32))
    assert large.flush(2_000).tally.dropped == 300 - 8 * 2**20 // 80_000
    assert (window.tally.n, window.tally.dropped, window.tally.calls) == (CAPACITY, 7, CAPACITY + 7)


def test_rows_that_do_not_fit_are_invalid():
    """Wrong shapes, no outputs and no numbers are counted, not raised."""
    target = recorder(digits_reference())
    x = draw(np.random.default_rng(0), 1)
    y, inner = answer(x)
    for row in ((x[0, :4], y[0], inner[0]), (x[0], None, inner[0]), (x[0].astype("U4"), y[0], inner[0]), (x[0], y[0], inner[0])):
        target.append(10, *row)
    tally = target.flush(2_000).tally
    assert (tally.invalid, tally.calls) == (3, 4)


def test_every_stride_th_row_is_binned_and_copies_are_copies():
    """Stride 5 bins a fifth and times all; a reused array does no harm with copy."""
    reference = digits_reference()
    target = recorder(reference, stride=5, copy=True)
    x = draw(np.random.default_rng(0), 500)
    y, inner = answer(x)
    row, out, deep = x[0].copy(), y[0].copy(), inner[0].copy()
    for i in range(500):
        row[:], out[:], deep[:] = x[i], y[i], inner[i]
        target.append(10, row, out, deep)
    window = target.flush(2_000)
    assert (window.stride, window.tally.n, window.tally.latency.count) == (5, 100, 500)
    assert np.array_equal(window.tally.probes, reference.count(x[::5], y[::5], inner[::5]))
    with pytest.raises(Misuse):
        recorder(reference, stride=0)


def test_without_a_profile_latency_and_counters_are_kept():
    """No probes, no rows; fifty calls make a window."""
    target = recorder()
    for i in range(50):
        target.append(i)
    window = target.flush(0)
    assert (window.tally.n, window.tally.calls, len(window.tally.probes), window.duration_ms) == (0, 50, 0, 0)
    assert SketchWindow.from_bytes(window.to_bytes()).tally.latency.count == 50


def test_no_row_is_lost_between_threads():
    """Four threads append while a fifth drains: rows counted and rows dropped add up to rows appended."""
    reference = digits_reference()
    target = recorder(reference)
    x = draw(np.random.default_rng(0), 100)
    rows = list(zip(x, *answer(x), strict=True))

    def appending():
        for _ in range(20):
            for row in rows:
                target.append(10, *row)
            target.fail()

    threads = [threading.Thread(target=appending) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        target.drain()
    tally = target.flush(2_000).tally
    assert tally.n + tally.dropped == 8_000
    assert (tally.errors, tally.calls) == (80, 8_080)
