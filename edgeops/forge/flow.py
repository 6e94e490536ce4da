"""The whole way from a source to an unsigned release folder, and the table a user reads."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.fields import ID
from edgeops.wire.release import Release, Variant

from . import pack, quantize
from .canonical import canonicalise, expose_penultimate
from .dataset import check_apart, check_labels, doubt, fit, load_dataset
from .gate import ORDER, Verdict
from .golden import make_golden
from .lineage import lineage_bytes, report_bytes
from .reference import few_rows, make_reference
from .runtime import classes_of, inputs_of, labels_from, outputs_of, run_rows, scores_name
from .source import Source, load_source
from .trial import Data, Judged, Made, Options, Progress, Row, judge_all, make, make_variants


@dataclass(frozen=True, slots=True)
class Forged:
    """An unsigned release in `folder`; `best` is the variant that comes first in the order tried, `verdict` one line for people."""

    folder: Path
    release: Release
    rows: tuple[Row, ...]
    best: str
    verdict: str
    warnings: tuple[str, ...]


class NothingPassed(Rejected):
    """No variant may be released; `rows` is the table with the reasons."""

    def __init__(self, rows: tuple[Row, ...]) -> None:
        reasons = "; ".join(f"{row.variant}: {row.detail}" for row in rows)
        super().__init__("no-variant-passes", f"no variant may be released. {reasons}")
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Label:
    """What the release is called; `created` in Unix seconds."""

    fleet: str
    name: str
    version: int
    created: int


def add_model(
    source: Path, *, name: str, version: int, fleet: str, calib: Path, evaluation: Path, out: Path, now: int,
    reference: Path | None = None, options: Options | None = None, progress: Progress = lambda step: None,
) -> Forged:  # fmt: skip
    """Make an unsigned release folder at `out` (new or empty). `now` in Unix seconds; `progress` hears each step before it starts.

    Raises Rejected with the reason of the source or the data, NothingPassed; Misuse: bad-name, folder-in-use, no-such-file ….
    """
    options = options or Options()
    if not ID.fullmatch(name) or not ID.fullmatch(fleet) or version < 1 or not set(options.variants) <= set(ORDER):
        raise Misuse("bad-name", f"names are {ID.pattern}, versions count from 1, variants are some of {', '.join(ORDER)}")
    pack.fresh_folder(out)
    progress("check the source")
    loaded = load_source(source, options.limits)
    data = Data(
        load_dataset(calib, "calibration"), load_dataset(evaluation, "evaluation"),
        replace(load_dataset(reference or calib, "reference"), what="reference"),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="edgeops-forge-") as scratch:
        stage = pack.Folder(Path(scratch))
        plain, data, warnings = _prepare(stage, loaded, data, options, progress)
        made, failed = make_variants(stage, plain, data, options.variants, progress)
        progress("evaluate")
        judged = judge_all(made, data.evaluation, options)
        warnings += filter(None, [doubt(data.evaluation, judged[0].quality.accuracy)])
        variants, judged = _finish(stage, judged, data, options, progress)
        rows = (*(item.row for item in judged), *failed)
        if not variants:
            raise NothingPassed(rows)
        progress("write the release")
        best = next(name for name in ORDER if name in variants)
        report = report_bytes(judged, rows, best, options, warnings)
        lineage = lineage_bytes(loaded, data, judged, rows, options)
        release = _write(stage, out, plain, variants, (report, lineage), Label(fleet, name, version, now))
    return Forged(out, release, rows, best, _verdict(variants, best, rows), tuple(warnings))


def _prepare(
    stage: pack.Folder, loaded: Source, data: Data, options: Options, progress: Progress
) -> tuple[Made, Data, list[str]]:
    """The fp32 variant with its penultimate output where it has one, the data in its dtype, and warnings."""
    progress("canonicalise")
    model = canonicalise(loaded.model)
    made = make(stage, quantize.Draft("fp32", quantize.PLAIN, model))
    signatures = inputs_of(made.session)
    outputs_of(made.session)
    if len(signatures) != 1 or not signatures[0].shape:
        raise Rejected("many-inputs", f"the model has {len(signatures)} inputs; one tensor with a batch axis is supported")
    calib = fit(data.calib, signatures[0], False)
    sample = run_rows(made.session, calib.x[:2])
    evaluation = fit(data.evaluation, signatures[0], labels_from(sample) is not None)
    check_labels(evaluation, classes_of(sample))
    fitted = Data(calib, evaluation, fit(data.reference, signatures[0], False))
    warnings = [check_apart(calib, evaluation, options.allowed_overlap), few_rows(fitted.reference.x)]
    shown = expose_penultimate(model, scores_name(sample))
    if shown is not model:
        made = make(stage, quantize.Draft("fp32", quantize.PLAIN, shown))
    _check_conversion(loaded, made, evaluation.x)
    return made, fitted, [warning for warning in warnings if warning]


def _check_conversion(loaded: Source, made: Made, x: npt.NDArray[Any]) -> None:
    """Raise Rejected("conversion-differs") unless the ONNX model answers as the estimator does."""
    if loaded.predict is None:
        return
    want, outputs = loaded.predict(x), run_rows(made.session, x)
    have = labels_from(outputs)
    if have is not None:
        share = float(np.mean(have == want))
    else:
        close = outputs[scores_name(outputs)].reshape(len(x), -1)
        share = float(np.mean(np.isclose(close, np.asarray(want).reshape(len(x), -1), rtol=1e-3, atol=1e-4)))
    if share < 0.999:
        raise Rejected("conversion-differs", f"the converted model answers as the estimator in only {share:.4f} of evaluation rows")


def _finish(
    stage: pack.Folder, judged: list[Judged], data: Data, options: Options, progress: Progress
) -> tuple[dict[str, Variant], list[Judged]]:
    """Golden vectors, reference and description of every variant that passed; one may still fail at its golden vectors."""
    variants: dict[str, Variant] = {}
    final = []
    for item in judged:
        if item.verdict.passed:
            progress(f"golden vectors and reference of {item.made.draft.name}")
            try:
                variants[item.made.draft.name] = _variant(stage, item.made, data, options.seed)
            except Rejected as error:
                item = replace(item, verdict=Verdict(False, error.reason, error.message))
        final.append(item)
    return variants, final


def _variant(stage: pack.Folder, made: Made, data: Data, seed: int) -> Variant:
    draft = made.draft
    golden = make_golden(made.skeleton, stage.objects, draft.options, data.evaluation.x, draft.kind == quantize.COMPUTE, seed)
    profile = make_reference(made.skeleton, stage.objects, draft.options, data.reference.x, seed)
    return pack.make_variant(stage, made.packed, golden, profile.to_bytes() if profile else None, draft.classes, draft.options)


def _write(
    stage: pack.Folder, out: Path, plain: Made, variants: dict[str, Variant], sides: tuple[bytes, bytes], label: Label
) -> Release:
    """Copy what the release names from `stage` to `out`, and write its payload last."""
    report, lineage = (stage.put(side) for side in sides)
    opset = pack.opset_of(plain.draft.model)
    release = Release(
        label.fleet, "model", label.name, label.version, label.created, pack.tensors(inputs_of(plain.session)),
        pack.tensors(outputs_of(plain.session)), max(1, int(plain.draft.model.ir_version)), opset, pack.least_runtime(opset),
        variants, {"report": report, "lineage": lineage},
    )  # fmt: skip
    folder = pack.Folder(out)
    for side in pack.sides_of(stage, release):
        folder.put(stage.get(side))
    pack.write_release(folder, release)
    return release


def _verdict(variants: dict[str, Variant], best: str, rows: Sequence[Row]) -> str:
    refused = [row.variant for row in rows if not row.passed]
    return f"release {', '.join(variants)} (first choice {best})" + (f"; refused {', '.join(refused)}" if refused else "")
