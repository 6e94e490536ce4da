"""Which broker to start."""

from typing import Literal

from .embedded import start_built_in
from .mosquitto import find_mosquitto, start_mosquitto
from .ports import BrokerPlan, RunningBroker


def start_broker(choice: Literal["auto", "mosquitto", "built-in"], plan: BrokerPlan) -> RunningBroker:
    """Start the chosen broker; `auto` takes mosquitto where there is one. Returns once it accepts TLS connections.

    Raises Misuse("port-busy" | "bad-address" | "no-mosquitto" | "bad-path") and Unreachable("broker-failed").
    """
    if choice == "mosquitto" or (choice == "auto" and find_mosquitto() is not None):
        return start_mosquitto(plan)
    return start_built_in(plan)
