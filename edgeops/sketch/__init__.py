"""Mergeable statistics and their own bytes: what a device may say about its traffic without showing any of it.

Knows: latency histograms (`latency`), drift probes and how to bin a batch into them (`probes`), the reference a release carries
(`reference`, made by `build`), the wire record edgeops.sketch.v1 and sets of such records (`window`), the drift scan (`drift`),
its two-sample statistic (`twosample`) and tails (`tail`), and the varints beneath (`octets`). Everything merges by adding integers,
so order, repetition and gaps do no harm.

Does not know: where the counts come from, which device or cohort they belong to, the clock, the disk, the network. A seed is a
value passed in. Imports numpy, the standard library's arithmetic and `edgeops.wire.errors`, nothing else.

May enter: the forge (builds references), the agent (bins and encodes), the manager and rooms above (decode, merge, scan).
"""
