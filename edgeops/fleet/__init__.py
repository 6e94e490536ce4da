"""The fleet as plain values: devices, labels, selectors, enrolment, what is wished and what is reported.

Knows: what a device is called and labelled, who matches a selector, when a one-time token may be spent, whether a device is
there, and what `fleet.toml` may say. Time, secrets and file contents enter as values.
Does not know: the database, MQTT, files, the clock; nor rollouts, whose knobs `wish.parse_wish` is handed as data.
May enter: `store`, `broker`, `manager` and the rooms above it. May not: `rollout` (a sibling) and the agent's house.
"""
