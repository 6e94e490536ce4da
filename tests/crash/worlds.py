"""How things turn out for the device in the crash harness: which orders come, which phase fails and how, what the facts become."""

import itertools
from dataclasses import dataclass, field

from edgeops.wire.conditions import Conditions, Fact
from edgeops_agent.core.slot import Build, Slot

OLD = Build("a" * 64, "fp32", "m", 1)
OLDER = Build("0" * 64, "fp32", "m", 0)
NEW = Build("b" * 64, "fp32", "m", 2)
NEXT = Build("c" * 64, "fp32", "m", 3)
FREE = Conditions()
FATAL = 1000
AGAIN = (("run", NEW), ("run", NEW))


@dataclass(frozen=True, slots=True)
class World:
    """The phase that fails for NEW (or none), how, and which orders come, under which conditions.

    `conditions` hold for every order, or `later` for all but the first. A device that dies while doing something (`kill`) does
    so `kills` times, and so often its disk eats what was fetched (`rot`). `facts` become true one after the other, each when
    nothing else is left to happen; `clears` says whether the manager lets a barrier commit (`first_clears`: before the next
    fact), `quiet` that nobody calls a model in its trial, `stops` how often the agent is stopped in an orderly way while a
    trial begins.
    """

    name: str
    fails: str = ""
    how: str = "fail"  # fail | kill (the device dies while doing it) | unfit | hang (no answer ever) | rot (its bytes are damaged)
    orders: tuple[tuple[str, Build | None], ...] = (("run", NEW),)
    start: Slot = field(default_factory=lambda: Slot(current=OLD, previous=OLDER, order=1))
    offline: bool = False
    early: int = 0
    kills: int = FATAL
    conditions: Conditions = FREE
    later: Conditions | None = None
    facts: tuple[tuple[str, Fact], ...] = ()
    clears: bool = True
    first_clears: bool = False
    quiet: bool = False
    stops: int = 0
    ends: str = ""  # the reason the newest order must end with, where conditions or the barrier decide


def worlds() -> tuple[World, ...]:
    """Every world the harness visits."""
    found = [World("fine"), World("fresh device", start=Slot()), World("same again", orders=AGAIN)]
    for phase, how in itertools.product(("fetch", "verify", "install", "trial"), ("fail", "kill", "hang")):
        found.append(World(f"{phase} {how}", phase, how, kills=2 if phase == "fetch" else FATAL))
    found.append(World("unfit", "fetch", "unfit"))
    found.append(World("rots once, then comes whole", "verify", "rot", kills=1))
    found.append(World("rots as often as it comes", "verify", "rot", ends="bad-object"))
    found.append(World("removed", orders=(("none", None),)))
    found.append(World("prefetched", orders=(("prefetch", NEW),)))
    found.append(World("superseded", orders=(("run", NEW), ("run", NEXT))))
    found.append(World("superseded by what runs", orders=(("run", NEW), ("run", OLD))))
    found.append(World("bad, then the next", "trial", "fail", orders=(("run", NEW), ("run", NEXT))))
    found.append(World("bad, asked again", "trial", "fail", orders=AGAIN))
    found.append(World("prefetched, then run", orders=(("prefetch", NEW), ("run", NEW))))
    found.append(World("removed while working", orders=(("run", NEW), ("none", None))))
    found.append(World("manager silent", offline=True))
    found.append(World("stopped often in its trial", stops=9))
    found.append(World("nobody calls, same again", orders=AGAIN, quiet=True))
    found.append(World("nobody calls, at the barrier", conditions=Conditions(barrier="cell"), quiet=True))
    for early, (name, build) in itertools.product(range(2, 7), (("same", NEW), ("next", NEXT), ("old", OLD))):
        found.append(World(f"{name} at step {early}", orders=(("run", NEW), ("run", build)), early=early))
    return (*found, *_gated())


def _gated() -> tuple[World, ...]:
    """Worlds whose orders carry conditions."""
    calm, still, joint = Conditions(fetch=("!metered",)), Conditions(activate=("parked",)), Conditions(barrier="cell")
    every = Conditions(("!metered",), ("parked", "consent"), ("online",), "cell")
    online, apart = (Conditions(commit=("online",), barrier=name) for name in ("cell", "other"))
    other = Conditions(("!metered",), ("parked",), ("online",), "other")
    good = (("metered", False), ("parked", True), ("consent", "yes"), ("online", True))
    flaky = (("metered", False), ("metered", True), ("metered", False))
    next_at = {f"{name} at step {at}": (build, at) for at in (3, 5, 7, 9) for name, build in (("next", NEXT), ("old", OLD))}
    return (
        World("every gate opens", conditions=every, facts=good),
        World("the network comes and goes", conditions=calm, facts=flaky, fails="fetch", how="hang", ends="fetch-deadline"),
        World("metered for ever", conditions=calm, facts=(("metered", True),), ends="waiting-deadline"),
        World("never parked", conditions=still, ends="ready-deadline"),
        World("never online", conditions=Conditions(commit=("online",)), ends="proven-deadline"),
        World("somebody says no", conditions=Conditions(activate=("consent",)), facts=(("consent", "no"),), ends="denied"),
        World("a no to the fetch", conditions=Conditions(fetch=("consent=yes",)), facts=(("consent", "no"),), ends="denied"),
        World("barrier opens", conditions=joint),
        World("barrier stays shut", conditions=joint, clears=False, ends="proven-deadline"),
        World("bad before the barrier", "trial", "fail", conditions=joint),
        World("dies at the barrier", "proven", "kill", conditions=joint, ends="crash-loop"),
        World("unfit in the middle of its trial", "trial", "unfit"),
        World("fails at the barrier", "proven", "fail", conditions=joint, ends="proven-broken"),
        World("dies before it is allowed", "waiting", "kill", conditions=calm, facts=good[:1], kills=5),
        World("dies before it may switch", "ready", "kill", conditions=still, facts=(("parked", True),), kills=5),
        World("prefetched when allowed", orders=(("prefetch", NEW),), conditions=calm, facts=good[:1]),
        *(World(f"other terms at step {at}", orders=AGAIN, early=at, conditions=every, later=other, facts=good)
          for at in range(2, 12)),
        *(World(f"another barrier at step {at}", orders=AGAIN, early=at, conditions=online, later=apart, facts=good,
                first_clears=True) for at in range(6, 12)),
        *(World(f"only to be fetched at step {at}", orders=(("run", NEW), ("prefetch", NEW)), early=at) for at in range(2, 7)),
        *(World(f"all gates, {name}", orders=(("run", NEW), ("run", build)), early=at, conditions=every, facts=good)
          for name, (build, at) in next_at.items()),
    )  # fmt: skip
