"""Since when a device may have waited at a barrier."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From 0002; the new column may be empty."""
    op.add_column("assignments", sa.Column("proven_at", sa.BigInteger()))
