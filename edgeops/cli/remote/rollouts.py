"""edgeops rollout …: bring a release to devices in waves, watch it, stop it."""

import time
from typing import Annotated, Any

import typer

from edgeops.wire.errors import Misuse, Unreachable

from .. import show
from ..client import Client, at, items
from ..frame import Run, command
from .options import chosen, start_options
from .plan import checked_plan, draw_devices, draw_plan, told
from .progress import draw, line, picture, reasons, terminal
from .releases import split_name

app = typer.Typer(help="Bring a release to devices in waves; watch, pause, advance or abort it.", no_args_is_help=True)
RolloutId = Annotated[str, typer.Argument(metavar="ID", help="The rollout's id, as `rollout list` shows it.")]
NOT_FINISHED = 6
PATIENCE_S = 30.0


@command(app, "start", start_options())
def start(
    run: Run,
    /,
    name: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="The release to bring, e.g. digits:1.")],
    to: Annotated[str, typer.Option("--to", metavar="SELECTOR", help="Which devices: labels, e.g. 'site=berlin,arch!=arm'.")],
    waves: Annotated[str, typer.Option(help="Cumulative steps: a bare number is devices, % a share.")] = "1,100%",
    slot: Annotated[str, typer.Option(help="The slot of the devices to fill.")] = "main",
    variant: Annotated[str | None, typer.Option(help="Only this variant (default: the best each device can run).")] = None,
    budget_bytes: Annotated[int, typer.Option(min=0, help="Bytes a device may fetch for it; 0 is no limit.")] = 0,
    approvals: Annotated[int | None, typer.Option(min=1, max=16, help="How many operators must agree, you included.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and watch until it ends.")] = False,
    **more: Any,
) -> int:
    """Start a rollout of a release to the devices a selector matches.

    Example: edgeops rollout start digits:1 --to 'site=berlin' --waves 1,10%,100% --dwell-s 300
    """
    model, version = split_name(name)
    body: dict[str, Any] = {"model": model, "version": version, "to": to, "waves": waves, "slot": slot, **chosen(more)}
    body |= ({"variant": variant} if variant else {}) | ({"budget_bytes": budget_bytes} if budget_bytes else {})
    body |= {"approvals": approvals} if approvals else {}
    data = run.client().post("/rollouts", body)
    if not watch:
        run.emit(data, f"{told(data)}; watch it with `edgeops rollout watch {data['id']}`")
        return 0
    run.note(told(data))
    return _watch(run, str(data["id"]), 1.0, 0)


@command(app, "list")
def list_(run: Run) -> None:
    """List rollouts, newest first.

    Example: edgeops rollout list
    """
    found = items(run.client().get("/rollouts"), "rollouts")
    columns = ("id", "release", "to", "status", "wave", "started", "committed", "failed", "why")
    run.emit({"rollouts": found}, lambda: show.print_table(columns, map(line, found), "no rollout yet"))


@command(app, "show")
def show_(run: Run, rollout: RolloutId) -> None:
    """Show one rollout: waves, counters, policy, and why it stopped.

    Example: edgeops rollout show r-20260101-1
    """
    data = run.client().get(at("rollouts", rollout))
    run.emit(data, lambda: show.render(draw(data, detail=True)))


@command(app, "watch")
def watch_(
    run: Run,
    rollout: RolloutId,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often to ask.")] = 1.0,
    timeout: Annotated[int, typer.Option(min=0, metavar="SECONDS", help="Give up after this long; 0 waits for ever.")] = 0,
) -> int:
    """Watch a rollout until it ends: exit 0 finished, 6 halted or aborted, 4 when it did not end in time.

    Example: edgeops rollout watch r-20260101-1
    """
    return _watch(run, rollout, interval, timeout)


