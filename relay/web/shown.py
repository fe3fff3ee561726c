"""What viewers of the live feed are shown, as Server-Sent Events. Pure.

(https://html.spec.whatwg.org/multipage/server-sent-events.html)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from relay.events import Track, Transcript
from relay.protocol import CallInfo
from relay.store.records import Event, as_time
from relay.web.openapi import INTERIM, STATUS, UNOPENED, UNSAVED


class Frame(NamedTuple):
    """One event as it goes out. Its id is 0 when it is not stored.

    What is fleeting will soon be followed by another of its kind. A status is for those who watch this one call.
    """

    call_sid: str
    id: int
    data: bytes
    is_fleeting: bool = False
    is_status: bool = False
    begins_anew: bool = False


def stored(event: Event) -> Frame:
    """An event of the store's; or one that it could not store yet, and which will come again."""
    data = event.shown | {"created_at": as_time(event.created_at)}
    if not event.is_stored:
        return Frame(event.call_sid, 0, _written(UNSAVED, data))
    written = _written(event.kind, data | {"sequence": event.sequence})
    return Frame(event.call_sid, event.id, b"id: %d\n" % event.id + written)


def anew(last_id: int) -> Frame:
    """Shows nothing. Another database has taken the place of the one before: in that one, what follows this id is
    news."""
    return Frame("", last_id, b"", begins_anew=True)


def interim(call: CallInfo, offset_ms: int, service: str, track: Track, said: Transcript | None) -> Frame:
    """What someone seems to be saying, from the first word to the last; None: nothing after all. Its times are the
    stream's."""
    data: dict[str, Any] = _about(call, offset_ms) | {"track": track, "service": service}
    data |= {"text": "", "start_ms": None, "end_ms": None, "behind_ms": None}
    if said is not None:
        words = said.words or (said,)
        times = {"start_ms": words[0].start_ms, "end_ms": words[-1].end_ms, "behind_ms": said.behind_ms}
        data |= {"text": said.text} | times
    return Frame(call.call_sid, 0, _written(INTERIM, data), is_fleeting=said is not None)


def status(call: CallInfo, offset_ms: int, said: dict[str, Any]) -> Frame:
    """How a stream is doing."""
    data = _about(call, offset_ms) | said
    return Frame(call.call_sid, 0, _written(STATUS, data), is_fleeting=True, is_status=True)


def unopened(failure: dict[str, Any]) -> Frame:
    """Why the stream of a call that never began could not be opened. Belongs to no call that anybody may watch."""
    return Frame("", 0, _written(UNOPENED, failure))


def _about(call: CallInfo, offset_ms: int) -> dict[str, Any]:
    return {"call_sid": call.call_sid, "stream_sid": call.stream_sid, "offset_ms": offset_ms}


def _written(kind: str, data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(data))  # which breaks no line
