"""Finds words in what was said: by FTS5 in SQLite, by tsvector and GIN in PostgreSQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    cast,
    column,
    exists,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from relay.store.query import Term
from relay.store.tables import calls, segments

NEWEST: Final = 5000  # segments that are looked through first: what is common is found there
FEW: Final = 10_000  # hits that are all looked at; where there are more, segments are looked through from the newest on

CHANGES_AT_LEAST: Final = 2  # as SQLite counts them, if a step of a merge had anything to do

_MERGE: Final = text("INSERT INTO segments_text (segments_text, rank) VALUES ('merge', :steps)")


@dataclass(frozen=True, slots=True)
class Within:
    """Where in the database words are looked for."""

    call_id: int | None = None
    track: str | None = None
    speaker: int | None = None
    before: int | None = None  # the id of a segment


class Index(ABC):
    """A database's way to find words."""

    @abstractmethod
    def newest(self, connection: Connection, terms: Sequence[Term], within: Within, limit: int) -> list[int]:
        """The ids of the segments that have all the terms, newest first."""

    @abstractmethod
    def said_in_call(self, connection: Connection, terms: Sequence[Term]) -> ColumnElement[bool]:
        """The condition that in a row of `calls` all the terms were said in one segment."""


class SqliteIndex(Index):
    """FTS5, https://www.sqlite.org/fts5.html. It gives rows in the order of their ids, from whichever on."""

    _found: Final = table("segments_text", column("rowid"))

    def newest(self, connection: Connection, terms: Sequence[Term], within: Within, limit: int) -> list[int]:
        """The ids of the segments that have all the terms, newest first."""
        rowid = self._found.c.rowid
        query = select(rowid).where(_matches(literal(_with_labels(terms, within)))).order_by(rowid.desc()).limit(limit)
        if within.before is not None:
            query = query.where(rowid < within.before)
        return list(connection.scalars(query))

    def said_in_call(self, connection: Connection, terms: Sequence[Term]) -> ColumnElement[bool]:
        """Few hits are all fetched; with many, each call that is looked at is asked for its own."""
        rowid, match = self._found.c.rowid, _fts5(terms)
        found = select(rowid).where(_matches(literal(match)))
        some = found.limit(FEW + 1).subquery()
        if (connection.scalar(select(func.count()).select_from(some)) or 0) <= FEW:
            return calls.c.id.in_(select(segments.c.call_id).where(segments.c.id.in_(found)))
        its_own = literal(f"{match} AND labels : call").concat(calls.c.id)
        return exists(select(rowid).where(_matches(its_own)).correlate(calls))


def _matches(match: ColumnElement[str]) -> ColumnElement[bool]:
    return literal_column("segments_text").op("MATCH", is_comparison=True)(match)


def _fts5(terms: Sequence[Term]) -> str:
    """The terms in FTS5's language. They hold letters and numbers only."""
    phrases = (f'"{" ".join(term.words)}"{" *" if term.is_prefix else ""}' for term in terms)
    return f"text : ({' AND '.join(phrases)})"


def _with_labels(terms: Sequence[Term], within: Within) -> str:
    labels = {"call": within.call_id, "track": within.track, "speaker": within.speaker}
    wanted = (f"{kind}{value}".replace('"', " ") for kind, value in labels.items() if value is not None)
    return " AND ".join([_fts5(terms), *(f'labels : "{label}"' for label in wanted)])


def scour(connection: Connection, steps: int) -> bool:
    """Rewrites a part of SQLite's index, so that what was deleted from it is no more in the file. Tells whether there
    is more to do. The deletion itself leaves the words, and a note that they do not count
    (https://www.sqlite.org/fts5.html#the_merge_command). In PostgreSQL that is the work of its autovacuum.
    """
    if connection.dialect.name != "sqlite":
        return False
    before = _changes(connection)
    connection.execute(_MERGE, {"steps": steps})
    return _changes(connection) - before >= CHANGES_AT_LEAST


def _changes(connection: Connection) -> int:
    return connection.scalar(text("SELECT total_changes()")) or 0


class PostgresIndex(Index):
    """A GIN index gives all that it finds and in no order, so what is common is looked for from the newest on instead.

    The planner would make that choice by itself, but by a guess at how common a word is; here it is found out.
    """

    def newest(self, connection: Connection, terms: Sequence[Term], within: Within, limit: int) -> list[int]:
        """The ids of the segments that have all the terms, newest first."""
        found = select(segments.c.id).where(self._matches(terms), *_conditions(within))
        one_by_one = found.order_by(segments.c.id.desc()).limit(limit)
        if within.call_id is None:
            last = within.before or connection.scalar(select(func.max(segments.c.id))) or 0
            among_newest = list(connection.scalars(one_by_one.where(segments.c.id >= last - NEWEST)))
            if len(among_newest) == limit:
                return among_newest
        few = found.limit(FEW + 1).cte("few").prefix_with("MATERIALIZED", dialect="postgresql")
        newest = select(few.c.id, func.count().over()).order_by(few.c.id.desc()).limit(limit)
        rows = connection.execute(newest).all()
        if rows and rows[0][1] > FEW:
            return list(connection.scalars(one_by_one))
        return [row[0] for row in rows]

    def said_in_call(self, connection: Connection, terms: Sequence[Term]) -> ColumnElement[bool]:
        """The condition that in a row of `calls` all the terms were said in one segment."""
        return calls.c.id.in_(select(segments.c.call_id).where(self._matches(terms)))

    def _matches(self, terms: Sequence[Term]) -> ColumnElement[bool]:
        return segments.c.searchable.op("@@", is_comparison=True)(cast(literal(_tsquery(terms)), TSQUERY))


def _tsquery(terms: Sequence[Term]) -> str:
    """The terms in PostgreSQL's language. They hold letters and numbers only."""
    return " & ".join(
        "(" + " <-> ".join(f"'{word}'" for word in term.words) + (":*)" if term.is_prefix else ")") for term in terms
    )


def _conditions(within: Within) -> list[ColumnElement[bool]]:
    wanted = {"call_id": within.call_id, "track": within.track, "speaker": within.speaker}
    conditions = [segments.c[name] == value for name, value in wanted.items() if value is not None]
    return conditions + ([segments.c.id < within.before] if within.before is not None else [])


def index_of(connection: Connection) -> Index:
    """The way to find words in this database."""
    return SqliteIndex() if connection.dialect.name == "sqlite" else PostgresIndex()
