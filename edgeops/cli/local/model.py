"""edgeops model add: forge, gate, sign and upload, all but the last in this process."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeops.wire.envelope import digest_of
from edgeops.wire.errors import EdgeopsError, Misuse, Unreachable
from edgeops.wire.keys import Signer

from .. import show
from ..client import at
from ..frame import Run
from ..remote.releases import split_name
from ..signals import check, loading
from .folder import send
from .place import find_folder, fleet_name, release_signers
from .release import Keys, ManagerFolder
from .signers import PassphraseFile

if TYPE_CHECKING:
    from edgeops.forge.flow import Forged
    from edgeops.forge.trial import Row

# The forge's own defaults, repeated because importing it takes a second that `--help` should not cost; a test compares them.
VARIANTS, MAX_DROP, MIN_AGREEMENT = "int8,store_i8,fp32", 0.005, 0.99
Progress = Callable[[str], None]
Name = Annotated[str, typer.Argument(metavar="NAME:VERSION", help="What the release is called, e.g. digits:1.")]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="An .onnx file, or a scikit-learn estimator in a .skops file.")]
Calib = Annotated[Path, typer.Option("--calib", metavar="NPZ", help="Calibration rows: an .npz with x.")]
Held = Annotated[Path, typer.Option("--eval", metavar="NPZ", help="Held-out rows: an .npz with x and labels y.")]
Reference = Annotated[Path | None, typer.Option(metavar="NPZ", help="Rows drift is measured against (default: --calib).")]
Drop = Annotated[float, typer.Option(min=0, max=1, help="Accuracy a variant may lose against fp32; 0.005 is half a point.")]
Agreement = Annotated[float, typer.Option(min=0, max=1, help="Share of rows that must get fp32's answer.")]
Floor = Annotated[float | None, typer.Option(min=0, max=1, help="Floor of accuracy, for fp32 too (default: none).")]
Wanted = Annotated[str, typer.Option(help="Which variants may be released.")]
Fleet = Annotated[str | None, typer.Option(metavar="NAME", help="The fleet (default: the manager folder's).")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The new release folder (default: releases/NAME-VERSION).")]
Commit = Annotated[str, typer.Option(metavar="SHA", help="Commit of the training code, for the lineage.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Trusted = Annotated[list[str] | None, typer.Option("--trust", metavar="TYPE", help="A type in the .skops that you answer for.")]
Stay = Annotated[bool, typer.Option("--no-upload", help="Forge and sign only; upload later with `release upload`.")]


def add(
    run: Run, name: Name, source: Source, calib: Calib, evaluation: Held, reference: Reference = None, max_drop: Drop = MAX_DROP,
    min_agreement: Agreement = MIN_AGREEMENT, min_accuracy: Floor = None, variants: Wanted = VARIANTS, fleet: Fleet = None,
    key: Keys = None, manager: ManagerFolder = None, out: Out = None, commit: Commit = "", seed: Seed = 0, trust: Trusted = None,
    local_only: Stay = False, passphrase_file: PassphraseFile = None,
) -> None:  # fmt: skip
    """Turn a model into a signed release: quantize, evaluate, gate, golden vectors, sign, upload. Exit 3 when no variant passes.

    Example: edgeops model add digits:1 digits.onnx --calib calib.npz --eval heldout.npz
    """
    with loading():
        from edgeops.forge.gate import Gates
        from edgeops.forge.source import Limits
        from edgeops.forge.trial import Options

    model, version = split_name(name)
    if not local_only:
        check_new(run, model, version)
    home = find_folder(manager, run.context)
    signers, belongs = release_signers(key or [], home, passphrase_file), fleet_name(fleet, home)
    target = free_folder(out or Path("releases") / f"{model}-{version}")
    gates = Gates(max_drop=max_drop, min_agreement=min_agreement, min_accuracy=min_accuracy)
    limits = Limits(trusted=tuple(trust or ()))
    options = Options(gates, limits, _variants(variants), seed=seed, commit=commit)
    order = {
        "name": model, "version": version, "fleet": belongs, "calib": calib, "evaluation": evaluation, "reference": reference,
        "options": options, "now": int(time.time()),
    }  # fmt: skip
    forged, envelope = _forge(run, source, order, signers, target)
    data = _summary(forged, target, envelope)
    if not local_only:
        data["uploaded"] = _uploaded(run, target)
    done = f"signed in {target}" + ("" if local_only else f" and uploaded; next: edgeops rollout start {name} --to SELECTOR")
    run.emit(data, f"{forged.verdict}\n{done}")


def check_new(run: Run, model: str, version: int) -> None:
    """Before minutes of work: raise Misuse("release-exists") for a version the manager has; only warn when it cannot be asked."""
    try:
        run.client().get(at("releases", model, str(version)))
    except Unreachable as error:
        run.note(f"warning: {error.message}; the release is made all the same, and can be uploaded later")
        return
    except EdgeopsError as error:
        if error.reason not in ("unknown-release", "not-found"):
            raise
        return
    text = f"{model}:{version} exists already and is never replaced; use the next version, or --no-upload"
    raise Misuse("release-exists", text)


def _uploaded(run: Run, target: Path) -> dict[str, Any]:
    run.failure["folder"] = str(target)
    try:
        sent: dict[str, Any] = send(run, target)["uploaded"]
        return sent
    except EdgeopsError:
        run.note(f"the signed release stays in {target}; `edgeops release upload {target}` sends it")
        raise


def _forge(run: Run, source: Path, order: dict[str, Any], signers: list[Signer], target: Path) -> "tuple[Forged, bytes]":
    """Forge and sign into `target`, and draw the table; raises NothingPassed after drawing it."""
    from edgeops.forge.flow import NothingPassed, add_model
    from edgeops.forge.sign import sign_release

    def make(folder: Path, progress: Progress) -> "tuple[Forged, bytes]":
        forged = add_model(source, out=folder, progress=progress, **order)
        progress("sign")
        return forged, sign_release(folder, signers)

    try:
        forged, envelope = _whole(target, make)
    except NothingPassed as error:
        rows = error.rows
        run.failure["variants"] = [asdict(row) for row in rows]
        run.show(lambda: draw_rows(rows))
        raise
    run.show(lambda: draw_rows(forged.rows))
    for warning in forged.warnings:
        run.note(f"warning: {warning}")
    # Without its folder's new name the verdict would point at a scratch folder that is gone.
    return replace(forged, folder=target), envelope


def draw_rows(rows: "Iterable[Row]") -> None:
    """Print the forge's table."""
    columns = ("variant", "size", "accuracy", "agreement", "p50", "speed", "verdict", "why")
    show.print_table(columns, [
        (
            row.variant, show.size(row.size), _share(row.accuracy), _share(row.agreement), show.micros(row.p50_us),
            None if row.ratio is None else f"{row.ratio:.2f}×", "pass" if row.passed else "refused",
            row.detail or (None if row.passed else row.reason),
        )
        for row in rows
    ])  # fmt: skip


def free_folder(path: Path) -> Path:
    """`path`, which must not exist or be empty; raises Misuse("folder-in-use")."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        text = f"{path} is not empty; upload it with `edgeops release upload {path}`, remove it, or give another with --out"
        raise Misuse("folder-in-use", text)
    return path


def _whole(target: Path, make: "Callable[[Path, Progress], tuple[Forged, bytes]]") -> "tuple[Forged, bytes]":
    """Make the folder beside `target` and move it there only when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with show.steps() as progress:
            made = make(scratch, progress)
        check()
        scratch.chmod(0o755)
        scratch.replace(target)
        return made
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _variants(text: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in text.split(",") if part.strip())
    if not wanted or set(wanted) - set(VARIANTS.split(",")):
        raise Misuse("unknown-variant", f"--variants {text!r}: choose some of {VARIANTS}")
    return wanted


def _summary(forged: "Forged", target: Path, envelope: bytes) -> dict[str, Any]:
    release = forged.release
    return {
        "model": release.model, "version": release.version, "digest": digest_of(envelope, "release"), "folder": str(target),
        "best": forged.best, "verdict": forged.verdict, "warnings": list(forged.warnings),
        "variants": [asdict(row) for row in forged.rows],
    }  # fmt: skip


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
