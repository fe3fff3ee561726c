"""Rows of the tables as records. Every function reads within the transaction that it is given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Row, Text, cast, func, or_, select, tuple_

from relay.events import Word
from relay.store.query import Term, snippet
from relay.store.records import (
    PAGE_MOST,
    Call,
    CallSoFar,
    Event,
    Gap,
    Hit,
    Kind,
    Page,
    Segment,
    State,
    Stream,
)
from relay.store.searching import Within, index_of
from relay.store.tables import calls, events, gaps, segments, streams

_TOLD_APART: Final = (Kind.SEGMENT_FINAL.value, Kind.GAP.value)
_CURSOR: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls are asked for; all that is given must hold."""

    state: str | None = None
    number: str | None = None
    since: int | None = None
    until: int | None = None
    service: str | None = None
    terms: tuple[Term, ...] | None = None


def read_cursor(cursor: str | None) -> tuple[int, ...] | None:
    """The place a page ended at. Raises ValueError for what is no cursor."""
    if cursor is None:
        return None
    if not _CURSOR.fullmatch(cursor):
        raise ValueError("a cursor that is none")
    return tuple(map(int, cursor.split(".")))


def as_limit(limit: int) -> int:
    """How many items a page has, of what was asked for."""
    return max(1, min(limit, PAGE_MOST))


# --- Calls --------------------------------------------------------------------------------------------------


def call(connection: Connection, sid: str) -> Call | None:
    """One call."""
    rows = connection.execute(select(calls).where(calls.c.sid == sid)).all()
    return next(iter(_by_id(connection, rows).values()), None)


