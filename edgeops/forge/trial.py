"""Making the variants of one model and judging them on the bytes that would be signed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort

from edgeops.wire.errors import Rejected

from . import quantize
from .canonical import Packed
from .canonical import pack as lay_out
from .dataset import Dataset
from .evaluate import Latency, Quality, latency, quality
from .gate import ORDER, Gates, Verdict, judge
from .pack import Folder
from .runtime import inputs_of, open_session, run_rows
from .source import Limits

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose. `variants`: which may be released; fp32 is always made, as the yardstick.

    `commit`: of the training code. `allowed_overlap`: share of evaluation rows that may be calibration rows too.
    """

    gates: Gates = field(default_factory=Gates)
    limits: Limits = field(default_factory=Limits)
    variants: tuple[str, ...] = ORDER
    allowed_overlap: float = 0.01
    seed: int = 0
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None where it was not measured. `reason` is `pass` or why not, `detail` for people."""

    variant: str
    size: int | None
    accuracy: float | None
    agreement: float | None
    p50_us: float | None
    ratio: float | None
    passed: bool
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """The three data sets in the model's dtype."""

    calib: Dataset
    evaluation: Dataset
    reference: Dataset


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A variant laid out in a staging folder and loaded from its own objects."""

    draft: quantize.Draft
    packed: Packed
    skeleton: Path
    session: ort.InferenceSession


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A variant, what was measured, and the verdict."""

    made: Made
    quality: Quality
    latency: Latency
    verdict: Verdict

    @property
    def row(self) -> Row:
        """The line of the table."""
        found, time, verdict = self.quality, self.latency, self.verdict
        return Row(
            self.made.draft.name, self.made.packed.size, found.accuracy, found.agreement, time.p50_us, time.ratio,
            verdict.passed, verdict.reason, verdict.detail,
        )  # fmt: skip


def make(stage: Folder, draft: quantize.Draft) -> Made:
    """Lay `draft` out in `stage` and load it; raises Rejected("does-not-load")."""
    packed = lay_out(draft.model)
    skeleton = stage.put_all(packed)
    return Made(draft, packed, skeleton, open_session(skeleton, stage.objects, draft.options))


def make_variants(
    stage: Folder, plain: Made, data: Data, wanted: tuple[str, ...], progress: Progress
) -> tuple[list[Made], list[Row]]:
    """fp32 first, then what could be made of it; a row for each that could not."""
    made, failed = [plain], []
    model = plain.draft.model
    batch = max(inputs_of(plain.session)[0].shape[0], 0)
    ways: Mapping[str, Callable[[], quantize.Draft]] = {
        "int8": lambda: quantize.int8(model, data.calib.x, batch), "store_i8": lambda: quantize.store_i8(model),
    }  # fmt: skip
    for name, build in ways.items():
        if name not in wanted:
            continue
        progress(f"make {name}")
        try:
            if not quantize.quantizable(model):
                raise Rejected("nothing-to-quantize", "no Conv, MatMul or Gemm with constant weights (a tree, for example)")
            variant = make(stage, build())
            run_rows(variant.session, data.evaluation.x[:2])
            made.append(variant)
        except Rejected as error:
            failed.append(Row(name, None, None, None, None, None, False, error.reason, error.message))
    return made, failed


def judge_all(made: list[Made], evaluation: Dataset, options: Options) -> list[Judged]:
    """Measure all variants on the evaluation rows, the first being fp32, and judge them."""
    outputs = [run_rows(item.session, evaluation.x) for item in made]
    times = latency([item.session for item in made], evaluation.x, options.seed)
    judged = []
    for item, got, timing in zip(made, outputs, times, strict=True):
        measured = quality(got, outputs[0], evaluation.y)
        ratio = item.packed.size / made[0].packed.size
        verdict = judge(item.draft.kind, measured, timing, ratio, options.gates)
        if item.draft.name not in options.variants:
            verdict = Verdict(False, "not-wanted", "made only as the yardstick")
        judged.append(Judged(item, measured, timing, verdict))
    return judged
