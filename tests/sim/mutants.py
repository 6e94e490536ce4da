"""Seeded bugs of the straw: (name, module, what stands there, what the bug puts there). Applied in memory and taken back again."""

ADOPT = "        with contextlib.suppress(Rejected):\n            self._adopt(builds.variant_of"
PLACE = "        progress, at = place(self.progress, index, data)\n"
UNPLACED = "        progress, at = Progress(self._stream, self.progress.have | 1 << index), 0\n"
BEGIN = "        self._downloads.begin(name, target, listed)\n"

MUTANTS: tuple[tuple[str, str, str, str], ...] = (
    (
        "old orders accepted", "straw", "receive(self.record, Bundle",
        "receive(replace(self.record, trust=replace(self.record.trust, counter=0)), Bundle",
    ),
    ("reports unsigned", "straw", "state.payload(), [self.signer])", "state.payload(), [])"),
    ("acts before it saves", "straw", "self.ports.kept.save(stored := record.noted(record.report_seq))", "stored = record"),
    (
        "reports with the same number", "straw", "report_seq=self.record.report_seq + 1))\n        state",
        "report_seq=1))\n        state",
    ),
    ("hides that it is simulated", "presence", 'FACTS = {"simulated": True}', 'FACTS = {"simulated": False}'),
    ("a trial without traffic counts as proven", "straw", "self._now(), verdict.unproven)", "self._now(), False)"),
    ("nothing is started after a power cut", "straw", "self._post(name, Restarted(self._now()))", "pass"),
    ("runs what it has not fetched", "straw", BEGIN, f"        self._post(name, Done('fetch', target.order, 1))\n{BEGIN}"),
    ("wrong frames accepted", "kept", PLACE, UNPLACED),
    (
        "credit for what another straw received", "kept", "return digest in self._mine and digest in self._shelf",
        "return digest in self._shelf",
    ),
    ("own model forgotten after a start", "kept", ADOPT, f"        return\n{ADOPT}"),
    ("sweeps what still runs", "kept", "for digest in self._mine - set(objects):", "for digest in set(self._mine):"),
)  # fmt: skip
