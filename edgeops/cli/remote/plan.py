"""The plan of a proposed rollout, as the one who is to agree to it sees it: checked against its digest here, not only there."""

from textwrap import wrap
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgeops.wire import canonical
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import sha256

from .. import show

FIRST, WIDTH = 20, 100
TOLD = {
    "rollout", "release", "model", "version", "variant", "slot", "selector", "devices", "waves", "conditions", "policy", "trial",
    "proposed_by", "needed", "expires",
}  # fmt: skip


def checked_plan(rollout: dict[str, Any]) -> dict[str, Any]:
    """The approval part of a rollout; raises Misuse("not-proposed"), Rejected("plan-mismatch") where it is not what was hashed."""
    found = rollout.get("approval")
    if not isinstance(found, dict):
        raise Misuse("not-proposed", f"rollout {rollout.get('id')} needs nobody's approval; it is {rollout.get('status')}")
    names = [device.get("device") for device in rollout.get("devices") or []]
    plan = found.get("plan") or {}
    listed = plan.get("devices", {}).get("sha256") == sha256(canonical.encode(names))
    if not listed or sha256(canonical.encode(plan)) != found.get("digest"):
        text = f"the plan or the devices the manager shows for rollout {rollout.get('id')} are not those of its digest"
        raise Rejected("plan-mismatch", f"{text}; approve nothing and look at `edgeops audit verify`")
    return found


def draw_plan(approval: dict[str, Any]) -> RenderableType:
    """The plan in the order one judges it, its digest and who has agreed. A field we do not know is shown all the same."""
    plan = approval["plan"]
    rows: dict[str, object] = {
        "release": f"{plan.get('model')}:{plan.get('version')} (release {plan.get('release')})",
        "variant": plan.get("variant") or "the best each device can run",
        "to": f"{plan.get('selector')}: {plan.get('devices', {}).get('count')} devices, slot {plan.get('slot')}",
        "waves": plan.get("waves"), "devices wait for": plan.get("conditions") or "nothing",
        "policy": plan.get("policy"), "trial": plan.get("trial"),
        "proposed by": f"{plan.get('proposed_by')}, expires {show.when(plan.get('expires'))}",
    }  # fmt: skip
    rows |= {name: value for name, value in sorted(plan.items()) if name not in TOLD and value}
    given = ", ".join(f"{one['who']} ({show.when(one['at'])})" for one in approval["given"])
    said = Text(f"plan {approval['digest']}\nagreed to by {show.safe(given)}: {len(approval['given'])} of {approval['needed']}")
    return Group(show.table(("plan", "is"), ((name, _folded(value)) for name, value in rows.items())), said)


def draw_devices(rollout: dict[str, Any]) -> RenderableType:
    """Who is meant, wave by wave: the first ones by name."""
    found = rollout.get("devices") or []
    waves: dict[object, list[object]] = {}
    for one in found[:FIRST]:
        waves.setdefault(one.get("wave"), []).append(one.get("device"))
    rest = len(found) - FIRST
    told = [(f"wave {wave}", _folded(names)) for wave, names in waves.items()]
    more = [Text(f"… and {rest} more; `edgeops rollout show {rollout.get('id')} --json` names all")] if rest > 0 else []
    return Group(show.table(("devices", "are"), told), *more)


def _folded(value: object) -> Text | None:
    return Text("\n".join(wrap(show.plain(value), WIDTH))) if value else None


def told(rollout: dict[str, Any]) -> str:
    """What has happened to a rollout that was started, proposed or approved."""
    name = rollout["id"]
    if rollout.get("status") != "proposed":
        return f"started rollout {name}"
    approval = rollout.get("approval") or {}
    left = int(approval.get("needed", 2)) - len(approval.get("given", ()))
    who = "another operator" if left == 1 else f"{left} other operators"
    return f"proposed rollout {name}; {who} must agree: `edgeops rollout approve {name} --digest {approval.get('digest')}`"
