"""How far each track of a stream is transcribed, which process is about to send what, and longer beginnings of words.

The first two are for what a killed server leaves: what it had not transcribed has a name, and what it was about to send
is free at once. The third is for SQLite's index: a search for `word*` looks into a list that is there, where it had to
be put together from all words that begin so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Of streams that are there already nobody knows how far they were transcribed."""
    op.add_column("streams", sa.Column("final_ms", sa.JSON))
    op.add_column("deliveries", sa.Column("lessee", sa.Text))
    if op.get_context().dialect.name == "sqlite":
        _index_anew()


def _index_anew() -> None:
    """The triggers that keep it, on the table of segments, stay as they are."""
    op.execute("DROP TABLE segments_text")
    op.execute(
        "CREATE VIRTUAL TABLE segments_text USING"
        " fts5(labels, text, content='', columnsize=0, prefix='2 3 4 5', tokenize='unicode61 remove_diacritics 2')"
    )
    op.execute(
        """
        INSERT INTO segments_text (rowid, labels, text) SELECT
            id, 'call' || call_id || ' track' || track || coalesce(' speaker' || speaker, ''), text FROM segments
        """
    )
