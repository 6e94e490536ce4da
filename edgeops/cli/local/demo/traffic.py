"""Programs on the devices: they draw fresh images and ask the model next door, over the Open Inference Protocol."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Unreachable

from .digits import draw, load_field

Array = npt.NDArray[Any]
SIDE = 8


def darken(images: Array) -> Array:
    """What a dirty, knocked camera sees: a third of the light, two pixels to the side; rows (n, 64) in 0..1."""
    square = images.reshape(-1, SIDE, SIDE)
    moved = np.zeros_like(square)
    moved[:, :, 2:] = square[:, :, :-2]
    return (moved * 0.35).reshape(len(images), SIDE * SIDE).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a round of traffic came to."""

    calls: int
    right: int
    versions: frozenset[str]


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
        right, versions = 0, set()
        url = json.loads((self.devices[name] / "endpoint.json").read_text())["http"]
        with httpx.Client(base_url=url, timeout=20) as client:
            signature = client.get(f"/v2/models/{model}").json()
            source = signature["inputs"][0]["name"]
            for row, label in zip(rows, labels, strict=True):
                body = {"inputs": [{"name": source, "shape": [1, row.size], "datatype": "FP32", "data": row.tolist()}]}
                try:
                    reply = client.post(f"/v2/models/{model}/infer", json=body)
                except httpx.HTTPError as error:
                    raise Unreachable("no-answer", f"{name}: {error}") from None
                answer = reply.json()
                versions.add(str(answer.get("model_version", "")))
                right += int(_label(answer) == label)
        return Answers(calls, right, frozenset(versions))


def _label(answer: dict[str, Any]) -> int:
    """The predicted digit: of the output that has ten numbers."""
    for output in answer.get("outputs", ()):
        if len(output["data"]) == 10:
            return int(np.argmax(output["data"]))
    return -1
