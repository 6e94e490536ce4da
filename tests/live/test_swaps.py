"""A sample of the hot swaps of `python -m tests.live`, and bugs of taking over that clients who forgive nothing find."""

import pytest

from . import swaps

pytestmark = pytest.mark.real


def test_nobody_notices_a_swap(tmp_path, tell):
    """Under four clients on connections they never make anew no request fails, no answer is another model's, memory stays."""
    said = []
    figures = swaps.run(15, 1, said.append, tmp_path / "slot")
    tell(swaps.told(figures))
    assert swaps.fine(figures), (figures, said)


BUGS = (
    ("idle connections are not passed over", "shell/runner.py", "old.worker.drain(successor, seconds)",
     "old.worker.drain(None, 0.2)", "failed"),
    ("passed connections get lost", "shell/workers.py", 'self._successor._channel.send({"do": "adopt"}, fds)', "pass", "failed"),
    ("the old worker goes on answering", "shell/runner.py", "            self._retire(old, worker)\n", "            pass\n",
     "wrong"),
    ("the old worker is left behind", "shell/runner.py", "        self._collect_from(old)\n        old.worker.stop()\n",
     "        self._collect_from(old)\n        self.__dict__.setdefault('left', []).append(old)\n", "rss"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "file", "old", "new", "found"), BUGS, ids=[row[0] for row in BUGS])
def test_seeded_bug_is_caught(copied, monkeypatch, tmp_path, name, file, old, new, found):
    """The figures of a copy with the bug are not fine, for the reason expected."""
    monkeypatch.setattr(swaps, "WARM", 1)
    figures = swaps.run(3, 1, lambda text: None, tmp_path / "slot", copied(file, old, new))
    assert not swaps.fine(figures)
    assert figures[found] > (swaps.MOST_GROWTH if found == "rss" else 0)