@command(app, "approve")
def approve(
    run: Run,
    rollout: RolloutId,
    digest: Annotated[str | None, typer.Option(metavar="HEX", help="The plan you agree to; another one is refused.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needs --digest.")] = False,
) -> None:
    """Agree to a rollout another operator proposed: shows its plan, asks, and starts it when enough have agreed.

    Example: edgeops rollout approve r-20260101-1
    """
    if (yes or run.json) and not digest:
        raise Misuse("digest-missing", "without being asked you must say which plan you agree to: --digest HEX")
    data = run.client().get(at("rollouts", rollout))
    found = checked_plan(data)
    if digest not in (None, found["digest"]):
        raise Misuse("plan-mismatch", f"rollout {rollout} has plan {found['digest']}, not {digest}; look at it again")
    if not yes and not run.json:
        show.render(draw_plan(found))
        show.render(draw_devices(data))
        if not typer.confirm(f"Do you agree to rollout {rollout}?", err=True):
            raise Misuse("not-confirmed", f"rollout {rollout} was not approved; confirm, or pass --yes --digest {found['digest']}")
    data = run.client().post(at("rollouts", rollout, "approve"), {"digest": found["digest"]})
    run.emit(data, f"approved; {told(data)}")


@command(app, "reject")
def reject(
    run: Run, rollout: RolloutId, why: Annotated[str, typer.Option(metavar="TEXT", help="Why not, for the audit log.")] = ""
) -> None:
    """Refuse a proposed rollout for good.

    Example: edgeops rollout reject r-20260101-1 --why 'not before the holidays'
    """
    data = run.client().post(at("rollouts", rollout, "reject"), {"why": why})
    run.emit(data, f"rollout {rollout} is {data.get('status')}: {reasons(data)}")


@command(app, "pause")
def pause(run: Run, rollout: RolloutId) -> None:
    """Pause a rollout: no new device starts; those that started carry on.

    Example: edgeops rollout pause r-20260101-1
    """
    _act(run, rollout, "pause")


@command(app, "resume")
def resume(run: Run, rollout: RolloutId) -> None:
    """Resume a paused or halted rollout, acknowledging the failures so far.

    Example: edgeops rollout resume r-20260101-1
    """
    _act(run, rollout, "resume")


@command(app, "advance")
def advance(run: Run, rollout: RolloutId) -> None:
    """Open the next wave now, without waiting for the gate of this one.

    Example: edgeops rollout advance r-20260101-1
    """
    _act(run, rollout, "advance")


@command(app, "abort")
def abort(
    run: Run,
    rollout: RolloutId,
    keep: Annotated[bool, typer.Option("--keep", help="Devices that took the release keep it.")] = False,
    revert: Annotated[bool, typer.Option("--revert", help="Devices that took the release go back to the previous one.")] = False,
) -> None:
    """Abort a rollout for good; say what happens to the devices that took the release already.

    Example: edgeops rollout abort r-20260101-1 --revert
    """
    if keep == revert:
        raise Misuse("keep-or-revert", "choose one: --keep (devices keep what they took) or --revert (they go back)")
    _act(run, rollout, "abort", {"mode": "keep" if keep else "revert"})


def _act(run: Run, rollout: str, verb: str, body: dict[str, str] | None = None) -> None:
    data = run.client().post(at("rollouts", rollout, verb), body)
    run.emit(data, f"{verb}: rollout {rollout} is {data.get('status', 'told')}")


def _watch(run: Run, rollout: str, interval: float, timeout: int) -> int:
    client, began = run.client(), time.monotonic()
    data = client.get(at("rollouts", rollout))
    with picture() as paint:
        while True:
            paint(data)
            if terminal(data):
                break
            if timeout and time.monotonic() - began > timeout:
                text = f"rollout {rollout} is still {data.get('status')} after {timeout} s; it carries on"
                raise Unreachable("watch-timeout", text)
            time.sleep(interval)
            data = _again(client, rollout, interval)
    ended = str(data.get("status"))
    run.emit(data, f"rollout {rollout} {ended}" + (f": {reasons(data)}" if reasons(data) else ""))
    return 0 if ended == "finished" else NOT_FINISHED


def _again(client: Client, rollout: str, interval: float) -> dict[str, Any]:
    """Ask again; a manager that restarts is given PATIENCE_S to come back."""
    lost = time.monotonic()
    while True:
        try:
            data: dict[str, Any] = client.get(at("rollouts", rollout))
            return data
        except Unreachable:
            if time.monotonic() - lost > PATIENCE_S:
                raise
            time.sleep(interval)
