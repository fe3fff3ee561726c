"""How calls and their streams begin and end in the tables, also those that nobody ended properly."""

from __future__ import annotations

from itertools import product
from math import inf
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select, update

from relay.events import StreamBegun, StreamEnded
from relay.protocol import CallInfo
from relay.store import reading
from relay.store.ledger import Ledger, OpenStream
from relay.store.owner import is_gone
from relay.store.records import Gap, Json, Kind, as_time
from relay.store.tables import calls, events, gaps, owners, streams
from relay.store.telling import Stretch, final_until, holes, storable, summary_of, uncovered

KILLED: Final = "the program was stopped before the stream had ended"
UNHEARD: Final = "the program was stopped before this was transcribed"
LEAST_MS: Final = 100  # of audio without a final that are worth naming: no word is shorter
NOTED_EVERY_MS: Final = 3000  # of audio at most, until it is told (relay.call) and written (relay.store.writer)
BETWEEN: Final = "no stream brought it: the one before had ended"


# --- A stream begins ----------------------------------------------------------------------------------------


def begin(ledger: Ledger, info: CallInfo, begun: StreamBegun, at: int) -> None:
    """A stream of a new call, or of one that had an earlier stream: one call, on one clock."""
    ledger.forget(info.call_sid)
    call = _call(ledger, info.call_sid)
    if call is not None and close_dead(ledger, call.id):
        call = _call(ledger, info.call_sid)
    call_id = _begin_call(ledger, info, begun, at) if call is None else int(call.id)
    offset_ms = 0 if call is None else _offset(ledger, call, at)
    _begin_stream(ledger, call_id, info, begun, offset_ms, at)
    stream = ledger.stream(info)
    assert stream is not None
    if call is None:
        _announce_start(ledger, stream, begun, at)
    elif call.ended_at is not None:
        _resume(ledger, stream, at)
    _name_holes(ledger, stream, at)


def reopen(ledger: Ledger, stream: OpenStream, at: int) -> None:
    """Its process was taken for dead, and lives: it will transcribe what it has heard."""
    row = {"owner": ledger.owner, "ended_at": None, "end_reason": None}
    ledger.connection.execute(update(streams).where(streams.c.id == stream.id), row)
    untrue = gaps.c.stream_id == stream.id, gaps.c.reason == UNHEARD, ~gaps.c.filled
    ledger.connection.execute(delete(gaps).where(*untrue))
    stream.was_closed = False
    call = _call(ledger, stream.call_sid)
    if call is not None and call.ended_at is not None:
        _resume(ledger, stream, at)


def _call(ledger: Ledger, sid: str) -> Row[Any] | None:
    return ledger.connection.execute(select(calls).where(calls.c.sid == sid)).one_or_none()


def _begin_call(ledger: Ledger, info: CallInfo, begun: StreamBegun, at: int) -> int:
    who = {"caller": storable(begun.caller), "called": storable(begun.called)}
    return ledger.insert(calls, sid=info.call_sid, started_at=at, duration_ms=0, **who)


def _offset(ledger: Ledger, call: Row[Any], at: int) -> int:
    """Where a stream begins on the call's clock: when it came, and never before what an earlier one has brought."""
    ended = streams.c.call_id == call.id, streams.c.ended_at.is_not(None)
    heard_ms: int | None = ledger.connection.scalar(select(func.max(streams.c.heard_ms)).where(*ended))
    return max(0, at - int(call.started_at), heard_ms or 0)


def _begin_stream(ledger: Ledger, call_id: int, info: CallInfo, begun: StreamBegun, offset_ms: int, at: int) -> None:
    """A new row, or anew that of an earlier stream with the same SID."""
    row = {
        "tracks": [str(track) for track in info.tracks],
        "services": list(begun.services),
        "owner": ledger.owner,
        "started_at": at,
        "offset_ms": offset_ms,
        "heard_ms": offset_ms,
        "final_ms": {},
        "ended_at": None,
        "end_reason": None,
        "summary": None,
    }
    same = streams.c.call_id == call_id, streams.c.sid == info.stream_sid
    if not ledger.connection.execute(update(streams).where(*same), row).rowcount:
        ledger.insert(streams, call_id=call_id, sid=info.stream_sid, **row)


