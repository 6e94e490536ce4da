"""The plan of a proposed rollout, as the one who is to agree to it sees it: checked against its digest here, not only there."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from edgeops.wire import canonical
from edgeops.wire.errors import Misuse, Rejected
from edgeops.wire.keys import sha256

from .. import show


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
    """The plan, its digest and who has agreed."""
    plan = approval["plan"]
    rows = [(name, show.when(value) if name == "expires" else value) for name, value in sorted(plan.items())]
    given = ", ".join(f"{one['who']} ({show.when(one['at'])})" for one in approval["given"])
    said = Text(f"plan {approval['digest']}\nagreed to by {show.safe(given)}: {len(approval['given'])} of {approval['needed']}")
    return Group(show.table(("plan", "is"), rows), said)


def told(rollout: dict[str, Any]) -> str:
    """What has happened to a rollout that was started, proposed or approved."""
    name = rollout["id"]
    if rollout.get("status") != "proposed":
        return f"started rollout {name}"
    approval = rollout.get("approval") or {}
    left = int(approval.get("needed", 2)) - len(approval.get("given", ()))
    who = "another operator" if left == 1 else f"{left} other operators"
    return f"proposed rollout {name}; {who} must agree: `edgeops rollout approve {name} --digest {approval.get('digest')}`"
