"""The limiter: so many at once, so many in a span, each key by itself, memory bounded, nothing measured by a real clock."""

import pytest

from edgeops.api.limits import MOST_KEYS, Limiter, TooMany, neighbourhood


def test_so_many_and_then_later() -> None:
    """The last of a burst passes, the next does not and says when; half the span gives back half of them."""
    limiter = Limiter(10, 60)
    for _ in range(10):
        limiter.take("a", 0)
    with pytest.raises(TooMany) as caught:
        limiter.take("a", 0)
    assert caught.value.retry_s == 7 and limiter.wait_s("a", 0) == pytest.approx(6)
    limiter.take("a", 6)
    for _ in range(5):
        limiter.take("a", 36)
    with pytest.raises(TooMany):
        limiter.take("a", 36)


def test_each_key_has_its_own() -> None:
    """One key's excess is nobody else's; looking takes nothing; a clock that went back gives nothing."""
    limiter = Limiter(1, 60)
    assert limiter.wait_s("a", 5) == limiter.wait_s("a", 5) == 0
    limiter.take("a", 5)
    limiter.take("b", 5)
    with pytest.raises(TooMany):
        limiter.take("a", 0)


def test_memory_is_bounded() -> None:
    """A million addresses need no more room than a few thousand, and those heard last are the ones kept."""
    limiter = Limiter(1, 1e9)
    for number in range(3 * MOST_KEYS):
        limiter.take(str(number), 0)
    assert len(limiter._buckets) == MOST_KEYS
    assert limiter.wait_s(str(3 * MOST_KEYS - 1), 0) > 0 and limiter.wait_s("0", 0) == 0


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"), ("", ""),
    ],
)  # fmt: skip
def test_who_is_counted_together(host: str, counted: str) -> None:
    """Whoever has a whole IPv6 network is one, however many addresses of it they use."""
    assert neighbourhood(host) == counted
