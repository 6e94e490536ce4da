"""The words both houses speak.

Knows: topics, messages, DSSE envelopes, the root/site/release/desired documents, signed time, the trust rules, device classes,
allowed session options, golden vectors and how they are compared. Does not know: disk, network, clock, randomness (all values).
Who may enter: every room of both houses; this room imports nothing above it.
"""
