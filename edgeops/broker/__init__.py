"""Brokers: starting, guarding and reaching the MQTT server between manager and devices.

Knows: MQTT, TLS with client certificates, mosquitto's configuration, the built-in broker (amqtt), who may use which topic, the
manager's link and its backoff. Does not know: documents, rules of a rollout, devices beyond their names, the database.
Who may enter: `manager` and above; this room imports only `edgeops.wire`.
"""

from .choose import start_broker
from .link import LinkPlan, ManagerLink
from .ports import BrokerPlan, RunningBroker

__all__ = ["BrokerPlan", "LinkPlan", "ManagerLink", "RunningBroker", "start_broker"]
