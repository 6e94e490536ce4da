"""Seeded bugs of the update machine: (name, what stands there, what the bug puts there). Applied to a copy, never to the product."""

MUTANTS: tuple[tuple[str, str, str], ...] = (
    ("trust bytes after a restart", 'begun = replace(again, phase="fetch", deadline=event.now + target.fetch_s)\n    return begun, (run, Fetch(target), WakeAt(begun.deadline), Report())',
     'begun = replace(again, deadline=event.now + target.fetch_s)\n    return begun, (run, WORK[again.phase](target), WakeAt(begun.deadline), Report())'),
    ("no crash-loop bound", "if again.attempts > target.attempts:", "if False:"),
    ("no outbox", "last=outcome, outbox=(*slot.outbox, outcome)[-MAX_OUTBOX:]", "last=outcome"),
    ("commit before the trial", '"install": ("trial", Try),', '"install": ("trial", Try),\n}\nNEXT = {\n    "fetch": ("verify", Verify),\n    "verify": ("trial", Try),'),
    ("skip verify", '"fetch": ("verify", Verify),', '"fetch": ("install", Install),'),
    ("stale Done accepted", "if target is None or slot.phase != event.phase or target.order != event.order:\n        return slot, ()\n    if slot.phase == \"trial\":",
     "if target is None:\n        return slot, ()\n    if slot.phase == \"trial\":"),
    ("replayed order accepted", "if target.order <= slot.order:\n        return slot, ()", "if target.order < 0:\n        return slot, ()"),
    ("rollback without the old build running", "return back, (Run(slot.current), WakeAt(back.deadline), Report())", "return back, (WakeAt(back.deadline), Report())"),
    ("no deadline", "moved = replace(slot, phase=phase, deadline=event.now + seconds)", "moved = replace(slot, phase=phase, deadline=0)"),
    ("failed trial commits", "return _fall_back(slot, target, event.now, event.reason, event.detail)", "return _commit(slot, target, False)"),
    ("deadline commits", 'return _fall_back(slot, target, event.now, f"{slot.phase}-deadline", f"not done within the time allowed for {slot.phase}")', "return _commit(slot, target, False)"),
    ("bad release tried again", "if _mark(target) in slot.bad:", "if False:"),
    ("nothing runs after a restart", "run = Run(slot.current)", "run = Run(None)"),
    ("wrong outcome", 'return _end(slot, "rolled-back" if slot.failure[0] else "cancelled", *slot.failure)', 'return _end(slot, "committed")'),
    ("outbox emptied by any ack", "if outcome.order > event.order", "if False"),
    ("previous thrown away too early", "for build in (slot.current, slot.previous, wanted) if build", "for build in (slot.current, wanted) if build"),
    ("newer order ignored while working", "return _cancel_for(slot, target, event.now)", "return slot, ()"),
    ("same build under a newer order waits for ever", "return replace(slot, target=target), (WORK[slot.phase](target), WakeAt(slot.deadline))", "return replace(slot, target=target), ()"),
)
