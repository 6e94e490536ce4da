"""Keeping: what the manager must never lose, in one SQLite file and one folder of objects.

Knows: tables, their one migration history, transactions, the outbox, the audit chain, content-addressed objects on disk.
Does not know: rules. It never decides what a rollout, a token or a report means; it stores and finds.
Who may enter: `manager` and the rooms above it. It imports `edgeops.wire` only.
"""

from .blobs import Blobs, roomy
from .database import Store, open_store, peek

__all__ = ["Blobs", "Store", "open_store", "peek", "roomy"]
