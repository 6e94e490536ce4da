"""The release document: what exists and what it needs. Signed offline by the publisher, never by the running manager."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .device_class import ANY, CLASSES, check_options
from .fields import HEX64, ID, Fields, brief

KINDS = ("model", "bench")
RUNTIME = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")
NAME = re.compile(r"[ -~]{1,128}")
MAX_OBJECT = 512 << 20
# What a variant or a release need not say.
USUAL_VARIANT: Mapping[str, Any] = {"options": {}, "memory": 0}
USUAL: Mapping[str, Any] = {"must": []}


@dataclass(frozen=True, slots=True)
class Side:
    """A side object by digest: lower-case hex SHA-256 and size in bytes."""

    sha256: str
    size: int

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {"sha256": self.sha256, "size": self.size}

    @staticmethod
    def parse(fields: Fields) -> "Side":
        """Read {sha256, size}."""
        size = fields.number("size")
        if size > MAX_OBJECT:
            raise fields.fail("size", f"at most {MAX_OBJECT}")
        return Side(fields.text("sha256", HEX64), size)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, dtype and shape of an input or output; -1 in the shape is a free dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def payload(self) -> dict[str, Any]:
        """The JSON payload."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @staticmethod
    def parse(fields: Fields) -> "Tensor":
        """Read one tensor description."""
        shape = fields.items("shape", 16)
        if not all(isinstance(size, int) and not isinstance(size, bool) and size >= -1 for size in shape):
            raise fields.fail("shape", "a list of integers >= -1")
        return Tensor(fields.text("name", NAME), fields.text("dtype", ID), tuple(shape))


@dataclass(frozen=True, slots=True)
class Variant:
    """Bytes plus session options for some device classes; the manifest names the objects, golden vectors and reference among them.

    `size` is all bytes a device without anything must fetch, the manifest's own included: more than that nobody may make it
    fetch. `memory` is what the forge measured the worker to need, in bytes (0 = not measured).
    """

    classes: tuple[str, ...]
    options: Mapping[str, str]
    manifest: Side
    size: int
    memory: int = 0

    def payload(self) -> dict[str, Any]:
        """The JSON payload, as short as it can be."""
        body = {
            "classes": list(self.classes), "options": dict(self.options), "manifest": self.manifest.payload(), "size": self.size,
            "memory": self.memory,
        }  # fmt: skip
        return brief(body, USUAL_VARIANT)

    @staticmethod
    def parse(fields: Fields) -> "Variant":
        """Read one variant; raises Rejected."""
        classes = fields.texts("classes", most=8)
        if not classes or any(name not in (*CLASSES, ANY) for name in classes):
            raise fields.fail("classes", f"some of {', '.join((*CLASSES, ANY))}")
        options = {str(name): str(value) for name, value in fields.mapping("options", 16, {}).items()}
        check_options(options)
        return Variant(
            classes, options, Side.parse(fields.sub("manifest")), fields.number("size"), fields.number("memory", default=0)
        )

    def fits(self, device_class: str) -> bool:
        """Whether a device of this class may run it."""
        return ANY in self.classes or device_class in self.classes


@dataclass(frozen=True, slots=True)
class Release:
    """One version of one model in its variants. `created` is Unix seconds, `runtime` the least ONNX Runtime (major.minor)."""

    fleet: str
    kind: str
    model: str
    version: int
    created: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ir: int
    opset: int
    runtime: str
    variants: Mapping[str, Variant]
    sides: Mapping[str, Side]
    must: tuple[str, ...] = ()

    def payload(self) -> dict[str, Any]:
        """The JSON payload, as short as it can be."""
        body = {
            "fleet": self.fleet, "kind": self.kind, "model": self.model, "version": self.version, "created": self.created,
            "inputs": [t.payload() for t in self.inputs], "outputs": [t.payload() for t in self.outputs],
            "ir": self.ir, "opset": self.opset, "runtime": self.runtime,
            "variants": {name: v.payload() for name, v in self.variants.items()},
            "sides": {name: s.payload() for name, s in self.sides.items()}, "must": list(self.must),
        }  # fmt: skip
        return brief(body, USUAL)

    @staticmethod
    def parse(fields: Fields) -> "Release":
        """Read a release payload; raises Rejected."""
        if fields.text("kind") not in KINDS:
            raise fields.fail("kind", " or ".join(KINDS))
        variants = fields.each("variants", Variant.parse, 32)
        if not variants:
            raise fields.fail("variants", "at least one variant")
        return Release(
            fields.text("fleet", ID), fields.text("kind"), fields.text("model", ID), fields.number("version", 1),
            fields.number("created"), _tensors(fields, "inputs"), _tensors(fields, "outputs"), fields.number("ir", 3),
            fields.number("opset", 1), fields.text("runtime", RUNTIME), variants, fields.each("sides", Side.parse, 16),
            fields.texts("must", NAME, 32, ()),
        )  # fmt: skip


def shortest(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A release payload that parses, as `Release.payload` writes it: what only spells out the usual is left out, nothing else."""
    variants = {name: brief(variant, USUAL_VARIANT) for name, variant in payload["variants"].items()}
    return brief({**payload, "variants": variants}, USUAL)


def _tensors(fields: Fields, name: str) -> tuple[Tensor, ...]:
    found = tuple(Tensor.parse(Fields.of(item, f"{fields.where}.{name}")) for item in fields.items(name, 64))
    if not found or len({tensor.name for tensor in found}) != len(found):
        raise fields.fail(name, "a list of distinctly named tensors")
    return found