def page_of_calls(connection: Connection, filters: Filters, after: tuple[int, ...] | None, limit: int) -> Page[Call]:
    """Calls, newest first."""
    if filters.terms == ():
        return Page(())
    order = (calls.c.started_at, calls.c.id)
    query = select(calls).where(*_conditions(connection, filters)).order_by(*(each.desc() for each in order))
    if after is not None:
        query = query.where(tuple_(*order) < tuple_(*(after if len(after) == 2 else (after[0], 0))))
    rows = connection.execute(query.limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    cursor = None if last is None else f"{last.started_at}.{last.id}"
    return Page(tuple(_by_id(connection, rows[:limit]).values()), cursor)


def _conditions(connection: Connection, filters: Filters) -> Iterable[ColumnElement[bool]]:
    if filters.state is not None:
        is_live = calls.c.ended_at.is_(None)
        yield is_live if filters.state == State.LIVE else ~is_live
    if filters.number is not None:
        yield or_(*(_has(column, filters.number) for column in (calls.c.caller, calls.c.called)))
    if filters.since is not None:
        yield calls.c.started_at >= filters.since
    if filters.until is not None:
        yield calls.c.started_at < filters.until
    if filters.service is not None:
        quoted = f'"{filters.service}"'  # as in the JSON list of them
        listened = streams.c.call_id == calls.c.id, cast(streams.c.services, Text).icontains(quoted, autoescape=True)
        yield select(streams.c.id).where(*listened).exists()
    if filters.terms is not None:
        yield index_of(connection).said_in_call(connection, filters.terms)


def _has(column: Column[str], part: str) -> ColumnElement[bool]:
    """Whether a text has this part, in whatever case; to ask so takes PostgreSQL four times as long, and digits have
    none."""
    has = column.contains if part.lower() == part.upper() else column.icontains
    return has(part, autoescape=True)


def _by_id(connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, Call]:
    """Rows of `calls` as calls with their streams, in the same order."""
    of_call: dict[int, list[Stream]] = {row.id: [] for row in rows}
    if rows:
        for row in connection.execute(select(streams).where(streams.c.call_id.in_(of_call)).order_by(streams.c.id)):
            of_call[row.call_id].append(_stream(row))
    return {row.id: _call(row, of_call[row.id]) for row in rows}


def _call(row: Row[Any], its_streams: Iterable[Stream]) -> Call:
    return Call(
        sid=row.sid,
        caller=row.caller,
        called=row.called,
        started_at=row.started_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        duration_ms=row.duration_ms,
        recording=row.recording,
        streams=tuple(its_streams),
    )


def _stream(row: Row[Any]) -> Stream:
    return Stream(
        sid=row.sid,
        tracks=tuple(row.tracks),
        services=tuple(row.services),
        started_at=row.started_at,
        offset_ms=row.offset_ms,
        heard_ms=row.heard_ms,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        summary=row.summary,
    )


# --- What was said, and what is missing ---------------------------------------------------------------------


def transcript_of(connection: Connection, sid: str) -> CallSoFar | None:
    """All that is known of a call. A transaction sees the database as it was at one moment, and ids rise in order of
    commit: what is not in here has a greater one."""
    found = call(connection, sid)
    if found is None:
        return None
    last_id: int | None = connection.scalar(select(func.max(events.c.id)).join(calls).where(calls.c.sid == sid))
    query = select(events, calls.c.sid).join(calls).where(calls.c.sid == sid, events.c.kind.not_in(_TOLD_APART))
    return CallSoFar(
        call=found,
        segments=tuple(segments_of(connection, sid)),
        gaps=tuple(gaps_of(connection, sid)),
        events=tuple(event(row) for row in connection.execute(query.order_by(events.c.id))),
        last_event_id=last_id or 0,
    )


def segments_of(connection: Connection, sid: str) -> list[Segment]:
    """All that was said on a call, in order of time."""
    order = (segments.c.start_ms, segments.c.end_ms, segments.c.id)
    query = select(segments).join(calls).where(calls.c.sid == sid).order_by(*order)
    return [_segment(row) for row in connection.execute(query)]


def gaps_of(connection: Connection, sid: str) -> list[Gap]:
    """What is missing of a call, in order of time."""
    query = select(gaps).join(calls).where(calls.c.sid == sid).order_by(gaps.c.start_ms, gaps.c.end_ms, gaps.c.id)
    return [gap(row) for row in connection.execute(query)]


def gap(row: Row[Any]) -> Gap:
    """A row of `gaps`."""
    return Gap(row.id, row.track, row.start_ms, row.end_ms, row.reason, row.service, row.filled)


def _segment(row: Row[Any]) -> Segment:
    return Segment(
        id=row.id,
        track=row.track,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        text=row.text,
        words=tuple(Word(**word) for word in row.words),
        confidence=row.confidence,
        speaker=row.speaker,
        language=row.language,
        service=row.service,
        backfilled=row.backfilled,
        created_at=row.created_at,
    )


def search(
    connection: Connection, terms: tuple[Term, ...], call_sid: str | None, within: Within, limit: int
) -> Page[Hit]:
    """Segments in which all the terms were said, newest first."""
    if call_sid is not None:
        call_id = connection.scalar(select(calls.c.id).where(calls.c.sid == call_sid))
        within = Within(call_id or 0, within.track, within.speaker, within.before)
    ids = index_of(connection).newest(connection, terms, within, limit + 1) if terms else []
    newest_first = segments.c.id.desc()
    rows = connection.execute(select(segments).where(segments.c.id.in_(ids[:limit])).order_by(newest_first)).all()
    said_in = {row.call_id for row in rows}
    found = _by_id(connection, connection.execute(select(calls).where(calls.c.id.in_(said_in))).all())
    hits = (Hit(found[row.call_id], _segment(row), snippet(row.text, terms)) for row in rows)
    return Page(tuple(hits), str(ids[limit - 1]) if len(ids) > limit else None)


# --- Events and their deliveries ----------------------------------------------------------------------------


def events_after(connection: Connection, event_id: int, call_sid: str | None, limit: int) -> list[Event]:
    """The events that follow this id, in order."""
    query = select(events, calls.c.sid).join(calls).where(events.c.id > event_id).order_by(events.c.id).limit(limit)
    if call_sid is not None:
        query = query.where(calls.c.sid == call_sid)
    return [event(row) for row in connection.execute(query)]


def newest_event_id(connection: Connection) -> int:
    """The id of the newest event; 0 when there is none."""
    return connection.scalar(select(func.max(events.c.id))) or 0


def event(row: Row[Any]) -> Event:
    """A row of `events` with its call's SID."""
    return Event(row.id, row.sid, row.sequence, Kind(row.kind), row.data, row.created_at)
