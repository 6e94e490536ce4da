"""What a worker is asked to run: files that are already verified on disk, session options and limits. Plain values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeops.wire.errors import Misuse


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker: bytes above the runtime's own footprint, and milliseconds for loading and for one call."""

    memory_bytes: int
    load_ms: int
    call_ms: int


@dataclass(frozen=True, slots=True)
class Runnable:
    """One model of one slot: `skeleton` is an ONNX file whose external data are named by sha256 inside `blobs`.

    `digest` names the release that is served, `golden` the CBOR golden set, `reference` the reference profile of the
    drift probes; the last two may be absent. The caller has checked every hash.
    """

    slot: str
    model: str
    version: int
    digest: str
    skeleton: Path
    blobs: Path
    session_options: Mapping[str, str]
    golden: Path | None
    reference: Path | None
    device_class: str
    limits: Limits

    def to_json(self) -> str:
        """The runnable as one JSON object, for the worker and for `slots/<slot>.json`."""
        return json.dumps(
            {
                "slot": self.slot,
                "model": self.model,
                "version": self.version,
                "digest": self.digest,
                "skeleton": str(self.skeleton),
                "blobs": str(self.blobs),
                "session_options": dict(self.session_options),
                "golden": None if self.golden is None else str(self.golden),
                "reference": None if self.reference is None else str(self.reference),
                "device_class": self.device_class,
                "limits": {
                    "memory_bytes": self.limits.memory_bytes,
                    "load_ms": self.limits.load_ms,
                    "call_ms": self.limits.call_ms,
                },
            },
            sort_keys=True,
        )

    @staticmethod
    def from_json(text: str | bytes) -> "Runnable":
        """Read what `to_json` wrote; raises Misuse("runnable-malformed")."""
        try:
            return _read(json.loads(text))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Misuse(
                "runnable-malformed", f"this is not a runnable ({error!r}); let the agent write it"
            ) from None


def _read(raw: Any) -> Runnable:
    limits = raw["limits"]
    return Runnable(
        slot=str(raw["slot"]),
        model=str(raw["model"]),
        version=int(raw["version"]),
        digest=str(raw["digest"]),
        skeleton=Path(raw["skeleton"]),
        blobs=Path(raw["blobs"]),
        session_options={str(name): str(value) for name, value in raw["session_options"].items()},
        golden=None if raw["golden"] is None else Path(raw["golden"]),
        reference=None if raw["reference"] is None else Path(raw["reference"]),
        device_class=str(raw["device_class"]),
        limits=Limits(int(limits["memory_bytes"]), int(limits["load_ms"]), int(limits["call_ms"])),
    )
