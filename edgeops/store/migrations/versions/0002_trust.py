"""Enrolment with approval, revocation that is proven, second persons, browser credentials, checkpoints of the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0001; every new column may be empty, so nothing stored before is touched."""
    for name, kind in (
        ("approval", sa.Integer()), ("fingerprint", sa.String(64)), ("pending", sa.JSON()), ("documents", sa.JSON()),
        ("boots", sa.JSON()), ("born", sa.BigInteger()), ("epoch", sa.Integer()), ("renewed", sa.BigInteger()),
        ("certificate", sa.Text()), ("silenced_at", sa.BigInteger()),
    ):  # fmt: skip
        op.add_column("devices", sa.Column(name, kind))
    op.create_index("ix_devices_fingerprint", "devices", ["fingerprint"])
    op.create_index("ix_devices_status", "devices", ["status"])
    op.add_column("revocations", sa.Column("live", sa.Integer()))
    # API tokens are found by their public part now.
    op.add_column("tokens", sa.Column("public", sa.String(12)))
    op.drop_index("uq_tokens_hash", table_name="tokens")
    op.create_index("uq_tokens_public", "tokens", ["public"], unique=True)
    op.create_table(
        "approvals",
        sa.Column("rollout", sa.String(64), primary_key=True),
        sa.Column("who", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.String(12)),
    )
    op.create_table(
        "credentials",
        sa.Column("device", sa.String(64), primary_key=True),
        sa.Column("verifier", sa.String(256), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("entry", sa.Integer(), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
    )
