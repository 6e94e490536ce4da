"""Programs on the devices: they draw fresh images and ask the model next door, over the Open Inference Protocol."""

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Unreachable

from .digits import draw, load_field

Array = npt.NDArray[Any]
SIDE = 8
SOURCE = "input"
PER_SECOND = 10


def darken(images: Array) -> Array:
    """What a dirty, knocked camera sees: a third of the light, two pixels to the side; rows (n, 64) in 0..1."""
    square = images.reshape(-1, SIDE, SIDE)
    moved = np.zeros_like(square)
    moved[:, :, 2:] = square[:, :, :-2]
    return (moved * 0.35).reshape(len(images), SIDE * SIDE).astype(np.float32)


@dataclass(slots=True)
class Answers:
    """What traffic came to; `failed` counts calls without an answer once there had been one."""

    calls: int = 0
    right: int = 0
    failed: int = 0
    versions: set[str] = field(default_factory=set)

    def add(self, other: "Answers") -> None:
        """Count another round too."""
        self.calls, self.right, self.failed = self.calls + other.calls, self.right + other.right, self.failed + other.failed
        self.versions |= other.versions


class Programs:
    """One program per device, each with its own seeded stream of images: no image is ever sent twice."""

    def __init__(self, field: Path, devices: dict[str, Path], seed: int) -> None:
        self.images, self.labels = load_field(field)
        self.devices = devices
        self.random = {name: np.random.default_rng([seed, index]) for index, name in enumerate(devices)}

    def run(self, calls: int, model: str, dark: str | None = None) -> dict[str, Answers]:
        """Every device answers `calls` fresh images, all at once; the images of device `dark` are darkened and shifted."""
        with ThreadPoolExecutor(len(self.devices)) as pool:
            jobs = {name: pool.submit(self._one, name, calls, model, name == dark) for name in self.devices}
            return {name: job.result() for name, job in jobs.items()}

    def _one(self, name: str, calls: int, model: str, dark: bool) -> Answers:
        rows, labels = draw(self.images, self.labels, calls, self.random[name])
        rows = darken(rows) if dark else rows
        answers = Answers()
        with self._client(name) as client:
            for row, label in zip(rows, labels, strict=True):
                _ask(client, model, row, int(label), answers)
        if answers.failed:
            raise Unreachable("no-answer", f"{name}: {answers.failed} of {calls} calls failed")
        return answers

    def _client(self, name: str) -> httpx.Client:
        return httpx.Client(base_url=json.loads((self.devices[name] / "endpoint.json").read_text())["http"], timeout=20)

    @contextlib.contextmanager
    def steady(self, model: str) -> Iterator[Answers]:
        """Meanwhile every device answers PER_SECOND fresh images a second, on one connection each; the sum, once it is over."""
        total, over = Answers(), threading.Event()
        with ThreadPoolExecutor(len(self.devices)) as pool:
            jobs = [pool.submit(self._steadily, name, model, over) for name in self.devices]
            try:
                yield total
            finally:
                over.set()
            for job in jobs:
                total.add(job.result())

    def _steadily(self, name: str, model: str, over: threading.Event) -> Answers:
        answers = Answers()
        with self._client(name) as client:
            while not over.wait(1 / PER_SECOND):
                rows, labels = draw(self.images, self.labels, 1, self.random[name])
                _ask(client, model, rows[0], int(labels[0]), answers)
        return answers


def _ask(client: httpx.Client, model: str, row: Array, label: int, answers: Answers) -> None:
    """One inference, counted. Before the first answer there may be no model yet, which is no failure."""
    body = {"inputs": [{"name": SOURCE, "shape": [1, row.size], "datatype": "FP32", "data": row.tolist()}]}
    try:
        reply = client.post(f"/v2/models/{model}/infer", json=body)
    except httpx.HTTPError:
        reply = httpx.Response(503)
    if reply.status_code != httpx.codes.OK:
        answers.failed += bool(answers.calls)
        return
    answer = reply.json()
    answers.calls += 1
    answers.versions.add(str(answer["model_version"]))
    answers.right += _label(answer) == label


def _label(answer: dict[str, Any]) -> int:
    """The predicted digit: of the output that has ten numbers."""
    for output in answer.get("outputs", ()):
        if len(output["data"]) == 10:
            return int(np.argmax(output["data"]))
    return -1
