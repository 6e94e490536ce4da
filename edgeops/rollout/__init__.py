"""Rollouts as a pure machine: plan, waves, gates, engine.

Knows: how a release travels through a fleet in waves, what one outcome does to a wave, when a rollout stops, goes on or is
taken back. Every decision is `step(rollout, event) -> (rollout, commands)` over counters per wave; time enters inside events.
Does not know: devices by name, the database, MQTT, the clock. The store keeps the device rows, reports at most one outcome per
device, and turns deadlines into events with `edgeops.rollout.silence`.
May enter: `store`, `broker`, `manager` and the rooms above it. May not: `fleet` (a sibling) and the agent's house.
"""
