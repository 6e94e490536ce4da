"""The real manager and agents of tests/agent/real, for attacks on the whole."""

from ..agent.real.conftest import device, site

__all__ = ["device", "site"]
