"""Writes down what is heard of calls, and what people ask for: a gap filled, a recording noted, a call deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, select, update

from relay.errors import RelayError
from relay.events import (
    CallEvent,
    Gap,
    Listened,
    NotTranscribed,
    ServiceConnected,
    ServiceLost,
    ServiceRefused,
    ServiceReplaced,
    StandsBy,
    StreamBegun,
    StreamEnded,
    StreamReported,
    Transcript,
)
from relay.store import lifetime, records
from relay.store.ledger import Ledger, OpenStream
from relay.store.records import Kind
from relay.store.tables import calls, gaps, owners, streams
from relay.store.telling import Heard, Progress, heard_by, segment_of, storable, uncovered

FORGOTTEN_MS: Final = 24 * 3600 * 1000  # after which a process that has no live stream is not remembered


Deleted = dict[str, str | None]  # calls that are gone, and where their recordings lay


class StillLive(RelayError):
    """What was asked can only be done with a call that has ended."""


def is_kept(event: CallEvent) -> bool:
    """Whether this is worth writing down. Interims are not, nor a stream that only brings what another one brings."""
    if isinstance(event, Transcript):
        return event.is_final
    if isinstance(event, StreamReported):
        return bool(event.error or event.advice)
    return isinstance(event, _KEPT) and not isinstance(event, StandsBy)


_KEPT: Final = (
    *(StreamBegun, StreamEnded, Listened, Gap, NotTranscribed),
    *(ServiceConnected, ServiceLost, ServiceReplaced, ServiceRefused),
)


def enter(ledger: Ledger, heard: Heard) -> None:
    """Writes down one thing. What is of a stream that never began, or whose call was deleted, is not."""
    if isinstance(heard.event, StreamBegun):
        return lifetime.begin(ledger, heard.call, heard.event, heard.at)
    stream = ledger.stream(heard.call)
    if stream is None:
        return None
    if isinstance(heard.event, StreamReported):  # which may be about one that ended, and does not bring it back
        reason = storable(f"Twilio reports: {heard.event.error} {heard.event.advice}")
        return _note(ledger, stream, Kind.ERROR, heard.at, service=None, reason=reason)
    if stream.was_closed:
        lifetime.reopen(ledger, stream, heard.at)
    match heard.event:
        case Transcript() as said:
            stream.reach(said.end_ms + stream.offset_ms)
            stream.understand(heard_by(said.track, heard.service), said.end_ms + stream.offset_ms)
            segment = segment_of(said, heard.service, stream.offset_ms, heard.at)
            ledger.say(stream.call_id, stream.call_sid, stream, segment)
        case Progress(until_ms, final_ms):
            stream.reach(until_ms + stream.offset_ms)
            for whose, end_ms in final_ms.items():
                stream.understand(whose, end_ms + stream.offset_ms)
        case Gap() as gap:
            _miss(ledger, stream, gap, heard)
        case ServiceReplaced() as replaced:
            _replace(ledger, stream, replaced, heard.at)
        case ServiceLost(service, reason):
            _note(ledger, stream, Kind.SERVICE_LOST, heard.at, service=service, reason=storable(reason))
        case ServiceConnected(service, from_ms):
            from_ms += stream.offset_ms
            _note(ledger, stream, Kind.SERVICE_BACK, heard.at, service=service, from_ms=from_ms)
        case ServiceRefused(service, reason):
            _note(ledger, stream, Kind.ERROR, heard.at, service=service, reason=storable(reason))
        case NotTranscribed(reason):
            _note(ledger, stream, Kind.ERROR, heard.at, service=None, reason=storable(reason))
        case StreamEnded() as ended:
            lifetime.end(ledger, stream, ended, heard.at)
    return None


def _miss(ledger: Ledger, stream: OpenStream, gap: Gap, heard: Heard) -> None:
    start_ms, end_ms = gap.start_ms + stream.offset_ms, gap.end_ms + stream.offset_ms
    reason, service = storable(gap.reason), heard.service or None
    ledger.miss(stream, records.Gap(0, str(gap.track), start_ms, end_ms, reason, service, filled=False), heard.at)


def _replace(ledger: Ledger, stream: OpenStream, replaced: ServiceReplaced, at: int) -> None:
    stream.services = tuple(dict.fromkeys((*stream.services, replaced.by)))
    row = {"services": list(stream.services)}
    ledger.connection.execute(update(streams).where(streams.c.id == stream.id), row)
    data = {
        "call_sid": stream.call_sid,
        "stream_sid": stream.sid,
        "service": replaced.service,
        "by": replaced.by,
        "reason": storable(replaced.reason),
        "from_ms": replaced.from_ms + stream.offset_ms,
    }
    ledger.announce(stream.call_id, Kind.SERVICE_REPLACED, at, data)


def _note(ledger: Ledger, stream: OpenStream, kind: Kind, at: int, **what: str | int | None) -> None:
    """Announces what happened to the stream, with its place on the call's clock."""
    data = {"call_sid": stream.call_sid, "stream_sid": stream.sid, "at_ms": stream.place(at), **what}
    ledger.announce(stream.call_id, kind, at, data)


