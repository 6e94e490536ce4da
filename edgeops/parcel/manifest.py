"""The manifest of one variant: its objects and the two layouts made of them. Canonical JSON; its digest stands in the release,
so that whatever the manifest names is signed by the release keys.

`external`: a skeleton whose initializers point at files named by object digest (what ONNX Runtime maps on a device).
`inline`: one whole file, as segments taken in order from an inline skeleton (`s`) and from tensor objects (`t`).
"""

from dataclasses import dataclass
from typing import Any

from edgeops.wire import canonical
from edgeops.wire.errors import Rejected
from edgeops.wire.fields import HEX64, Fields
from edgeops.wire.release import Side

FORMAT = 1
MAX_OBJECTS = 4096
MAX_TOTAL = 1900 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` bytes of the inline file: of the inline skeleton when `tensor` is None, else of that object (whole)."""

    length: int
    tensor: str | None = None


@dataclass(frozen=True, slots=True)
class Inline:
    """How the single-file layout is assembled and what digest it must have."""

    whole: Side
    skeleton: Side
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """`skeleton` and `tensors` make the external layout, `golden` vectors prove it, traffic is compared with `reference`."""

    skeleton: Side
    tensors: tuple[Side, ...]
    golden: Side
    reference: Side | None = None
    inline: Inline | None = None

    @property
    def objects(self) -> tuple[Side, ...]:
        """All that a device holds beside the manifest, in the order it travels: golden vectors, reference, skeleton, tensors."""
        return (self.golden, *((self.reference,) if self.reference else ()), self.skeleton, *self.tensors)

    @property
    def size(self) -> int:
        """Bytes of all `objects`."""
        return sum(side.size for side in self.objects)

    def encode(self) -> bytes:
        """Canonical JSON bytes."""
        body: dict[str, Any] = {
            "format": FORMAT, "skeleton": self.skeleton.payload(), "tensors": [side.payload() for side in self.tensors],
            "golden": self.golden.payload(),
        }  # fmt: skip
        if self.reference:
            body["reference"] = self.reference.payload()
        if self.inline:
            body["inline"] = {
                "whole": self.inline.whole.payload(), "skeleton": self.inline.skeleton.payload(),
                "segments": [[part.length] if part.tensor is None else [part.length, part.tensor] for part in self.inline.segments],
            }  # fmt: skip
        return canonical.encode(body)

    @staticmethod
    def decode(data: bytes) -> "Manifest":
        """Read a manifest within the limits; raises Rejected."""
        fields = Fields.of(canonical.decode(data, "manifest"), "manifest")
        if fields.number("format") != FORMAT:
            raise Rejected("manifest-format", f"manifest format {fields.number('format')} is not known; update the agent")
        tensors = tuple(
            Side.parse(Fields.of(item, "manifest.tensors")) for item in fields.items("tensors", MAX_OBJECTS)
        )
        inline = _inline(fields.sub("inline"), tensors) if "inline" in fields.data else None
        reference = Side.parse(fields.sub("reference")) if "reference" in fields.data else None
        manifest = Manifest(Side.parse(fields.sub("skeleton")), tensors, Side.parse(fields.sub("golden")), reference, inline)
        if len({side.sha256 for side in manifest.objects}) != len(manifest.objects):
            raise Rejected("malformed", "manifest: an object stands twice")
        if manifest.size > MAX_TOTAL:
            raise Rejected("too-large", f"manifest: {manifest.size} bytes, {MAX_TOTAL} are allowed")
        return manifest


def _inline(fields: Fields, tensors: tuple[Side, ...]) -> Inline:
    sizes = {side.sha256: side.size for side in tensors}
    segments = []
    for item in fields.items("segments", 2 * MAX_OBJECTS + 1):
        part = Fields.of(dict(zip(("length", "tensor"), item, strict=False)) if isinstance(item, list) else item, fields.where)
        tensor = part.text("tensor", HEX64) if "tensor" in part.data else None
        if tensor is not None and sizes.get(tensor) != part.number("length"):
            raise Rejected("malformed", "manifest.inline: a segment is not a whole tensor object")
        segments.append(Segment(part.number("length"), tensor))
    inline = Inline(Side.parse(fields.sub("whole")), Side.parse(fields.sub("skeleton")), tuple(segments))
    if sum(part.length for part in segments if part.tensor is None) != inline.skeleton.size:
        raise Rejected("malformed", "manifest.inline: segments do not use up the skeleton")
    if sum(part.length for part in segments) != inline.whole.size:
        raise Rejected("malformed", "manifest.inline: segments do not add up to the whole")
    return inline
