"""The agent's hands: everything that touches the device.

Knows: disk, sockets, processes, ONNX Runtime. Does not know: the rules of an update (`edgeops_agent.core`) or who released a
model. Inference is two kinds of process: the supervisor (`workers`, which never imports onnxruntime) owns the listening
sockets and starts workers (`worker`); each worker holds one session (`session`), proves it (`probe`), serves it over the Open
Inference Protocol (`oip`, `routes`, `http`) and confines itself (`confine`, `sandbox`). A worker may crash, hang or run out of
memory: the supervisor learns a named reason and lives on. What it decides it saves first (`ledger`, `disk`); what it hears waits in
a bounded `inbox`; what it says is `voice`. Who may enter: the agent's entry point and `edgeops_agent.Model`.
Leaves for: `edgeops_agent.core`, `edgeops.wire`, `edgeops.parcel`, `edgeops.sketch`; nothing of the manager's house.
"""
