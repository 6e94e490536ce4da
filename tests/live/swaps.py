"""One model takes over from another and back, while clients who forgive nothing ask on connections they never make anew."""

import bisect
import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeops.wire.keys import Signer
from edgeops_agent.shell.disk import StateFolder

from ..agent.real.site import until
from .caller import Caller, Reply
from .models import Tiny, tiny

HIDDEN, CLIENTS_GAP_S, IDLE_GAP_S = 8, 0.05, 3.0
WARM = 4
"""Swaps after which memory is first measured: what is loaded once has been loaded then."""
MOST_GROWTH = 1.2


@dataclass(frozen=True)
class Swap:
    """A model was asked for, and was said to have taken over, at these monotonic seconds."""

    version: int
    asked: float
    done: float


@dataclass
class Slot:
    """The slot's process and the two models it swaps."""

    folder: Path
    models: tuple[Tiny, Tiny]
    process: subprocess.Popen[str]
    port: int
    swaps: list[Swap] = field(default_factory=list)

    def swap(self) -> None:
        """Let the other model take over; returns when it has."""
        number, asked = len(self.swaps) % 2, time.monotonic()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        assert said == str(number), f"the slot's process ended: {(self.folder / 'slot.err').read_text()[-1500:]}"
        self.swaps.append(Swap(self.models[number].version, asked, time.monotonic()))

    def rss(self) -> int:
        """Bytes of supervisor and worker together; asked only between swaps."""
        family = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in [family, *family.children(recursive=True)])


@contextlib.contextmanager
def slot(folder: Path, source: Path | None = None) -> Iterator[Slot]:
    """A slot that serves nothing yet. `source` is a folder with another copy of the agent's package, to run instead."""
    state, signer = StateFolder(folder / "state"), Signer.of(Ed25519PrivateKey.generate())
    folder.mkdir(parents=True, exist_ok=True)
    state.root.mkdir()
    state.create()
    models = tiny(signer, "berlin", 1, HIDDEN, 1), tiny(signer, "berlin", 2, HIDDEN, 1)
    for made in models:
        state.put_document(made.digest, made.envelope)
        for digest, data in made.objects.items():
            state.put(digest, len(data), data)
    argv = [sys.executable, "-P", str(Path(__file__).with_name("slot.py")), str(state.root)]
    env = {**os.environ, **({"PYTHONPATH": str(source)} if source else {})}
    with (folder / "slot.err").open("wb") as err:
        process = subprocess.Popen(
            [*argv, *(f"{made.digest}:{made.version}" for made in models)], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Slot(folder, models, process, int(process.stdout.readline()))
    finally:
        process.communicate(timeout=60)


def run(swaps: int, seed: int, say: Callable[[str], None], folder: Path, source: Path | None = None) -> dict[str, float]:
    """So many swaps under four clients; the figures."""
    with slot(folder, source) as served:
        for _ in range(WARM):
            served.swap()
        callers = [
            Caller(address, binary, gap_s, random.Random(seed + number))
            for number, (address, binary, gap_s) in enumerate(_kinds(served))
        ]
        for caller in callers:
            caller.start()
        until(lambda: all(caller.asked for caller in callers), "all clients to be answered")
        rss, growth = served.rss(), 0.0
        for number in range(swaps):
            served.swap()
            least = [caller.asked + 2 for caller in callers[:-1]]  # the last one is idle most of the time
            until(lambda: all(one.asked > few for one, few in zip(callers, least, strict=False)), "replies between two swaps")  # noqa: B023
            growth = max(growth, served.rss() / rss)
            if (number + 1) % 20 == 0:
                say(f"  swaps {number + 1}, requests {sum(len(one.replies) for one in callers)}, RSS ×{served.rss() / rss:.2f}")
        for caller in callers:
            caller.end()
        last = served.rss() / rss
    for caller in callers:
        for text in caller.failed[:5]:
            say(f"  failed: {text}")
    return _figures(served, callers, last, growth)


def _kinds(served: Slot) -> Iterator[tuple[tuple[str, int] | str, bool, float]]:
    """Address, binary or JSON, and the largest gap, of each client; the last one is mostly idle."""
    tcp, unix = ("127.0.0.1", served.port), str(served.folder / "state" / "run.sock")
    yield from ((tcp, True, CLIENTS_GAP_S), (unix, False, CLIENTS_GAP_S), (unix, True, CLIENTS_GAP_S), (tcp, False, IDLE_GAP_S))


def _figures(served: Slot, callers: list[Caller], last: float, growth: float) -> dict[str, float]:
    replies = [reply for caller in callers for reply in caller.replies]
    during, between = [], []
    for reply in replies:
        _, under_way = _standing(reply, served.swaps)
        (during if under_way else between).append(reply.ended - reply.began)
    failed = sum(len(caller.failed) for caller in callers)
    return {
        "swaps": len(served.swaps) - WARM, "requests": len(replies) + failed, "failed": failed,
        "wrong": sum(not right(reply, served) for reply in replies), "rss": last, "rss_most": growth,
        "p99_during_ms": _p99_ms(during), "p99_between_ms": _p99_ms(between),
    }  # fmt: skip


def right(reply: Reply, served: Slot) -> bool:
    """Whether it is exactly what one of the models answers that may have answered then: none that had been taken over from."""
    last, under_way = _standing(reply, served.swaps)
    may = {swap.version for swap in (last, *under_way)}
    answers = {made.version: made.answer.ravel() for made in served.models}
    return int(reply.version) in may and bool(np.allclose(reply.numbers, answers[int(reply.version)], rtol=1e-4, atol=1e-5))


def _standing(reply: Reply, swaps: list[Swap]) -> tuple[Swap, list[Swap]]:
    """The last swap that was over when the request began, and those under way before its reply had come."""
    over = bisect.bisect_right(swaps, reply.began, key=lambda swap: swap.done)
    later = itertools.takewhile(lambda swap: swap.asked < reply.ended, swaps[over:])
    return swaps[over - 1], list(later)


def _p99_ms(seconds: list[float]) -> float:
    return 1000 * float(np.percentile(seconds, 99)) if seconds else 0.0


def fine(figures: dict[str, float]) -> bool:
    """Whether nothing went wrong, and something was asked."""
    if not figures:
        return True
    clean = not figures["failed"] and not figures["wrong"]
    return clean and figures["rss"] <= MOST_GROWTH and figures["requests"] > figures["swaps"]


def told(figures: dict[str, float]) -> str:
    """The figures as one line."""
    if not figures:
        return "swaps 0"
    return (
        f"swaps {figures['swaps']}, requests {figures['requests']}, failed {figures['failed']}, wrong {figures['wrong']}, "
        f"RSS ×{figures['rss']:.2f}, p99 {figures['p99_during_ms']:.1f} ms during swaps, {figures['p99_between_ms']:.1f} ms between"
    )
