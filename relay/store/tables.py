"""The tables, the same in SQLite and PostgreSQL. What is not the same, the indexes for search, the migrations make.

`_at`: milliseconds since 1970. `_ms`: milliseconds on the call's clock.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.engine import Dialect

from relay.store.query import words_of

NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up its INTEGER keys, and no other
_LIVE: Final = text("ended_at IS NULL")
_PENDING: Final = text("state = 'pending'")

metadata: Final = MetaData()


class Searchable(TypeDecorator[str]):
    """A text's words, as the database's index takes them: a tsvector in PostgreSQL, and in SQLite a blank between."""

    impl = Text().with_variant(TSVECTOR(), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The words of a text."""
        if value is None:
            return None
        words = words_of(value)
        if dialect.name == "postgresql":
            words = tuple(f"'{word}':{number}" for number, word in enumerate(words, 1))
        return " ".join(words)


def _key() -> Column[int]:
    return Column("id", NUMBER, primary_key=True)


def _of(table: str, *, nullable: bool = False) -> Column[int]:
    name = {"calls": "call_id", "streams": "stream_id", "events": "event_id"}[table]
    return Column(name, NUMBER, ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=nullable)


calls: Final = Table(
    "calls",
    metadata,
    _key(),
    Column("sid", Text, nullable=False, unique=True),
    Column("caller", Text, nullable=False),
    Column("called", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),  # null while a stream of it is live
    Column("end_reason", Text),
    Column("duration_ms", BigInteger, nullable=False),
    Column("recording", Text),
    Index("calls_by_start", "started_at", "id"),
    Index("calls_live", "started_at", "id", sqlite_where=_LIVE, postgresql_where=_LIVE),
)

streams: Final = Table(
    "streams",
    metadata,
    _key(),
    _of("calls"),
    Column("sid", Text, nullable=False),
    Column("tracks", JSON, nullable=False),
    Column("services", JSON, nullable=False),
    Column("owner", Text, nullable=False),  # the process that has it
    Column("started_at", BigInteger, nullable=False),
    Column("offset_ms", BigInteger, nullable=False),
    Column("heard_ms", BigInteger, nullable=False),
    Column("final_ms", JSON(none_as_null=True)),  # of each track, by each service: up to where; null: nobody noted it
    Column("ended_at", BigInteger),
    Column("end_reason", Text),
    Column("summary", JSON(none_as_null=True)),
    UniqueConstraint("call_id", "sid"),
    Index("streams_live", "owner", sqlite_where=_LIVE, postgresql_where=_LIVE),
)

segments: Final = Table(
    "segments",
    metadata,
    _key(),
    _of("calls"),
    _of("streams", nullable=True),
    Column("track", Text, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("speaker", Integer),
    Column("language", Text),
    Column("service", Text, nullable=False),
    Column("backfilled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("words", JSON, nullable=False),
    Column("searchable", Searchable),  # the words of its text; null: written by a version that did not know it
    Index("segments_of_call", "call_id", "start_ms"),
    Index("segments_of_stream", "stream_id"),
    Index("segments_by_speaker", "speaker", "id"),
)

gaps: Final = Table(
    "gaps",
    metadata,
    _key(),
    _of("calls"),
    _of("streams", nullable=True),
    Column("track", Text, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("service", Text),
    Column("filled", Boolean, nullable=False),
    Index("gaps_of_call", "call_id", "start_ms"),
    Index("gaps_of_stream", "stream_id"),
)

events: Final = Table(
    "events",
    metadata,
    _key(),
    _of("calls"),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("call_id", "sequence"),
    sqlite_autoincrement=True,  # the id of a deleted event is never given again: readers would miss the new one
)

deliveries: Final = Table(
    "deliveries",
    metadata,
    _key(),
    _of("events"),
    Column("endpoint", Text, nullable=False),
    Column("message_id", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("lessee", Text),  # the process that is about to send it
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("delivered_at", BigInteger),
    Index("deliveries_of_event", "event_id"),
    Index("deliveries_due", "endpoint", "next_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
    sqlite_autoincrement=True,
)

owners: Final = Table(
    "owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("seen_at", BigInteger, nullable=False),
    Column("written", BigInteger, nullable=False),  # the newest batch of its that is stored: none is stored twice
)
