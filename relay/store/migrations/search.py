"""The index for search has the words as relay/store/query.py tells them apart, in SQLite and in PostgreSQL.

Each database cut texts into words by rules of its own, so that next to a symbol or in a script that one of them does
not know they did not find the same. Now they are given words, and cut nothing.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from relay.store.tables import Searchable

revision = "4"
down_revision = "3"

BATCH: Final = 1000  # segments

SEGMENTS: Final = sa.table(
    "segments", sa.column("id", sa.BigInteger), sa.column("text", sa.Text), sa.column("searchable", Searchable)
)


def upgrade() -> None:
    """What was said so far is indexed anew."""
    is_sqlite = op.get_context().dialect.name == "sqlite"
    if not is_sqlite:
        op.execute("ALTER TABLE segments DROP COLUMN searchable")  # and the index on it
    op.add_column("segments", sa.Column("searchable", Searchable))
    _fill()
    if is_sqlite:
        _index_in_sqlite()
    else:
        op.execute("CREATE INDEX segments_searchable ON segments USING gin (searchable)")


def _fill() -> None:
    connection, last = op.get_bind(), 0
    query = sa.select(SEGMENTS.c.id, SEGMENTS.c.text).order_by(SEGMENTS.c.id).limit(BATCH)
    change = sa.update(SEGMENTS).where(SEGMENTS.c.id == sa.bindparam("of")).values(searchable=sa.bindparam("said"))
    while rows := connection.execute(query.where(SEGMENTS.c.id > last)).all():
        connection.execute(change, [{"of": row.id, "said": row.text} for row in rows])
        last = rows[-1].id


def _index_in_sqlite() -> None:
    """The tokenizer `ascii` takes all beyond ASCII for letters, so it cuts at the blanks and nowhere else."""
    for old in ("TRIGGER segments_indexed", "TRIGGER segments_forgotten", "TABLE segments_text"):
        op.execute(f"DROP {old}")
    op.execute(
        "CREATE VIRTUAL TABLE segments_text USING"
        " fts5(labels, text, content='', columnsize=0, prefix='2 3 4 5', tokenize='ascii')"
    )
    op.execute(
        """
        INSERT INTO segments_text (rowid, labels, text) SELECT
            id, 'call' || call_id || ' track' || track || coalesce(' speaker' || speaker, ''), searchable FROM segments
        """
    )
    op.execute(
        """
        CREATE TRIGGER segments_indexed AFTER INSERT ON segments BEGIN
            INSERT INTO segments_text (rowid, labels, text) VALUES (
                new.id,
                'call' || new.call_id || ' track' || new.track || coalesce(' speaker' || new.speaker, ''),
                new.searchable
            );
        END
        """
    )
    op.execute(
        """
        CREATE TRIGGER segments_forgotten AFTER DELETE ON segments BEGIN
            INSERT INTO segments_text (segments_text, rowid, labels, text) VALUES (
                'delete',
                old.id,
                'call' || old.call_id || ' track' || old.track || coalesce(' speaker' || old.speaker, ''),
                old.searchable
            );
        END
        """
    )
