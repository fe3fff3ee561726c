"""A call's recording over HTTP: its sound, whole or in ranges, and how it looks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import gevent
from flask import Response, request
from gevent.threadpool import ThreadPool
from werkzeug.exceptions import NotFound, PreconditionFailed, RequestedRangeNotSatisfiable
from werkzeug.http import parse_range_header
from werkzeug.wsgi import wrap_file

from relay.playback import PIECE, Snapshot
from relay.store.records import Call
from relay.waveform import Waveform, waveform

_NOT_IN_A_NAME: Final = re.compile(r"[^\w.-]", re.ASCII)


class Sound:
    """The recordings of calls."""

    def __init__(self) -> None:
        self._draws = ThreadPool(1)  # one at a time: who asks for what another is having drawn finds it done

    def played(self, call: Call) -> Response:
        """The recording, as much of it as there is and as is asked for. Raises NotFound."""
        sound = _opened(call)
        pieces = wrap_file(request.environ, sound, PIECE)  # type: ignore[arg-type]  # all that it needs of a file
        answer = Response(pieces, mimetype="audio/wav", direct_passthrough=True)
        answer.content_length = sound.size
        answer.set_etag(f"{sound.changed_at:x}-{sound.size:x}")
        answer.headers.set("Content-Disposition", "attachment", filename=f"{_NOT_IN_A_NAME.sub('_', call.sid)}.wav")
        answer.accept_ranges = "bytes"
        try:
            answer.make_conditional(request, accept_ranges=_asks_for_a_part(sound.size), complete_length=sound.size)
        except RequestedRangeNotSatisfiable:
            sound.close()
            raise
        if answer.status_code == PreconditionFailed.code:
            sound.close()
            raise PreconditionFailed("The recording is not, or not any more, the one that If-Match names.")
        return answer

    def drawn(self, call: Call, points: int) -> dict[str, Any]:
        """The recording's waveform. Raises NotFound."""
        sound = _opened(call)
        sound.close()
        drawn: Waveform | None = self._draws.apply(_draw, (Path(call.recording or ""), sound, points))
        if drawn is None:
            raise _not_there()
        return drawn.as_json()


def _asks_for_a_part(size: int) -> bool:
    """Whether one part is asked for. What is none, or several, is not heeded, and all is sent (RFC 9110, 14.2)."""
    asked = parse_range_header(request.headers.get("Range"))
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return False
    return asked.ranges[0][0] >= -size  # the last bytes, and more of them than there are


def _opened(call: Call) -> Snapshot:
    sound = None
    if call.recording is not None:
        sound = gevent.get_hub().threadpool.apply(_open, (Path(call.recording),))
    if sound is None:
        raise _not_there()
    return sound


def _not_there() -> NotFound:
    return NotFound("There is no recording of this call.")


# --- In a thread, whose exceptions gevent would print -------------------------------------------------------


def _open(path: Path) -> Snapshot | None:
    try:
        return Snapshot(path)
    except (OSError, ValueError):
        return None


def _draw(path: Path, sound: Snapshot, points: int) -> Waveform | None:
    try:
        return waveform(path, sound.size, sound.changed_at, points)
    except OSError:
        return None