def _announce_start(ledger: Ledger, stream: OpenStream, begun: StreamBegun, at: int) -> None:
    data = _about(stream) | {
        "caller": storable(begun.caller),
        "called": storable(begun.called),
        "started_at": as_time(at),
    }
    ledger.announce(stream.call_id, Kind.CALL_STARTED, at, data)


def _resume(ledger: Ledger, stream: OpenStream, at: int) -> None:
    again = update(calls).where(calls.c.id == stream.call_id)
    ledger.connection.execute(again, {"ended_at": None, "end_reason": None})
    ledger.announce(stream.call_id, Kind.CALL_RESUMED, at, _about(stream) | {"offset_ms": stream.offset_ms})


def _about(stream: OpenStream) -> Json:
    return {
        "call_sid": stream.call_sid,
        "stream_sid": stream.sid,
        "tracks": list(stream.tracks),
        "services": list(stream.services),
    }


def _name_holes(ledger: Ledger, stream: OpenStream, at: int) -> None:
    """Names what no stream of its call has brought of its tracks, and nobody has named yet."""
    ledger.flush()
    its = ledger.connection.execute(select(streams).where(streams.c.call_id == stream.call_id)).all()
    known = select(gaps.c.track, gaps.c.start_ms, gaps.c.end_ms).where(gaps.c.call_id == stream.call_id)
    named = {(row.track, row.start_ms, row.end_ms) for row in ledger.connection.execute(known)}
    for track in stream.tracks:
        for start_ms, end_ms in holes([_stretch(row) for row in its if track in row.tracks]):
            if (track, start_ms, end_ms) not in named:
                ledger.miss(stream, Gap(0, track, start_ms, end_ms, BETWEEN, None, filled=False), at)


def _name_unheard(ledger: Ledger, stream: OpenStream, at: int) -> None:
    """Names what of a dead stream's tracks came after their newest finals, and nobody else transcribes or has named;
    for each service by itself, if several listened side by side."""
    its = {row.id: row for row in ledger.connection.execute(select(streams).where(streams.c.call_id == stream.call_id))}
    dead = its.pop(stream.id)
    if dead.final_ms is None or not dead.services:
        return
    known = select(gaps.c.track, gaps.c.start_ms, gaps.c.end_ms, gaps.c.service).where(gaps.c.call_id == stream.call_id)
    named, others = ledger.connection.execute(known).all(), its.values()
    for track, service in product(stream.tracks, _listened(ledger.connection, dead)):
        covered = [(gap.start_ms, gap.end_ms) for gap in named if gap.track == track and _is_of(gap.service, service)]
        covered += [(row.offset_ms, _transcribed_ms(row, track, service)) for row in others if track in row.tracks]
        final_ms = max(final_until(dead.final_ms, track, service), dead.offset_ms)
        for start_ms, end_ms in uncovered(final_ms, dead.heard_ms, covered):
            if end_ms - start_ms >= LEAST_MS:
                ledger.miss(stream, Gap(0, track, start_ms, end_ms, UNHEARD, service, filled=False), at)


def _listened(connection: Connection, row: Row[Any]) -> list[str | None]:
    """The services that listened to a stream side by side; None: one at a time. Only who listens alone is taken over
    from (relay.listening), so where that happened nobody listened beside."""
    since = events.c.call_id == row.call_id, events.c.created_at >= row.started_at
    query = select(events.c.data).where(*since, events.c.kind == Kind.SERVICE_REPLACED.value)
    was_relieved = any(data["stream_sid"] == row.sid for data in connection.scalars(query))
    return [None] if was_relieved or len(row.services) == 1 else list(row.services)


def _is_of(noted: str | None, service: str | None) -> bool:
    """Whether a gap is one of this service, as far as is noted; of None any is."""
    return service is None or noted in (None, service)


def _transcribed_ms(row: Row[Any], track: str, service: str | None) -> float:
    """Up to where a stream's track is transcribed, by this service if it is given; a live one's will be."""
    if service is not None and service not in row.services:
        return float(row.offset_ms)
    if row.ended_at is None:
        return inf
    finals: dict[str, int] = row.final_ms or {}
    was_whole = bool(finals) and row.summary is not None
    return float(row.heard_ms if was_whole else final_until(finals, track, service))


