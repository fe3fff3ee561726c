"""Writes down what is heard of calls, and what people ask for: a gap filled, a recording noted, a call deleted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import delete, select, update

from relay.errors import RelayError
from relay.events import (
    CallEvent,
    Gap,
    Listened,
    NotTranscribed,
    ServiceRefused,
    ServiceReplaced,
    StreamBegun,
    StreamEnded,
    Transcript,
)
from relay.store import lifetime, records
from relay.store.ledger import Ledger, OpenStream
from relay.store.records import Kind
from relay.store.tables import calls, gaps, owners, streams
from relay.store.telling import Heard, segment_of, storable

FORGOTTEN_MS: Final = 24 * 3600 * 1000  # after which a process that has no live stream is not remembered


class StillLive(RelayError):
    """What was asked can only be done with a call that has ended."""


def is_kept(event: CallEvent) -> bool:
    """Whether this is worth writing down. Interims are not, nor is a pause that was listened to."""
    if isinstance(event, Transcript):
        return event.is_final and bool(event.text)
    return isinstance(
        event, StreamBegun | StreamEnded | Listened | Gap | ServiceReplaced | ServiceRefused | NotTranscribed
    )


def enter(ledger: Ledger, heard: Heard) -> None:
    """Writes down one thing. What is of a stream that never began, or whose call was deleted, is not."""
    if isinstance(heard.event, StreamBegun):
        return lifetime.begin(ledger, heard.call, heard.event, heard.at)
    stream = ledger.stream(heard.call)
    if stream is None:
        return None
    if stream.was_closed:
        lifetime.reopen(ledger, stream, heard.at)
    match heard.event:
        case Transcript() as said:
            stream.reach(said.end_ms + stream.offset_ms)
            segment = segment_of(said, heard.service, stream.offset_ms, heard.at)
            ledger.say(stream.call_id, stream.call_sid, stream, segment)
        case Listened(until_ms):
            stream.reach(until_ms + stream.offset_ms)
        case Gap() as gap:
            _miss(ledger, stream, gap, heard.at)
        case ServiceReplaced() as replaced:
            _replace(ledger, stream, replaced, heard.at)
        case ServiceRefused(service, reason):
            _complain(ledger, stream, service, reason, heard.at)
        case NotTranscribed(reason):
            _complain(ledger, stream, None, reason, heard.at)
        case StreamEnded() as ended:
            lifetime.end(ledger, stream, ended, heard.at)
    return None


def _miss(ledger: Ledger, stream: OpenStream, gap: Gap, at: int) -> None:
    start_ms, end_ms = gap.start_ms + stream.offset_ms, gap.end_ms + stream.offset_ms
    ledger.miss(stream, records.Gap(0, str(gap.track), start_ms, end_ms, storable(gap.reason), filled=False), at)


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


def _complain(ledger: Ledger, stream: OpenStream, service: str | None, reason: str, at: int) -> None:
    data = {"call_sid": stream.call_sid, "stream_sid": stream.sid, "service": service, "reason": storable(reason)}
    ledger.announce(stream.call_id, Kind.ERROR, at, data)


# --- What people ask for ------------------------------------------------------------------------------------


def fill_gap(ledger: Ledger, gap_id: int, finals: Iterable[Transcript], service: str) -> bool:
    """Puts what was said in a gap into its place, once."""
    query = select(gaps, calls.c.sid).join(calls).where(gaps.c.id == gap_id, ~gaps.c.filled)
    gap = ledger.connection.execute(query).one_or_none()
    if gap is None:
        return False
    ledger.connection.execute(update(gaps).where(gaps.c.id == gap_id), {"filled": True})
    for said in finals:
        if said.is_final and said.text:
            ledger.say(gap.call_id, gap.sid, None, segment_of(said, service, 0, ledger.now, backfilled=True))
    return True


def note_recording(ledger: Ledger, sid: str, path: str) -> bool:
    """Notes where a call's recording lies."""
    return ledger.connection.execute(update(calls).where(calls.c.sid == sid), {"recording": path}).rowcount > 0


def delete_call(ledger: Ledger, sid: str) -> list[str] | None:
    """Deletes a call; all other rows go with it. Gives the path of its recording, if it has one; None if there is no
    such call."""
    query = select(calls).where(calls.c.sid == sid)
    call = ledger.connection.execute(query).one_or_none()
    if call is not None and lifetime.close_dead(ledger, call.id):
        call = ledger.connection.execute(query).one()
    if call is None:
        return None
    if call.ended_at is None:
        raise StillLive("The call still runs; it can be deleted when it has ended.")
    return _delete(ledger, [(call.id, call.recording)])


def delete_ended_before(ledger: Ledger, at: int, most: int) -> tuple[int, list[str]]:
    """Deletes some of the calls that ended before. Gives how many, and the paths of their recordings."""
    query = select(calls.c.id, calls.c.recording).where(calls.c.started_at < at, calls.c.ended_at < at)
    query = query.order_by(calls.c.started_at).limit(most)
    old = [(row.id, row.recording) for row in ledger.connection.execute(query)]
    return len(old), _delete(ledger, old)


def _delete(ledger: Ledger, gone: Sequence[tuple[int, str | None]]) -> list[str]:
    ledger.flush()
    ledger.connection.execute(delete(calls).where(calls.c.id.in_([call_id for call_id, _ in gone])))
    ledger.forget_all()
    return [recording for _, recording in gone if recording is not None]


def forget_owners(ledger: Ledger) -> None:
    """Forgets processes of which nothing is live."""
    live = select(streams.c.owner).where(streams.c.ended_at.is_(None))
    old = owners.c.seen_at < ledger.now - FORGOTTEN_MS, owners.c.owner.not_in(live)
    ledger.connection.execute(delete(owners).where(*old))
