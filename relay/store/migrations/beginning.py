"""The first tables, and the index for search: FTS5 in SQLite, a tsvector in PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LIVE = sa.text("ended_at IS NULL")
PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    """Makes everything."""
    _calls_and_streams()
    _what_was_said()
    _events_and_deliveries()
    if op.get_context().dialect.name == "sqlite":
        _search_in_sqlite()
    else:
        _search_in_postgresql()


def _key() -> sa.Column[int]:
    return sa.Column("id", NUMBER, primary_key=True)


def _of(column: str, table: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(column, NUMBER, sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=nullable)


def _calls_and_streams() -> None:
    op.create_table(
        "calls",
        _key(),
        sa.Column("sid", sa.Text, nullable=False, unique=True),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("called", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("end_reason", sa.Text),
        sa.Column("duration_ms", sa.BigInteger, nullable=False),
        sa.Column("recording", sa.Text),
    )
    op.create_index("calls_by_start", "calls", ["started_at", "id"])
    op.create_index("calls_live", "calls", ["started_at", "id"], sqlite_where=LIVE, postgresql_where=LIVE)
    op.create_table(
        "streams",
        _key(),
        _of("call_id", "calls"),
        sa.Column("sid", sa.Text, nullable=False),
        sa.Column("tracks", sa.JSON, nullable=False),
        sa.Column("services", sa.JSON, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("offset_ms", sa.BigInteger, nullable=False),
        sa.Column("heard_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("end_reason", sa.Text),
        sa.Column("summary", sa.JSON),
        sa.UniqueConstraint("call_id", "sid"),
    )
    op.create_index("streams_live", "streams", ["owner"], sqlite_where=LIVE, postgresql_where=LIVE)
    op.create_table(
        "owners",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("written", sa.BigInteger, nullable=False),
    )


def _what_was_said() -> None:
    op.create_table(
        "segments",
        _key(),
        _of("call_id", "calls"),
        _of("stream_id", "streams", nullable=True),
        sa.Column("track", sa.Text, nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("speaker", sa.Integer),
        sa.Column("language", sa.Text),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("backfilled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("words", sa.JSON, nullable=False),
    )
    op.create_index("segments_of_call", "segments", ["call_id", "start_ms"])
    op.create_index("segments_of_stream", "segments", ["stream_id"])
    op.create_index("segments_by_speaker", "segments", ["speaker", "id"])
    op.create_table(
        "gaps",
        _key(),
        _of("call_id", "calls"),
        _of("stream_id", "streams", nullable=True),
        sa.Column("track", sa.Text, nullable=False),
        sa.Column("start_ms", sa.BigInteger, nullable=False),
        sa.Column("end_ms", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("filled", sa.Boolean, nullable=False),
    )
    op.create_index("gaps_of_call", "gaps", ["call_id", "start_ms"])
    op.create_index("gaps_of_stream", "gaps", ["stream_id"])


def _events_and_deliveries() -> None:
    op.create_table(
        "events",
        _key(),
        _of("call_id", "calls"),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("call_id", "sequence"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deliveries",
        _key(),
        _of("event_id", "events"),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False, unique=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.BigInteger, nullable=False),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", sa.Text),
        sa.Column("delivered_at", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_of_event", "deliveries", ["event_id"])
    op.create_index(
        "deliveries_due", "deliveries", ["endpoint", "next_at"], sqlite_where=PENDING, postgresql_where=PENDING
    )


def _search_in_sqlite() -> None:
    """An index without a copy of the texts: what is to be deleted from it is told to it once more
    (https://www.sqlite.org/fts5.html#contentless_tables).

    Beside a segment's words it has labels, so that a search within one call, track or speaker stays an intersection of
    two lists, however common the word is.
    """
    op.execute(
        "CREATE VIRTUAL TABLE segments_text USING"
        " fts5(labels, text, content='', columnsize=0, prefix='2 3', tokenize='unicode61 remove_diacritics 2')"
    )
    op.execute(
        """
        CREATE TRIGGER segments_indexed AFTER INSERT ON segments BEGIN
            INSERT INTO segments_text (rowid, labels, text) VALUES (
                new.id,
                'call' || new.call_id || ' track' || new.track || coalesce(' speaker' || new.speaker, ''),
                new.text
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
                old.text
            );
        END
        """
    )


def _search_in_postgresql() -> None:
    """A column of the words without their accents, and an index on it. What stands between words, and what accents
    are, is written in relay/store/query.py too."""
    op.execute(
        r"""
        ALTER TABLE segments ADD COLUMN searchable tsvector NOT NULL GENERATED ALWAYS AS (
            to_tsvector(
                'simple',
                regexp_replace(
                    regexp_replace(normalize(text, NFD), '[\u0300-\u036f]+', '', 'g'),
                    '[\s!-/:-@\[-`{-~\u00a0-\u00bf\u2000-\u206f\u3000-\u303f]+', ' ', 'g'
                )
            )
        ) STORED
        """
    )
    op.execute("CREATE INDEX segments_searchable ON segments USING gin (searchable)")
