"""What a device decides.

Knows: the update machine of a slot, the verdict of a trial, the record that must survive power cuts (as bytes).
Does not know: disk, MQTT, ONNX Runtime, clock, randomness: all of these come in as events and go out as commands.
Who may enter: the shell and the simulator of the agent. It imports edgeops.wire and edgeops.parcel only.
"""
