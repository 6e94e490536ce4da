"""Hostile models through the real update path: a real agent at a real manager, releases signed by the manager's own release key.

Knows models and how they must end. Does not know the agent's inside: it looks at its record, its endpoint and its processes.
"""
