"""`python -m tests.live`: broker and line hurt in the middle of updates, then hot swaps under load. Exit 1 on any violation.

`--runs 1 --swaps 0 --seed S` does run S of the first half again: the same fault, so long after the same line of the agent's log.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from . import broker, swaps
from .scene import scene

LOST = ("lost", "waited")


def main() -> int:
    """Both halves, one line each run, and one line of figures."""
    parser = argparse.ArgumentParser(prog="tests.live", description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs, found = 0, dict[int, list[str]]()
        if options.runs:
            with scene(Path(folder) / "scene") as live:
                runs, found = broker.run(options.runs, options.seed, _say, live)
        figures = swaps.run(options.swaps, options.seed, _say, Path(folder) / "slot") if options.swaps else {}
    texts = [text for violations in found.values() for text in violations]
    lost = sum(text.startswith(LOST) for text in texts)
    doubled = sum("times" in text for text in texts)
    _say(f"broker runs {runs}, lost {lost}, doubled {doubled}, other {len(texts) - lost - doubled}; {swaps.told(figures)}")
    return int(bool(found) or not swaps.fine(figures))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
