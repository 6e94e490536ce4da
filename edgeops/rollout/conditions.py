"""What the devices of a rollout wait for, as an operator writes it: six settings, the same in CLI, API and fleet.toml."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from edgeops.rollout.policy import DAY_S, Knob, Setting, check_setting
from edgeops.wire.conditions import MAX_TERMS, MAX_WAIT_S, ONLINE, Conditions, check_term
from edgeops.wire.errors import Misuse, Rejected

UNDERSTOOD = "conditions"
"""What a desired document names in `must`, and a birth in `understands`, where orders may wait."""
EACH_WAVE = "wave"
"""The barrier of a plan: every wave is one. What a device is told names the wave."""
NONE = Conditions()
ALLOW, WAIT = "allow", "wait"

SETTINGS: Mapping[str, Knob] = MappingProxyType(
    {
        knob.name: knob
        for knob in (
            Knob("fetch_when", "", "", "", "terms", "What must hold on a device while it fetches, such as !metered,battery>=30."),
            Knob(
                "activate_when", "", "", "", "terms",
                "What must hold before it switches to the release, such as parked,window=22:00-05:00,consent.",
            ),
            Knob("offline_commit", ALLOW, "", "", "allow|wait", "Whether a device may commit while it has no link to the manager."),
            Knob("barrier", False, False, True, "yes/no", "Whether the devices of a wave commit all or nothing."),
            Knob("wait_s", 7 * DAY_S, 1, MAX_WAIT_S, "s", "How long a device waits to fetch, and as long again to switch."),
            Knob("commit_wait_s", DAY_S, 1, MAX_WAIT_S, "s", "How long it waits to commit after its trial; then it goes back."),
        )
    }
)  # fmt: skip


def conditions_from(settings: Mapping[str, object]) -> Conditions:
    """The conditions of a plan from named settings; the rest waits for nothing.

    Raises `Misuse("conditions-unknown" | "conditions-invalid")`, naming the setting, the bad term and how to write it.
    """
    for name, value in settings.items():
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SETTINGS)}"
            raise Misuse("conditions-unknown", f"conditions: there is no setting {name!r}; {hint}")
        _check(SETTINGS[name], value)
    fetch, activate = _terms("fetch_when", settings), _terms("activate_when", settings)
    commit = (ONLINE,) if settings.get("offline_commit") == WAIT else ()
    barrier = EACH_WAVE if settings.get("barrier") else ""
    for name, of, waits in (
        ("wait_s", "fetch_when and activate_when", fetch or activate),
        ("commit_wait_s", "barrier and offline_commit = wait", commit or barrier),
    ):
        if name in settings and not waits:
            raise _invalid(f"{name} without {of}: there is nothing to wait for; leave it out")
    waits_s, commit_s = (settings.get(name, SETTINGS[name].default) for name in ("wait_s", "commit_wait_s"))
    return Conditions(fetch, activate, commit, barrier, waits_s, commit_s)  # type: ignore[arg-type]


def settings_of(conditions: Conditions) -> dict[str, Setting]:
    """The reverse: the settings that differ from waiting for nothing."""
    told: dict[str, Setting] = {
        "fetch_when": ",".join(conditions.fetch), "activate_when": ",".join(conditions.activate),
        "offline_commit": WAIT if conditions.commit else ALLOW, "barrier": bool(conditions.barrier), "wait_s": conditions.wait_s,
        "commit_wait_s": conditions.commit_s,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value != SETTINGS[name].default}


def allowed_s(conditions: Conditions) -> int:
    """How long a device may lawfully wait in all."""
    gates = bool(conditions.fetch) + bool(conditions.activate)
    return gates * conditions.wait_s + (conditions.commit_s if conditions.commit or conditions.barrier else 0)


def _check(knob: Knob, value: object) -> None:
    if isinstance(knob.default, str):
        if not isinstance(value, str):
            raise _invalid(f"{knob.name} must be text, not {value!r}")
        if knob.name == "offline_commit" and value not in (ALLOW, WAIT):
            raise _invalid(f"offline_commit must be {ALLOW} or {WAIT}, not {value!r}")
        return
    try:
        check_setting(knob, value)
    except Misuse as error:
        raise _invalid(error.message.removeprefix("rollout policy: ")) from None


def _terms(name: str, settings: Mapping[str, object]) -> tuple[str, ...]:
    """The terms of one setting, commas between them; each once."""
    parts = [part.strip() for part in str(settings.get(name) or "").split(",")]
    if parts == [""]:
        return ()
    for part in parts:
        try:
            check_term(part)
        except Rejected as error:
            raise _invalid(f"{name}: {error.message}") from None
    if len(parts) > MAX_TERMS:
        raise _invalid(f"{name} has {len(parts)} terms, at most {MAX_TERMS} are possible")
    return tuple(dict.fromkeys(parts))


def _invalid(text: str) -> Misuse:
    return Misuse("conditions-invalid", f"conditions: {text}")
