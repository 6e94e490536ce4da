"""Straw devices: the real core, many times in one process, for load and for simulations.

Knows: what the core wants done and how to do it without a model (`straw`), what a straw keeps (`kept`), two worlds to live in: a
memory network with a clock that is told the time (`memory`), and real MQTT over mutual TLS in one thread (`lines`, `host`).
Does not know: inference workers, ONNX Runtime, telemetry: a straw runs no model, sends no numbers of its own invention and says in
its birth that it is simulated. Keys, signatures, certificates, counters, frames and digests are real. Nor does it renew: a straw
lives shorter than its certificate, and uses a newer site document from its next start on.
Who may enter: `python -m edgeops_agent.sim` and tests/sim. Of the shell it enters leaf modules that know no worker, by name.
"""
