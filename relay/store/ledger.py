"""The tables as one transaction writes them: rows, events with their deliveries, and how far the streams have come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, Table, bindparam, func, insert, select, update

from relay.protocol import CallInfo
from relay.store.records import DeliveryState, Gap, Json, Kind, Segment, word_as_json
from relay.store.tables import calls, deliveries, events, gaps, segments, streams

_OF_SEGMENT: Final = (
    *("track", "start_ms", "end_ms", "text", "confidence"),
    *("speaker", "language", "service", "backfilled", "created_at"),
)
_OF_GAP: Final = ("track", "start_ms", "end_ms", "reason", "service", "filled")
_HEARD: Final = (
    update(streams)
    .where(streams.c.id == bindparam("of"))
    .values(heard_ms=bindparam("until"), final_ms=bindparam("finals", type_=streams.c.final_ms.type))
)
_LASTED: Final = (
    update(calls)
    .where(calls.c.id == bindparam("of"), calls.c.duration_ms < bindparam("until"))
    .values(duration_ms=bindparam("until"))
)
_NEWEST: Final = select(func.max(events.c.sequence)).where(events.c.call_id == bindparam("of"))
_STREAMS: Final = (
    select(streams, calls.c.sid.label("call_sid")).join(calls).where(calls.c.sid.in_(bindparam("of", expanding=True)))
)


@dataclass(slots=True)
class OpenStream:
    """A row of `streams` that is written to."""

    id: int
    sid: str
    call_id: int
    call_sid: str
    tracks: tuple[str, ...]
    services: tuple[str, ...]
    started_at: int
    offset_ms: int
    heard_ms: int
    final_ms: dict[str, int]
    was_closed: bool  # by someone who took its process for dead
    came_further: bool = False  # than its row says

    def reach(self, until_ms: int) -> None:
        """Its audio has come up to here."""
        if until_ms > self.heard_ms:
            self.heard_ms = until_ms
            self.came_further = True

    def understand(self, whose: str, until_ms: int) -> None:
        """A final of one service and one track, or a pause, has ended here."""
        if until_ms > self.final_ms.get(whose, self.offset_ms):
            self.final_ms[whose] = until_ms
            self.came_further = True

    def place(self, at: int) -> int:
        """Where on the call's clock it was at this time: how far it has come is told only now and again."""
        return max(self.heard_ms, self.offset_ms + at - self.started_at)


