"""What a served model is counted by: answers that are not finite, and latencies of late."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeops_agent.shell import served
from edgeops_agent.shell.served import LATENCIES, RECENT_NS, Served

BAD = {"nan": [0.5, np.nan], "inf": [np.inf, 1], "minus inf": [1, -np.inf]}


class Kept:
    """Statistics as two counts."""

    def __init__(self) -> None:
        self.appended = self.failed = 0

    def append(self, inputs: Any, outputs: Any, latency_us: int) -> None:
        """A call."""
        self.appended += 1

    def fail(self) -> None:
        """A failure."""
        self.failed += 1


def serve(answer: Any, sink: Any) -> Served:
    """A model that always gives this answer."""
    return Served(SimpleNamespace(), SimpleNamespace(call=lambda inputs: {"y": answer}), sink)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_answer_that_is_not_finite_is_a_failure_of_the_model(what: str, dtype: type) -> None:
    """It is given all the same; asked about numbers that are not finite, no model is blamed."""
    kept, answer = Kept(), np.array(BAD[what], dtype)
    model = serve(answer, kept)
    for question in (np.ones(2, np.float32), np.ones(2, np.int64)):
        assert model.infer({"x": question})["y"] is answer
    counted = model.counters()
    assert (counted["errors_by_reason"], counted["calls"], kept.failed, kept.appended) == ({"non-finite": 2}, 0, 2, 0)
    model.infer({"x": np.array([1, np.nan], np.float32)})
    assert (model.counters()["errors"], model.counters()["calls"]) == (2, 1)


@pytest.mark.parametrize(
    "answer", [np.full(4, 3e38, np.float32), np.full(4, 6e4, np.float16), np.array([], np.float32), np.array(["a"], object),
               np.array([True]), np.full((3, 3), 1e300)[::2, ::2]],
)  # fmt: skip
def test_large_and_other_answers_are_finite(answer: Any) -> None:
    """Numbers whose squares overflow, no numbers at all, texts, truths and slices are no failure."""
    model = serve(answer, Kept())
    model.infer({"x": np.ones(1, np.float32)})
    assert (model.counters()["errors"], model.counters()["calls"]) == (0, 1)


def test_percentiles_are_of_recent_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model did longer ago than ten minutes says nothing of how it does; of many calls the last 4,096 count."""
    now, takes = [10**12], [0]

    def clock() -> int:
        now[0] += takes[0]
        return now[0]

    monkeypatch.setattr(served.time, "perf_counter_ns", clock)
    model = serve(np.ones(1), None)

    def call(times: int, us: int) -> None:
        takes[0] = us * 1000
        for _ in range(times):
            model.infer({})
        takes[0] = 0

    call(100, 900)
    assert model.counters()["latency_us_p50"] == 900
    call(50, 100)
    assert (model.counters()["latency_us_p50"], model.counters()["latency_us_p99"]) == (900, 900)
    now[0] += RECENT_NS - 60 * 10**6
    assert model.counters()["latency_us_p50"] == 100
    now[0] += RECENT_NS
    assert (model.counters()["latency_us_p50"], model.counters()["calls"]) == (0, 150)
    call(LATENCIES, 7)
    call(10, 3000)
    assert (model.counters()["latency_us_p50"], model.counters()["latency_us_p99"]) == (7, 7)