def _stretch(row: Row[Any]) -> Stretch:
    return Stretch(row.offset_ms, row.heard_ms, is_live=row.ended_at is None)


# --- A stream ends ------------------------------------------------------------------------------------------


def end(ledger: Ledger, stream: OpenStream, ended: StreamEnded, at: int) -> None:
    """Its end was told. The call ends with its last stream."""
    stream.reach(stream.offset_ms + ended.duration_ms)
    ledger.flush()
    row = {"ended_at": at, "end_reason": storable(ended.reason), "summary": summary_of(ended)}
    ledger.connection.execute(update(streams).where(streams.c.id == stream.id), row)
    _end_call(ledger, stream.call_id, stream.call_sid, storable(ended.reason), at)


def dead_streams(connection: Connection, owner: str, now: int, call_id: int | None = None) -> list[Row[Any]]:
    """Streams that are live in the tables while the process that had them is gone."""
    query = (
        select(streams, calls.c.sid.label("call_sid"), calls.c.started_at.label("call_started_at"), owners.c.seen_at)
        .join(calls)
        .outerjoin(owners, owners.c.owner == streams.c.owner)
        .where(streams.c.ended_at.is_(None), streams.c.owner != owner)
        .order_by(streams.c.id)
    )
    if call_id is not None:
        query = query.where(streams.c.call_id == call_id)
    gone: dict[str, bool] = {}
    for row in (rows := connection.execute(query).all()):
        if row.owner not in gone:
            gone[row.owner] = is_gone(row.owner, row.seen_at or 0, now)
    return [row for row in rows if gone[row.owner]]


def close_dead(ledger: Ledger, call_id: int | None = None) -> int:
    """Closes what processes that are gone have left, at the last second that was heard. Gives how many streams."""
    dead = dead_streams(ledger.connection, ledger.owner, ledger.now, call_id)
    for row in dead:
        closed = {"ended_at": row.call_started_at + _came_until_ms(row), "end_reason": KILLED}
        ledger.forget(row.call_sid)
        ledger.connection.execute(update(streams).where(streams.c.id == row.id), closed)
    for row in dead:
        stream = ledger.stream(CallInfo(row.call_sid, row.sid, ()))
        assert stream is not None
        stream.reach(_came_until_ms(row))
        ledger.flush()
        _name_unheard(ledger, stream, ledger.now)
        _name_holes(ledger, stream, ledger.now)
    for call, sid in dict.fromkeys((row.call_id, row.call_sid) for row in dead):
        _end_call(ledger, call, sid, KILLED, ledger.now)
    return len(dead)


def _came_until_ms(row: Row[Any]) -> int:
    """Up to where a dead stream's audio came. The newest of it was not noted yet; but phones keep time, and when its
    process last lived is known better."""
    by_clock = row.offset_ms + (row.seen_at or 0) - row.started_at
    return int(max(row.heard_ms, min(by_clock, row.heard_ms + NOTED_EVERY_MS)))


def _end_call(ledger: Ledger, call_id: int, call_sid: str, reason: str, at: int) -> None:
    """Ends the call, if no stream of it is live, with the last second of the last of them."""
    its = select(func.count(streams.c.id), func.count(streams.c.ended_at), func.max(streams.c.ended_at))
    there, ended, last = ledger.connection.execute(its.where(streams.c.call_id == call_id)).one()
    if there > ended:
        return
    row = {"ended_at": last, "end_reason": reason}
    ledger.connection.execute(update(calls).where(calls.c.id == call_id), row)
    ledger.announce(call_id, Kind.CALL_ENDED, at, _whole(ledger.connection, call_sid))


def _whole(connection: Connection, sid: str) -> Json:
    """All that a call was, for those who want it at its end. Its words one by one are left to the API."""
    call = reading.call(connection, sid)
    assert call is not None
    return {
        "call_sid": sid,
        "caller": call.caller,
        "called": call.called,
        "started_at": as_time(call.started_at),
        "ended_at": as_time(call.ended_at),
        "duration_ms": call.duration_ms,
        "reason": call.end_reason,
        "services": list(call.services),
        "segments": [segment.as_json(words=False) for segment in reading.segments_of(connection, sid)],
        "gaps": [gap.as_json() for gap in reading.gaps_of(connection, sid)],
    }