class Ledger:
    """One transaction's view of the tables. `owner` is the process that writes, `endpoints` the webhooks it knows.

    What was said and announced, and how far streams have come, is gathered and written together: by `flush`.
    """

    def __init__(
        self, connection: Connection, owner: str, now: int, endpoints: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        self.connection = connection
        self.owner = owner
        self.now = now
        self.endpoints = endpoints or {}
        self._streams: dict[tuple[str, str], OpenStream] = {}
        self._sequences: dict[int, int] = {}  # of each call's newest event
        self._said: list[tuple[Json, Segment, Json]] = []  # rows, what they are, and their events' data to be filled in
        self._announced: list[Json] = []  # rows of `events`

    def insert(self, table: Table, **values: Any) -> int:
        """A new row. Gives its id."""
        return self._insert_all(table, [values])[0]

    def announce(self, call_id: int, kind: Kind, at: int, data: Json) -> None:
        """A new event of a call, and its way to each webhook that wants it."""
        if call_id not in self._sequences:
            self._sequences[call_id] = self.connection.scalar(_NEWEST, {"of": call_id}) or 0
        sequence = self._sequences[call_id] = self._sequences[call_id] + 1
        row = {"call_id": call_id, "sequence": sequence, "kind": kind.value, "data": data, "created_at": at}
        self._announced.append(row)

    def say(self, call_id: int, call_sid: str, stream: OpenStream | None, segment: Segment) -> None:
        """Puts a segment into its place and announces it. One that was transcribed later is of no stream."""
        stream_id, stream_sid = (None, None) if stream is None else (stream.id, stream.sid)
        row = {name: getattr(segment, name) for name in _OF_SEGMENT}
        row |= {"call_id": call_id, "stream_id": stream_id, "words": [word_as_json(word) for word in segment.words]}
        row["searchable"] = segment.text
        data: Json = {"call_sid": call_sid, "stream_sid": stream_sid}
        self._said.append((row, segment, data))
        self.announce(call_id, Kind.SEGMENT_FINAL, segment.created_at, data)

    def miss(self, stream: OpenStream, gap: Gap, at: int) -> None:
        """Notes what is missing, and announces it."""
        row = {name: getattr(gap, name) for name in _OF_GAP}
        gap_id = self.insert(gaps, call_id=stream.call_id, stream_id=stream.id, **row)
        data = {"call_sid": stream.call_sid, "stream_sid": stream.sid, "gap": replace(gap, id=gap_id).as_json()}
        self.announce(stream.call_id, Kind.GAP, at, data)

    def flush(self) -> None:
        """Writes what was gathered. To be done before any of it is read, and at the end."""
        said, self._said = self._said, []
        ids = self._insert_all(segments, [row for row, _, _ in said])
        for segment_id, (_, segment, data) in zip(ids, said, strict=True):
            data["segment"] = replace(segment, id=segment_id).as_json()
        announced, self._announced = self._announced, []
        self._send(announced, self._insert_all(events, announced))
        self._write_progress()

    def _insert_all(self, table: Table, rows: Sequence[Json]) -> list[int]:
        """New rows. Gives their ids, in the same order."""
        if not rows:
            return []
        in_order = insert(table).returning(table.c.id, sort_by_parameter_order=True)
        return list(self.connection.scalars(in_order, rows))

    def _send(self, announced: Sequence[Json], ids: Sequence[int]) -> None:
        rows = [
            {
                "event_id": event_id,
                "endpoint": endpoint,
                "message_id": f"msg_{uuid4().hex}",
                "state": DeliveryState.PENDING.value,
                "attempts": 0,
                "next_at": self.now,
            }
            for event, event_id in zip(announced, ids, strict=True)
            for endpoint, kinds in self.endpoints.items()
            if event["kind"] in kinds
        ]
        if rows:
            self.connection.execute(insert(deliveries), rows)

    def _write_progress(self) -> None:
        further = [stream for stream in self._streams.values() if stream.came_further]
        if further:
            rows = [{"of": stream.id, "until": stream.heard_ms, "finals": stream.final_ms} for stream in further]
            self.connection.execute(_HEARD, rows)
            self.connection.execute(_LASTED, [{"of": stream.call_id, "until": stream.heard_ms} for stream in further])
        for stream in further:
            stream.came_further = False

    # --- Streams --------------------------------------------------------------------------------------------

    def load(self, infos: Iterable[CallInfo]) -> None:
        """Reads the rows of these streams, and of all others of their calls, at once."""
        for row in self.connection.execute(_STREAMS, {"of": list({info.call_sid for info in infos})}):
            found = OpenStream(
                id=row.id,
                sid=row.sid,
                call_id=row.call_id,
                call_sid=row.call_sid,
                tracks=tuple(row.tracks),
                services=tuple(row.services),
                started_at=row.started_at,
                offset_ms=row.offset_ms,
                heard_ms=row.heard_ms,
                final_ms=dict(row.final_ms or {}),
                was_closed=row.ended_at is not None and row.summary is None,
            )
            self._streams.setdefault((row.call_sid, row.sid), found)  # one that is known may have come further

    def stream(self, info: CallInfo) -> OpenStream | None:
        """The stream's row, if there is one: it has begun, and its call was not deleted since."""
        key = info.call_sid, info.stream_sid
        if key not in self._streams:
            self.load([info])
        return self._streams.get(key)

    def offsets(self) -> dict[str, int]:
        """Where the streams that were written to begin on their calls' clocks, by SID."""
        return {stream.sid: stream.offset_ms for stream in self._streams.values()}

    def forget(self, call_sid: str) -> None:
        """The call's streams are about to be changed behind our back: they will be read anew."""
        self.flush()
        self._streams = {key: stream for key, stream in self._streams.items() if key[0] != call_sid}

    def forget_all(self) -> None:
        """Calls were deleted."""
        self._streams.clear()
        self._sequences.clear()
