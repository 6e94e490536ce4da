"""The tables. Times are Unix seconds; JSON columns hold what only the rooms above understand."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s", "ix": "ix_%(column_0_label)s"}
)

devices = Table(
    "devices", metadata,
    Column("id", String(64), primary_key=True),
    Column("labels", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("incarnation", Integer, nullable=False),
    Column("identity", LargeBinary),
    Column("certificate_serial", String(64)),
    Column("certificate_expires", BigInteger),
    Column("token_hash", String(64)),
    Column("token_expires", BigInteger),
    Column("token_spent", BigInteger),
    Column("counter", BigInteger, nullable=False),
    Column("command", BigInteger, nullable=False),
    Column("desired", LargeBinary),
    Column("desired_expires", BigInteger),
    Column("capabilities", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("agent", String(64), nullable=False),
    Column("last_seen", BigInteger),
    Column("presence", String(16), nullable=False),
    Column("presence_at", BigInteger),
    Column("paused_s", BigInteger, nullable=False),
    Column("boot", String(32)),
    Column("approval", Integer),
    Column("fingerprint", String(64)),
    Column("pending", JSON),
    Column("documents", JSON),
    Column("boots", JSON),
    Column("born", BigInteger),
    Column("epoch", Integer),
    Column("renewed", BigInteger),
    Column("certificate", Text),
    Column("silenced_at", BigInteger),
    Index("ix_devices_fingerprint", "fingerprint"),
    Index("ix_devices_status", "status"),
)  # fmt: skip

revocations = Table(
    "revocations", metadata,
    Column("serial", String(64), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("live", Integer),
)  # fmt: skip

wishes = Table(
    "wishes", metadata,
    Column("device", String(64), primary_key=True),
    Column("slot", String(64), primary_key=True),
    Column("wish", JSON, nullable=False),
)  # fmt: skip

releases = Table(
    "releases", metadata,
    Column("digest", String(64), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Index("uq_releases_model_version", "model", "version", unique=True),
)  # fmt: skip

streams = Table(
    "streams", metadata,
    Column("digest", String(64), primary_key=True),
    Column("release", String(64), nullable=False),
    Column("variant", String(64), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("published", BigInteger, nullable=False),
    Column("repaired", BigInteger, nullable=False),
    Column("bytes_sent", BigInteger, nullable=False),
    Index("uq_streams_release_variant", "release", "variant", unique=True),
)  # fmt: skip

rollouts = Table(
    "rollouts", metadata,
    Column("id", String(64), primary_key=True),
    Column("created", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("state", JSON, nullable=False),
)  # fmt: skip

assignments = Table(
    "assignments", metadata,
    Column("rollout", String(64), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("wave", Integer, nullable=False),
    Column("slot", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("verdict", String(32), nullable=False),
    Column("reason", String(128), nullable=False),
    Column("detail", Text, nullable=False),
    Column("before", JSON),
    Column("offered_at", BigInteger),
    Column("started_at", BigInteger),
    Column("activated_at", BigInteger),
    Column("settled_at", BigInteger),
    Column("paused_base", BigInteger, nullable=False),
    Column("proven_at", BigInteger),
    Index("ix_assignments_device", "device"),
    Index("ix_assignments_rollout_position", "rollout", "position"),
)  # fmt: skip

approvals = Table(
    "approvals", metadata,
    Column("rollout", String(64), primary_key=True),
    Column("who", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("token", String(12)),
)  # fmt: skip

reports = Table(
    "reports", metadata,
    Column("device", String(64), primary_key=True),
    Column("incarnation", Integer, nullable=False),
    Column("boot", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("slots", JSON, nullable=False),
    Column("counters", JSON, nullable=False),
)  # fmt: skip

windows = Table(
    "windows", metadata,
    Column("device", String(64), primary_key=True),
    Column("boot", String(32), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("release8", String(16), nullable=False),
    Column("profile8", String(16), nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_windows_device_started", "device", "started_ms"),
    Index("ix_windows_received", "received"),
)  # fmt: skip

outbox = Table(
    "outbox", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("topic", String(256), nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("qos", Integer, nullable=False),
    Column("retain", Integer, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip

tokens = Table(
    "tokens", metadata,
    Column("name", String(64), primary_key=True),
    Column("hash", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("last_used", BigInteger),
    Column("public", String(12)),
    Index("uq_tokens_public", "public", unique=True),
)  # fmt: skip

credentials = Table(
    "credentials", metadata,
    Column("device", String(64), primary_key=True),
    Column("verifier", String(256), nullable=False),
    Column("expires", BigInteger, nullable=False),
)  # fmt: skip

marks = Table(
    "marks", metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)  # fmt: skip

audit = Table(
    "audit", metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("who", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(256), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip

checkpoints = Table(
    "checkpoints", metadata,
    Column("entry", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)  # fmt: skip