# --- What people ask for ------------------------------------------------------------------------------------


def fill_gap(
    ledger: Ledger,
    sid: str,
    gap: records.Gap,
    finals: Iterable[Transcript],
    service: str,
    rest: Sequence[tuple[int, int]],
) -> bool:
    """Puts what was said in a gap into its place, once. The rest, which nobody could hear, stays a gap."""
    found = ledger.connection.execute(_open_gap(sid, gap)).one_or_none()
    parts = list(uncovered(gap.start_ms, gap.end_ms, rest))
    if found is None or not parts:
        return False
    (start_ms, end_ms), *more = parts
    ledger.connection.execute(
        update(gaps).where(gaps.c.id == gap.id), {"start_ms": start_ms, "end_ms": end_ms, "filled": True}
    )
    for filled, stretches in ((True, more), (False, uncovered(gap.start_ms, gap.end_ms, parts))):
        for start_ms, end_ms in stretches:
            row = {name: getattr(found, name) for name in ("call_id", "stream_id", "track", "reason", "service")}
            ledger.insert(gaps, **row, start_ms=start_ms, end_ms=end_ms, filled=filled)
    for said in finals:
        if said.is_final and said.text:
            ledger.say(found.call_id, sid, None, segment_of(said, service, 0, ledger.now, backfilled=True))
    return True


def _open_gap(sid: str, gap: records.Gap) -> Select[Any]:
    """The row of a gap that is not filled. Its id alone does not tell: SQLite gives those of deleted rows again, to
    another call's gaps."""
    same = (gaps.c.track == gap.track, gaps.c.start_ms == gap.start_ms, gaps.c.end_ms == gap.end_ms)
    return select(gaps).join(calls).where(gaps.c.id == gap.id, calls.c.sid == sid, *same, ~gaps.c.filled)


def note_recording(ledger: Ledger, sid: str, path: str) -> bool:
    """Notes where a call's recording lies."""
    return ledger.connection.execute(update(calls).where(calls.c.sid == sid), {"recording": path}).rowcount > 0


def delete_call(ledger: Ledger, sid: str) -> Deleted:
    """Deletes a call, if there is one; all other rows go with it."""
    query = select(calls).where(calls.c.sid == sid)
    call = ledger.connection.execute(query).one_or_none()
    if call is not None and lifetime.close_dead(ledger, call.id):
        call = ledger.connection.execute(query).one()
    if call is None:
        return {}
    if call.ended_at is None:
        raise StillLive("The call still runs; it can be deleted when it has ended.")
    return _delete(ledger, [call])


def delete_ended_before(ledger: Ledger, at: int, most: int) -> Deleted:
    """Deletes some of the calls that ended before."""
    query = select(calls).where(calls.c.started_at < at, calls.c.ended_at < at)
    return _delete(ledger, ledger.connection.execute(query.order_by(calls.c.started_at).limit(most)).all())


def _delete(ledger: Ledger, gone: Sequence[Row[Any]]) -> Deleted:
    if gone:
        ledger.flush()
        ledger.connection.execute(delete(calls).where(calls.c.id.in_([call.id for call in gone])))
        ledger.forget_all()
        _owe(ledger.connection)
    return {call.sid: call.recording for call in gone}


# SQLite keeps a number for whoever wants one (https://www.sqlite.org/pragma.html#pragma_user_version). It goes up, and
# is odd from a deletion until the words are in no file any more: whatever is killed meanwhile, the next one finds it.


def owed(connection: Connection) -> int:
    """A number while deleted words are still in the index for search or in the log, another one after each deletion; 0
    when they are not. In PostgreSQL that is the work of its autovacuum."""
    number = _user_version(connection)
    return number if number % 2 else 0


def settle(ledger: Ledger, number: int) -> None:
    """Notes that what was owed is done, unless more was deleted meanwhile."""
    if owed(ledger.connection) == number:
        ledger.connection.exec_driver_sql(f"PRAGMA user_version = {number + 1}")


def _owe(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {_user_version(connection) + 2 | 1}")


def _user_version(connection: Connection) -> int:
    if connection.dialect.name != "sqlite":
        return 0
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def forget_owners(ledger: Ledger) -> None:
    """Forgets processes of which nothing is live."""
    live = select(streams.c.owner).where(streams.c.ended_at.is_(None))
    old = owners.c.seen_at < ledger.now - FORGOTTEN_MS, owners.c.owner.not_in(live)
    ledger.connection.execute(delete(owners).where(*old))
