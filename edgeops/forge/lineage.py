"""The two side documents of a release: the evaluation report and the lineage. Canonical JSON, integers in named units."""

from collections.abc import Sequence
from typing import Any

from edgeops.wire import canonical

from .evaluate import Latency, Quality
from .golden import host_class
from .pack import tools
from .source import Source
from .trial import Data, Judged, Options, Row


def report_bytes(judged: Sequence[Judged], rows: Sequence[Row], best: str, options: Options, warnings: Sequence[str]) -> bytes:
    """What was measured, on what, and why each variant passed or not. Units are in the names; mdb = 1e-3 dB."""
    gates = options.gates
    measured = {
        item.made.draft.name: _quality(item.quality) | _latency(item.latency) | {"size": item.made.packed.size}
        for item in judged
    }  # fmt: skip
    return canonical.encode({
        "format": 1, "host_class": host_class(), "best": best, "warnings": list(warnings), "measured": measured,
        "verdicts": {row.variant: {"passed": row.passed, "reason": row.reason, "detail": _plain(row.detail)} for row in rows},
        "gates": _present({
            "max_drop_ppm": _ppm(gates.max_drop), "min_agreement_ppm": _ppm(gates.min_agreement),
            "min_accuracy_ppm": _ppm(gates.min_accuracy), "min_sqnr_mdb": round(gates.min_sqnr_db * 1000),
            "min_speed_ppm": _ppm(gates.min_speed), "max_size_ppm": _ppm(gates.max_size),
        }),
    })  # fmt: skip


def lineage_bytes(source: Source, data: Data, judged: Sequence[Judged], rows: Sequence[Row], options: Options) -> bytes:
    """Where the release comes from: digests of the source and the data sets, tools, schemes, what was left out and why."""
    sets = {
        item.what: {"sha256": item.sha256, "rows": len(item)} for item in (data.calib, data.evaluation, data.reference)
    }
    drafts = [item.made.draft for item in judged]
    body: dict[str, Any] = {
        "format": 1, "source": {"sha256": source.sha256, "kind": source.kind}, "data": sets, "tools": tools(), "seed": options.seed,
        "variants": {draft.name: {"scheme": draft.scheme, "classes": list(draft.classes)} for draft in drafts},
        "excluded": {row.variant: row.reason for row in rows if not row.passed},
    }  # fmt: skip
    return canonical.encode(body | ({"commit": options.commit} if options.commit else {}))


def _quality(found: Quality) -> dict[str, int]:
    return _present({
        "n": found.n, "accuracy_ppm": _ppm(found.accuracy), "accuracy_low_ppm": _ppm(found.accuracy_low),
        "accuracy_high_ppm": _ppm(found.accuracy_high), "drop_ppm": _ppm(found.drop), "drop_high_ppm": _ppm(found.drop_high),
        "agreement_ppm": _ppm(found.agreement), "agreement_low_ppm": _ppm(found.agreement_low),
        "sqnr_mdb": round(found.sqnr_db * 1000),
    })  # fmt: skip


def _latency(found: Latency) -> dict[str, int]:
    return {
        "p50_ns": round(found.p50_us * 1000), "p95_ns": round(found.p95_us * 1000), "ratio_ppm": round(found.ratio * 1e6),
        "ratio_low_ppm": round(found.ratio_low * 1e6), "ratio_high_ppm": round(found.ratio_high * 1e6),
    }  # fmt: skip


def _ppm(value: float | None) -> int | None:
    return None if value is None else round(value * 1e6)


def _present(values: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def _plain(text: str) -> str:
    """ASCII only: messages of other tools may not be NFC."""
    return text.encode("ascii", "replace").decode()
