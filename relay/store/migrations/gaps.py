"""Which service a gap is of, where several listen side by side."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """Of gaps that are there already nobody noted it."""
    op.add_column("gaps", sa.Column("service", sa.Text))
